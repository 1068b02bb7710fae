//! The right to refresh one session, held by one process at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error::Unavailable;
use super::record::Names;
use super::{Store, commands};

/// A lease on one session. It is renewed until it is dropped, and given back then; if the process dies, it ends
/// by itself after [`LEASE_LENGTH`].
#[derive(Debug)]
pub struct Lease {
    store: Arc<Store>,
    names: Names,
    token: String,
    lost: Arc<AtomicBool>,
    renewal: AbortHandle,
}

impl Lease {
    /// Takes the lease; `None`: another holds it.
    pub(super) async fn take(store: &Arc<Store>, names: Names) -> Result<Option<Self>, Unavailable> {
        let token = token()?;
        let (this, at, ours) = (Arc::clone(store), names.clone(), token.clone());
        let taken = store.on_control(async move {
            let take = commands::take_lease(&at, &ours, LEASE_LENGTH);
            let taken: Option<String> = this.link()?.run(&take).await?;
            if taken.is_none() {
                return Ok(None);
            }
            let lost = Arc::new(AtomicBool::new(false));
            let renewal = tokio::spawn(renew(Arc::clone(&this), at.clone(), ours.clone(), Arc::clone(&lost)));
            let renewal = renewal.abort_handle();
            // Made here, so that it is given back also if nobody waits for it any more.
            Ok(Some(Self { store: this, names: at, token: ours, lost, renewal }))
        });
        taken.await
    }

    /// Whether it is still ours, as far as is known. Only [`Store::replace`] knows for sure.
    pub fn is_held(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
    }

    /// What is left of a holder whose process was killed.
    #[cfg(test)]
    pub(super) fn die(self) {
        self.renewal.abort();
        std::mem::forget(self);
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        let (store, names, token) = (Arc::clone(&self.store), self.names.clone(), self.token.clone());
        let release = async move {
            // Without a connection, or if this fails, it ends by itself.
            if let Ok(link) = store.link() {
                let _: Result<i64, _> = link.run(&commands::release_lease(&names, &token)).await;
            }
        };
        self.store.control.spawn(release);
    }
}

/// Renews until the lease is lost, or held for longer than any refresh takes.
async fn renew(store: Arc<Store>, names: Names, token: String, lost: Arc<AtomicBool>) {
    let mut hold = Hold::begin(Instant::now());
    loop {
        tokio::time::sleep(RENEWAL).await;
        let asked = Instant::now();
        let answer: Result<i64, Unavailable> = match store.link() {
            Ok(link) => link.run(&commands::renew_lease(&names, &token, LEASE_LENGTH)).await,
            Err(unavailable) => Err(unavailable),
        };
        if !hold.goes_on(asked, &answer, Instant::now()) {
            break;
        }
    }
    lost.store(true, Ordering::Release);
}

/// For how long a lease is known to be ours. Time is the caller's.
struct Hold {
    begun: Instant,
    renewed: Instant,
}

impl Hold {
    fn begin(now: Instant) -> Self {
        Self { begun: now, renewed: now }
    }

    /// Whether the lease is still ours at `now`, and may be renewed again, after `answer` to what was asked at `asked`.
    fn goes_on(&mut self, asked: Instant, answer: &Result<i64, Unavailable>, now: Instant) -> bool {
        match answer {
            Ok(1) => self.renewed = asked,
            Ok(_) => return false,
            // Renewed or not: what was left of it before is left of it still.
            Err(_) => {}
        }
        now - self.renewed < LEASE_LENGTH && now - self.begun < LONGEST_HOLD
    }
}

/// What tells this holder from all others.
fn token() -> Result<String, Unavailable> {
    let mut random = [0; 16];
    // Without randomness there is no lease, as there is no cipher: the machine is broken.
    rand::fill(&mut random).map_err(|_| Unavailable::Unexpected("no random numbers".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// How long a lease lives without its holder.
pub const LEASE_LENGTH: Duration = Duration::from_secs(5);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(1_500);
/// A holder that has not ended by then is stuck: a refresh takes 15 s at most.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An outage that is shorter than the lease loses nothing; after a longer one another may have it.
    #[test]
    fn a_lease_is_held_for_as_long_as_it_was_renewed_and_no_longer() {
        let begun = Instant::now();
        let mut hold = Hold::begin(begun);
        let down = Err(Unavailable::Broken);
        let mut goes_on = |answer: &Result<i64, Unavailable>, asked: Duration, now: Duration| {
            hold.goes_on(begun + asked, answer, begun + now)
        };
        assert!(goes_on(&down, SECOND, 2 * SECOND), "taken two seconds ago");
        // Asked at the third second, answered at the fourth: it lives from the question on, at least.
        assert!(goes_on(&Ok(1), 3 * SECOND, 4 * SECOND));
        assert!(goes_on(&down, 7 * SECOND, 8 * SECOND - Duration::from_millis(1)));
        assert!(!goes_on(&down, 7 * SECOND, 8 * SECOND), "five seconds are over");
        assert!(!goes_on(&Ok(1), 7 * SECOND, 12 * SECOND), "an answer that says nothing any more");
        assert!(goes_on(&Ok(1), 11 * SECOND, 12 * SECOND));
        assert!(!goes_on(&Ok(0), 12 * SECOND, 12 * SECOND), "another has it, or nobody");
    }

    #[test]
    fn nobody_holds_a_lease_for_ever() {
        let begun = Instant::now();
        let mut hold = Hold::begin(begun);
        let held = (1..100).take_while(|&second| {
            let now = begun + second * SECOND;
            hold.goes_on(now, &Ok(1), now)
        });
        assert_eq!(held.count(), 29, "the thirtieth second is one too many");
    }
}
