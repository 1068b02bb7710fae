//! The wall clock, injected so that tests can set it. Timeouts use tokio's monotonic clock instead.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whole seconds since 1970-01-01T00:00:00Z, as JWT NumericDates are used here (RFC 7519 section 2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This time plus `span`, at most the far end of time.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }

    /// This time minus `span`, at least the epoch.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.as_secs()))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339, UTC.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        f.write_str(&moment.format(&Rfc3339).unwrap_or_default())
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z: for what must be put in order within a second.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl From<UnixTime> for Millis {
    /// The beginning of the second.
    fn from(time: UnixTime) -> Self {
        Self(time.0.saturating_mul(1000))
    }
}

/// Tells the time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that stands at `start` until the handle moves it.
    pub fn manual(start: UnixTime) -> (Self, ManualClock) {
        let seconds = Arc::new(AtomicU64::new(start.0));
        (Self(Kind::Manual(seconds.clone())), ManualClock(seconds))
    }

    /// The time now.
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Kind::System => self.at(SystemTime::now()),
            Kind::Manual(seconds) => UnixTime(seconds.load(Ordering::SeqCst)),
        }
    }

    /// What it shows at `time`, for whoever has asked the machine's clock already. A clock set by hand shows the same
    /// as [`Self::now`].
    pub fn at(&self, time: SystemTime) -> UnixTime {
        match &self.0 {
            Kind::System => UnixTime(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
            Kind::Manual(_) => self.now(),
        }
    }

    /// The time now, in milliseconds. A clock set by hand stands at the beginning of its second.
    pub fn now_millis(&self) -> Millis {
        match &self.0 {
            Kind::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Kind::Manual(_) => self.now().into(),
        }
    }
}

/// Moves the [`Clock`] that it was made with.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Sets the time.
    pub fn set(&self, to: UnixTime) {
        self.0.store(to.0, Ordering::SeqCst);
    }

    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}
