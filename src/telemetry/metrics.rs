//! Metrics in Prometheus' text format. Requests are counted by plain per-worker atomics that only a scrape
//! adds up, so that counting costs no lock and no shared cache line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::{Action, Log};

/// All metrics of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Arc<Requests>,
    logins: Family<LoginLabels, Counter>,
    refreshes: Family<RefreshLabels, Counter>,
    reload_failures: Counter,
    revoked: Counter,
    connections: Arc<Connections>,
}

impl Metrics {
    /// Registers every metric. `observed` names the services that run in `mode: observe`.
    pub fn new(log: &Log, observed: &[Arc<str>]) -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let requests = Arc::new(Requests::default());
        let logins = Family::<LoginLabels, Counter>::default();
        let refreshes = Family::<RefreshLabels, Counter>::default();
        let (reload_failures, revoked) = (Counter::default(), Counter::default());
        let connections = Arc::new(Connections::default());
        registry.register_collector(Box::new(requests.clone()));
        registry.register_collector(Box::new(connections.clone()));
        registry.register("logins", "Finished logins by result", logins.clone());
        registry.register("refreshes", "Refreshes of sessions by result", refreshes.clone());
        registry.register(
            "reload_failures",
            "Reloads of a certificate, key or secret that failed; the old one stays",
            reload_failures.clone(),
        );
        registry.register(
            "sessions_revoked",
            "Ends of sessions before their time: logouts, words of the provider, calls of the administrator",
            revoked.clone(),
        );
        registry.register_collector(Box::new(Dropped(log.clone())));
        registry.register_collector(Box::new(Observing(observed.to_vec())));
        registry.register(
            "build",
            "The running version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            registry: Arc::new(registry),
            requests,
            logins,
            refreshes,
            reload_failures,
            revoked,
            connections,
        }
    }

    /// Counters for one service on one worker.
    pub fn requests(&self, service: Option<&Arc<str>>) -> Arc<RequestCounters> {
        let counters = Arc::new(RequestCounters::new());
        let name = service.cloned().unwrap_or_default();
        let mut all = self.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name).or_default().push(counters.clone());
        counters
    }

    /// Shows the open connections of each worker, by its index, as `count` tells them. The first call counts.
    pub fn show_connections(&self, count: impl Fn() -> Vec<usize> + Send + Sync + 'static) {
        // An error says that they are shown already.
        let _ = self.connections.0.set(Box::new(count));
    }

    /// Counts a finished login.
    pub fn login(&self, service: &Arc<str>, result: LoginResult) {
        self.logins.get_or_create(&LoginLabels { service: service.to_string(), result }).inc();
    }

    /// Counts a finished refresh.
    pub fn refresh(&self, service: &Arc<str>, result: RefreshResult) {
        self.refreshes.get_or_create(&RefreshLabels { service: service.to_string(), result }).inc();
    }

    /// Counts a failed reload.
    pub fn reload_failed(&self) {
        self.reload_failures.inc();
    }

    /// Counts one word that ended one session or several before their time.
    pub fn session_revoked(&self) {
        self.revoked.inc();
    }

    /// All metrics in OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail; a metric that can't be encoded ends the text early.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// How a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are the label values")]
pub enum LoginResult {
    /// A session was made.
    success,
    /// The provider said no.
    denied,
    /// The provider's answer was refused.
    refused,
    /// The provider could not be used.
    unavailable,
    /// The browser's part was missing or wrong.
    browser,
}

/// How the refresh of a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are the label values")]
pub enum RefreshResult {
    /// The session goes on with new tags.
    success,
    /// The provider said no, or its answer was refused: the session is over.
    refused,
    /// The provider could not be used: the session goes on with the tags that it has.
    unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    service: String,
    result: RefreshResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    service: String,
    result: LoginResult,
}

/// Requests of one service on one worker.
#[derive(Debug)]
pub struct RequestCounters {
    by_status: Box<[AtomicU64]>,
    buckets: [AtomicU64; BUCKETS.len()],
    microseconds: AtomicU64,
}

impl RequestCounters {
    fn new() -> Self {
        Self {
            by_status: (0..ACTIONS.len() * STATUSES).map(|_| AtomicU64::new(0)).collect(),
            buckets: [const { AtomicU64::new(0) }; BUCKETS.len()],
            microseconds: AtomicU64::new(0),
        }
    }

    /// Counts one finished request.
    pub fn count(&self, action: Action, status: u16, duration: Duration) {
        let row = ACTIONS.iter().position(|known| *known == action).unwrap_or_default();
        // 0 is a request whose client went away; everything a server sends is below 600.
        let column = usize::from(status).min(STATUSES - 1);
        if let Some(counter) = self.by_status.get(row * STATUSES + column) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|upper| seconds <= *upper).unwrap_or(BUCKETS.len() - 1);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(micros, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Requests(Mutex<BTreeMap<Arc<str>, Vec<Arc<RequestCounters>>>>);

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut metric = encoder.encode_descriptor(
            "requests",
            "Requests by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (service, workers) in all.iter() {
            for (row, action) in ACTIONS.iter().enumerate() {
                for status in 0..STATUSES {
                    let place = row * STATUSES + status;
                    let count = total(workers.iter().filter_map(|worker| worker.by_status.get(place)));
                    if count > 0 {
                        let labels = [
                            ("service", service.to_string()),
                            ("action", action.as_str().to_owned()),
                            ("status", status.to_string()),
                        ];
                        metric
                            .encode_family(&labels)?
                            .encode_counter::<Vec<(String, String)>, u64, f64>(&count, None)?;
                    }
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "request_duration_seconds",
            "From a request's head to the last byte of its answer",
            None,
            MetricType::Histogram,
        )?;
        for (service, workers) in all.iter() {
            let buckets: Vec<(f64, u64)> = BUCKETS
                .iter()
                .enumerate()
                .map(|(place, upper)| {
                    (*upper, total(workers.iter().filter_map(|worker| worker.buckets.get(place))))
                })
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = total(workers.iter().map(|worker| &worker.microseconds)) as f64 / 1e6;
            metric
                .encode_family(&[("service", service.to_string())])?
                .encode_histogram::<Vec<(String, String)>>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn total<'a>(counters: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    counters.map(|counter| counter.load(Ordering::Relaxed)).sum()
}

#[derive(Debug)]
struct Dropped(Log);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encoder
            .encode_descriptor("log_dropped", "Log lines lost to a slow reader", None, MetricType::Counter)?
            .encode_counter::<Vec<(String, String)>, u64, f64>(&self.0.dropped(), None)
    }
}

#[derive(Debug)]
struct Observing(Vec<Arc<str>>);

impl Collector for Observing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "observe_mode",
            "1 for a service whose rules are not enforced (mode: observe)",
            None,
            MetricType::Gauge,
        )?;
        for service in &self.0 {
            metric.encode_family(&[("service", service.to_string())])?.encode_gauge(&1_i64)?;
        }
        Ok(())
    }
}

/// Asked at a scrape.
#[derive(Default)]
struct Connections(OnceLock<Box<dyn Fn() -> Vec<usize> + Send + Sync>>);

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections")
    }
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.get().map(|count| count()).unwrap_or_default();
        let mut metric = encoder.encode_descriptor(
            "connections",
            "Open connections of clients by worker thread",
            None,
            MetricType::Gauge,
        )?;
        for (worker, count) in counts.into_iter().enumerate() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metric.encode_family(&[("worker", worker.to_string())])?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

const ACTIONS: [Action; 3] = [Action::Accept, Action::Reject, Action::Observe];
const STATUSES: usize = 600;
/// Upper bounds in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, f64::INFINITY];

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn the_documented_names_are_there() {
        let (log, _writer) = Log::start(Format::Json, std::io::sink());
        let service: Arc<str> = "app".into();
        let metrics = Metrics::new(&log, std::slice::from_ref(&service));
        for _ in 0..2 {
            metrics.requests(Some(&service)).count(Action::Accept, 200, Duration::from_millis(2));
        }
        metrics.login(&service, LoginResult::success);
        metrics.reload_failed();
        metrics.show_connections(|| vec![3, 4]);
        let text = metrics.render();
        for line in [
            r#"portcullis_requests_total{service="app",action="Accept",status="200"} 2"#,
            r#"portcullis_request_duration_seconds_bucket{le="0.0025",service="app"} 2"#,
            r#"portcullis_request_duration_seconds_count{service="app"} 2"#,
            r#"portcullis_logins_total{service="app",result="success"} 1"#,
            r#"portcullis_request_duration_seconds_bucket{le="+Inf",service="app"} 2"#,
            "portcullis_reload_failures_total 1",
            r#"portcullis_connections{worker="0"} 3"#,
            r#"portcullis_connections{worker="1"} 4"#,
            "portcullis_log_dropped_total 0",
            "portcullis_sessions_revoked_total 0",
            r#"portcullis_observe_mode{service="app"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.contains("portcullis_build_info{version="), "{text}");
    }
}
