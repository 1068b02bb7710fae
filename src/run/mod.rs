//! `run`: assembles every box from the configuration, starts them, and stops them again.
//!
//! This is the one place that sees all boxes. The main thread becomes the control runtime: signals, discovery,
//! file watching and the admin listener live there, and never on a worker.

mod assembly;
mod ending;
mod events;
mod readiness;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{self, Authorization, Config, LogFormat};
use crate::gate::{self, Gate};
use crate::policy;
use crate::secret::Source;
use crate::server::{self, Lifecycle};
use crate::session::redis::Store;
use crate::session::revocation::DiskLedger;
use crate::session::{KeyError, KeyRing};
use crate::telemetry::{self, Event, Level, Log, Metrics, admin};
use crate::tls;

use assembly::Assembly;
use watched::{Watched, Watches};

/// What a command decides about a run, beside the configuration.
#[derive(Debug)]
pub struct Options {
    /// Where records and events go.
    pub log: Log,
    /// Whether a 403 page tells which tags would be enough: in `try`, where the rules are to be felt.
    pub explain_denials: bool,
    /// The wall clock.
    pub clock: Clock,
}

/// Why the proxy could not start. Exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The session keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The provider of a service.
    #[error("service `{service}`: {cause}")]
    Provider {
        /// Its name.
        service: Arc<str>,
        /// Why.
        cause: crate::oidc::ConfigError,
    },
    /// The way to the application of a service.
    #[error("service `{service}`: {cause}")]
    Upstream {
        /// Its name.
        service: Arc<str>,
        /// Why.
        cause: crate::proxy::ConfigError,
    },
    /// The store of sessions.
    #[error(transparent)]
    Store(#[from] crate::session::redis::ConfigError),
    /// A certificate.
    #[error("TLS: {0}")]
    Tls(#[from] tls::Error),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// A port.
    #[error(transparent)]
    Bind(#[from] server::BindError),
    /// The server ended by itself.
    #[error(transparent)]
    Server(#[from] server::RunError),
    /// A thread or runtime.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Makes the cryptography of rustls and of JSON Web Tokens the same, once for the process.
pub fn install_cryptography() {
    // An error says that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// The assembled and bound proxy: ports are taken, nothing is served yet.
#[derive(Debug)]
pub struct Proxy {
    bound: server::Bound,
    admin: admin::Admin,
    gate: Gate,
    limits: server::Limits,
    watched: Watched,
    store: Option<Arc<Store>>,
    redacted: Arc<str>,
    warnings: Vec<String>,
}

impl Proxy {
    /// Assembles the boxes and takes the ports. Wants to be called on the control runtime.
    pub fn assemble(config: &Config, options: &Options) -> Result<Self, StartError> {
        install_cryptography();
        let (clock, log) = (options.clock.clone(), options.log.clone());
        let observed: Vec<Arc<str>> = config
            .services
            .iter()
            .filter(|service| service.rules.mode == policy::Mode::Observe)
            .map(|service| service.name.clone())
            .collect();
        let metrics = Metrics::new(&log, &observed);
        // Watches before anything is read: what changes in between is then seen at the first look.
        let watches = Watches::of(config);
        let keys = Arc::new(ArcSwap::from_pointee(KeyRing::load(&config.session_keys)?));
        let has_sessions =
            |service: &config::Service| matches!(service.authorization, Authorization::Oidc(_));
        let served = config.services.iter().any(has_sessions);
        let store = match config.redis.as_ref().filter(|_| served) {
            Some(redis) => Some(Store::new(redis.clone(), Handle::current(), events::store_events(&log))?),
            None => None,
        };
        // What was ended is kept for the next start, and told to all processes where they share sessions.
        let ledger = config.state_directory.as_deref().filter(|_| served).map(|state| {
            Arc::new(DiskLedger::new(state, clock.clone(), events::ledger_events(&log, store.as_ref())))
        });
        let ledger = ledger.as_ref();
        let assembly = Assembly {
            config,
            options,
            clock: &clock,
            keys: &keys,
            metrics: &metrics,
            ledger,
            store: store.as_ref(),
        };
        let services = config
            .services
            .iter()
            .map(|service| assembly.service(service).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        // Before anything is served: what had been ended stays ended.
        ledger.map_or(Ok(()), |ledger| ledger.start())?;
        let listeners = assembly.listeners()?;
        let bound = server::bind(listeners.iter().map(|listener| listener.server.clone()).collect())?;
        let admin = admin::Admin::bind(&admin_config(&config.admin))?;
        let tls = listeners.iter().filter_map(|listener| listener.tls.clone()).collect();
        let watched = Watched::new(watches, keys, config.session_keys.clone(), &services, tls);
        let caches = (config.limits.workers * services.len()).max(1);
        let gate = Gate {
            services,
            listeners: listeners.into_iter().map(|listener| listener.gate).collect(),
            limits: gate::Limits {
                target_bytes: config.limits.target_bytes,
                body_idle_timeout: config.limits.body_idle_timeout,
                session_cache_bytes: (SESSION_CACHES_BYTES / caches).max(SESSION_CACHE_BYTES),
            },
            log,
            metrics,
            clock,
            lifecycle: Lifecycle::new(),
        };
        Ok(Self {
            bound,
            admin,
            gate,
            limits: config.limits.clone(),
            watched,
            store,
            redacted: config.redacted_yaml().into(),
            warnings: config.warnings.iter().map(ToString::to_string).collect(),
        })
    }

    /// Serves until `shutdown` resolves, then drains.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let log = self.gate.log.clone();
        for warning in &self.warnings {
            log.event(Event::new("configuration", Level::Warning).message(warning));
        }
        for service in &self.gate.services {
            if let Some(party) = &service.relying_party {
                tokio::spawn(party.provider.clone().keep_discovered());
            }
        }
        if let Some(store) = self.store {
            tokio::spawn(store.keep_connected(Arc::new(assembly::shared_endings(&self.gate.services))));
        }
        self.admin.serve(&admin::Sources {
            ready: readiness::probe(self.gate.services.clone(), self.gate.lifecycle.clone()),
            config: self.redacted,
            metrics: self.gate.metrics.clone(),
            end_sessions: ending::end_sessions(self.gate.services.clone(), log.clone()),
        });
        tokio::spawn(self.watched.poll(log.clone(), self.gate.metrics.clone()));
        tokio::spawn(tell_when_started(&self.bound, &self.gate.lifecycle, log.clone()));
        let gate = self.gate;
        let (lifecycle, events) = (gate.lifecycle.clone(), events::server_events(&log));
        let counts = server::ConnectionCounts::new(self.limits.workers);
        let counted = counts.clone();
        gate.metrics.show_connections(move || counted.now());
        let delay = self.limits.shutdown_delay;
        let told = log.clone();
        let stop = async move {
            shutdown.await;
            let message = format!("not ready any more; accepting for {} s, then draining", delay.as_secs());
            told.event(Event::new("stopping", Level::Info).message(message));
        };
        let stopped =
            server::run(self.bound, self.limits, lifecycle, stop, events, counts, move |_| gate.worker())
                .await?;
        let message = match stopped.cut {
            0 => "everything under way was finished".to_owned(),
            cut => format!("{cut} connections were still busy after limits.drain and were cut off"),
        };
        log.event(Event::new("stopped", Level::Info).message(message));
        Ok(())
    }
}

/// Tells that the workers are up.
fn tell_when_started(
    bound: &server::Bound,
    lifecycle: &Lifecycle,
    log: Log,
) -> impl Future<Output = ()> + use<> {
    let ports: Vec<String> = bound.addresses().iter().map(ToString::to_string).collect();
    let serving = lifecycle.reached(server::Phase::Serving);
    async move {
        serving.await;
        let message = format!("{} listening on {}", env!("CARGO_PKG_VERSION"), ports.join(", "));
        log.event(Event::new("started", Level::Info).message(message));
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: &Config, format: telemetry::Format) -> Result<(), StartError> {
    let (log, writer) = Log::to_stdout(format);
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options { log, explain_denials: false, clock: Clock::system() };
    let result = control.block_on(async {
        let stop = stop_signal()?;
        raise_file_limit();
        outlive_hangups(&options.log)?;
        Proxy::assemble(config, &options)?.serve(stop).await
    });
    // Not for ever: what reads files may be stuck in a file system that does not answer.
    control.shutdown_timeout(FILES_PATIENCE);
    writer.finish();
    result
}

/// How long what reads files may go on at the end.
const FILES_PATIENCE: Duration = Duration::from_millis(500);

/// Resolves at SIGTERM or SIGINT.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Lets the process have as many files open as the system allows it: every connection is one or two.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    // What can't be raised stays; the server then takes as many connections as fit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Certificates, keys and secrets are read again by themselves. A SIGHUP, which would end the process by
/// default, is answered in the log.
fn outlive_hangups(log: &Log) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut hangup, log) = (signal(SignalKind::hangup())?, log.clone());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            log.event(Event::new("hangup", Level::Warning).message(
                "SIGHUP does not reload the configuration in this version; restart instead. Certificates, keys \
                 and secrets in files are read again when they change",
            ));
        }
    });
    Ok(())
}

/// The form of the log, from the configuration.
pub fn log_format(config: &Config) -> telemetry::Format {
    match config.log_format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    }
}

fn admin_config(admin: &config::Admin) -> admin::Config {
    admin::Config {
        listen: match &admin.listen {
            config::AdminListen::Tcp(address) => admin::Listen::Tcp(*address),
            config::AdminListen::Unix(path) => admin::Listen::Unix(path.clone()),
        },
        probes: admin.probes,
        token: admin.token_file.clone().map(Source::File),
    }
}

/// What the opened sessions of all services may take on all workers together.
const SESSION_CACHES_BYTES: usize = 128 * 1024 * 1024;
/// But at least this much of each service on each worker: a few dozen sessions of the largest kind.
const SESSION_CACHE_BYTES: usize = 4 * 1024 * 1024;
