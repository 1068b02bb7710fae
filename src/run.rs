//! `run`: assembles every box from the configuration, starts them, and stops them again.
//!
//! This is the one place that sees all boxes. The main thread becomes the control runtime: signals, discovery,
//! file watching and the admin listener live there, and never on a worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{self, Authorization, Config, LogFormat};
use crate::gate::{self, Ended, Entrance, Gate, Redeemed, RelyingParty};
use crate::oidc::{Provider, Status};
use crate::policy;
use crate::proxy::Connector;
use crate::secret::Source;
use crate::server::{self, Kind, Lifecycle};
use crate::session::{Binding, KeyError, KeyRing, LoginCookies, OwnCookies, Sealer, Sessions};
use crate::telemetry::{self, Event, Level, Log, Metrics, admin};
use crate::tls::{self, ServerTls};
use crate::watch::{FileWatch, POLL_INTERVAL};

/// What a command decides about a run, beside the configuration.
#[derive(Debug)]
pub struct Options {
    /// Where records and events go.
    pub log: Log,
    /// Whether a 403 page tells which tags would be enough: in `try`, where the rules are to be felt.
    pub explain_denials: bool,
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
    redacted: Arc<str>,
    warnings: Vec<String>,
}

impl Proxy {
    /// Assembles the boxes and takes the ports. Wants to be called on the control runtime.
    pub fn assemble(config: &Config, options: &Options) -> Result<Self, StartError> {
        install_cryptography();
        let (clock, log) = (Clock::system(), options.log.clone());
        let observed: Vec<Arc<str>> = config
            .services
            .iter()
            .filter(|service| service.rules.mode == policy::Mode::Observe)
            .map(|service| service.name.clone())
            .collect();
        let metrics = Metrics::new(&log, &observed);
        // Watches before anything is read: what changes in between is then seen at the first look.
        let key_files = FileWatch::new(key_file(&config.session_keys));
        let provider_files = provider_files(config);
        let upstream_files = upstream_files(config);
        let keys = Arc::new(ArcSwap::from_pointee(KeyRing::load(&config.session_keys)?));
        let assembly = Assembly { config, options, clock: &clock, keys: &keys, metrics: &metrics };
        let services = config
            .services
            .iter()
            .map(|service| assembly.service(service).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let listeners = assembly.listeners()?;
        let bound = server::bind(listeners.iter().map(|listener| listener.server.clone()).collect())?;
        let admin = admin::Admin::bind(&admin_config(&config.admin))?;
        let watched = Watched {
            keys,
            key_source: config.session_keys.clone(),
            key_files,
            providers: provider_files
                .into_iter()
                .zip(&services)
                .filter_map(|(files, service)| {
                    Some((files, service.relying_party.as_ref()?.provider.clone()))
                })
                .collect(),
            upstreams: upstream_files
                .into_iter()
                .zip(&services)
                .map(|(files, service)| (files, service.clone()))
                .collect(),
            tls: listeners.iter().filter_map(|listener| listener.tls.clone()).collect(),
        };
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
        self.admin.serve(&admin::Sources {
            ready: readiness(self.gate.services.clone(), self.gate.lifecycle.clone()),
            config: self.redacted,
            metrics: self.gate.metrics.clone(),
        });
        tokio::spawn(self.watched.poll(log.clone(), self.gate.metrics.clone()));
        tokio::spawn(tell_when_started(&self.bound, &self.gate.lifecycle, log.clone()));
        let gate = self.gate;
        let (lifecycle, events) = (gate.lifecycle.clone(), server_events(&log));
        let stopped =
            server::run(self.bound, self.limits, lifecycle, shutdown, events, move |_| gate.worker()).await?;
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
    let options = Options { log, explain_denials: false };
    let result = control.block_on(async {
        let stop = stop_signal()?;
        raise_file_limit();
        outlive_hangups(&options.log)?;
        Proxy::assemble(config, &options)?.serve(stop).await
    });
    writer.finish();
    result
}

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

struct Assembly<'a> {
    config: &'a Config,
    options: &'a Options,
    clock: &'a Clock,
    keys: &'a Arc<ArcSwap<KeyRing>>,
    metrics: &'a Metrics,
}

/// A listener as each box needs it.
struct Listening {
    server: server::Listener,
    gate: gate::Listener,
    tls: Option<Arc<ServerTls>>,
}

impl Assembly<'_> {
    fn service(&self, service: &config::Service) -> Result<gate::Service, StartError> {
        let relying_party = match &service.authorization {
            Authorization::Oidc(oidc) => Some(self.relying_party(service, oidc)?),
            Authorization::None => None,
        };
        let connector = Connector::new(&service.upstream.upstream)
            .map_err(|cause| StartError::Upstream { service: service.name.clone(), cause })?;
        Ok(gate::Service {
            name: service.name.clone(),
            hosts: service.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            canonical_host: service.canonical_host.as_str().to_owned(),
            origin: service.base_url.clone(),
            policy: service.policy.clone(),
            path: service.path,
            relying_party,
            proxy: service.upstream.clone(),
            connector,
            mappings: service.mappings.clone(),
            own_cookies: OwnCookies::new(self.config.own_cookies.clone()),
            failure_redirect: service.redirect_on_failure.clone(),
            allowed_origins: service.allowed_origins.clone(),
            trusted_proxies: service.trusted_proxies.clone(),
            hsts: service.hsts.and_then(|age| format!("max-age={}", age.as_secs()).parse().ok()),
            explain_denials: self.options.explain_denials,
        })
    }

    fn relying_party(
        &self,
        service: &config::Service,
        oidc: &crate::oidc::Config,
    ) -> Result<RelyingParty, StartError> {
        let binding = Binding {
            service: service.name.to_string(),
            host: service.canonical_host.as_str().to_owned(),
            issuer: oidc.issuer.clone(),
            client_id: oidc.client_id.clone(),
        };
        let sealer = Sealer::new(self.keys.clone(), &binding);
        let events = provider_events(&self.options.log, self.metrics, &service.name);
        let provider = Provider::new(oidc.clone(), self.clock.clone(), Handle::current(), events)
            .map_err(|cause| StartError::Provider { service: service.name.clone(), cause })?;
        Ok(RelyingParty {
            provider,
            sessions: Sessions::new(service.session.clone(), sealer.clone(), self.clock.clone()),
            login_cookies: LoginCookies::new(service.login_cookie.clone()),
            sealer,
            callback_path: service.callback_path.clone(),
            needed_claims: oidc.needed_claims.clone(),
            redeemed: Redeemed::new(),
            ended: Ended::default(),
        })
    }

    /// All listeners. Services on one port share it and are told apart by host.
    fn listeners(&self) -> Result<Vec<Listening>, StartError> {
        let mut ports: Vec<(Entrance, Option<std::net::IpAddr>, u16, Vec<usize>)> = Vec::new();
        for (index, service) in self.config.services.iter().enumerate() {
            let exposed = if service.tls.is_some() { Entrance::Tls } else { Entrance::BehindProxy };
            let wanted = [
                Some((exposed, service.exposed_port)),
                service.public_application_port.map(|port| (Entrance::PublicOnly, port)),
                service.http_redirect_port.map(|port| (Entrance::Redirect, port)),
            ];
            for (entrance, port) in wanted.into_iter().flatten() {
                let address = service.listen_address;
                let known = ports
                    .iter_mut()
                    .find(|known| known.1 == address && known.2 == port && known.0 == entrance);
                match known {
                    Some((.., services)) => services.push(index),
                    None => ports.push((entrance, address, port, vec![index])),
                }
            }
        }
        ports
            .into_iter()
            .map(|(entrance, address, port, services)| {
                let tls = if entrance == Entrance::Tls { Some(self.server_tls(&services)?) } else { None };
                let kind = match (&tls, entrance) {
                    (Some(tls), _) => {
                        let tls = tls.clone();
                        Kind::Tls(Arc::new(move || tls.server_config()))
                    }
                    (None, Entrance::PublicOnly) => Kind::PublicOnly,
                    (None, Entrance::Redirect) => Kind::Redirect,
                    (None, Entrance::BehindProxy | Entrance::Tls) => Kind::PlainBehindProxy,
                };
                Ok(Listening {
                    server: server::Listener { address, port, kind },
                    gate: gate::Listener { entrance, services },
                    tls,
                })
            })
            .collect()
    }

    fn server_tls(&self, services: &[usize]) -> Result<Arc<ServerTls>, tls::Error> {
        let services = services
            .iter()
            .filter_map(|index| self.config.services.get(*index))
            .filter_map(|service| {
                Some(tls::Service {
                    name: service.name.to_string(),
                    hosts: service.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
                    certificate: service.tls.clone()?,
                })
            })
            .collect();
        ServerTls::new(tls::Config { services }, self.clock.clone()).map(Arc::new)
    }
}

/// Files that are read again when they change.
#[derive(Debug)]
struct Watched {
    keys: Arc<ArcSwap<KeyRing>>,
    key_source: crate::session::KeySource,
    key_files: FileWatch,
    providers: Vec<(FileWatch, Arc<Provider>)>,
    upstreams: Vec<(FileWatch, Arc<gate::Service>)>,
    tls: Vec<Arc<ServerTls>>,
}

impl Watched {
    async fn poll(self, log: Log, metrics: Metrics) {
        // Reading a few small files may wait for a slow disk: not on the runtime that answers probes.
        let this = Arc::new(Mutex::new(self));
        loop {
            let (watched, told, metrics) = (this.clone(), log.clone(), metrics.clone());
            let looked = tokio::task::spawn_blocking(move || {
                watched.lock().unwrap_or_else(PoisonError::into_inner).look(&told, &metrics);
            });
            if looked.await.is_err() {
                let event = Event::new("reload-failed", Level::Error).blame("portcullis");
                log.event(event.message("a bug in looking after files; please report it"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn look(&mut self, log: &Log, metrics: &Metrics) {
        if self.key_files.changed() {
            let event = match KeyRing::load(&self.key_source) {
                // Made by ourselves at the start, or only another comment.
                Ok(ring) if ring.ids().eq(self.keys.load().ids()) => None,
                Ok(ring) => Some({
                    self.keys.store(Arc::new(ring));
                    Event::new("key-rotation", Level::Info).message("the session keys were read again")
                }),
                Err(error) => Some({
                    metrics.reload_failed();
                    Event::new("reload-failed", Level::Error)
                        .blame("configuration")
                        .message(format!("{error}; the old ones stay in use"))
                }),
            };
            event.into_iter().for_each(|event| log.event(event));
        }
        for (files, provider) in &mut self.providers {
            if files.changed() {
                provider.reload_files();
            }
        }
        for (files, service) in &mut self.upstreams {
            if files.changed() {
                let event = match service.connector.reload(&service.proxy.upstream) {
                    Ok(()) => {
                        Event::new("reloaded", Level::Info).message("the application's CA was read again")
                    }
                    Err(error) => {
                        metrics.reload_failed();
                        Event::new("reload-failed", Level::Error)
                            .blame("configuration")
                            .message(format!("{error}; the old CA stays in use"))
                    }
                };
                log.event(event.service(&service.name));
            }
        }
        for outcome in self.tls.iter().flat_map(|tls| tls.reload_if_changed()) {
            let level = match (outcome.change.is_failure(), outcome.change.is_warning()) {
                (true, _) => Level::Error,
                (false, true) => Level::Warning,
                (false, false) => Level::Info,
            };
            if outcome.change.is_failure() {
                metrics.reload_failed();
            }
            log.event(Event::new("certificate", level).message(outcome.to_string()));
        }
    }
}

fn key_file(source: &crate::session::KeySource) -> Option<std::path::PathBuf> {
    match source {
        crate::session::KeySource::File(path) => Some(path.clone()),
        crate::session::KeySource::State(directory) => Some(directory.join(crate::session::STATE_KEY_FILE)),
        crate::session::KeySource::Ephemeral => None,
    }
}

/// For each service: client secret and CA of its provider, as far as they are files.
fn provider_files(config: &Config) -> Vec<FileWatch> {
    let files = |service: &config::Service| match &service.authorization {
        Authorization::Oidc(oidc) => crate::oidc::files(oidc),
        Authorization::None => Vec::new(),
    };
    config.services.iter().map(|service| FileWatch::new(files(service))).collect()
}

/// For each service: the CA of its application, if it is a file.
fn upstream_files(config: &Config) -> Vec<FileWatch> {
    let file = |service: &config::Service| match &service.upstream.upstream {
        crate::proxy::Upstream::Tls { roots: Some(roots), .. } => roots.path().map(std::path::Path::to_owned),
        _ => None,
    };
    config.services.iter().map(|service| FileWatch::new(file(service))).collect()
}

/// What the opened sessions of all services may take on all workers together.
const SESSION_CACHES_BYTES: usize = 128 * 1024 * 1024;
/// But at least this much of each service on each worker: a few dozen sessions of the largest kind.
const SESSION_CACHE_BYTES: usize = 4 * 1024 * 1024;

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

/// Turns what happens at the listeners into events of the log.
fn server_events(log: &Log) -> server::Events {
    let log = log.clone();
    Arc::new(move |happened| {
        let (name, message) = match happened {
            server::Event::ConnectionsReduced { wanted, possible } => (
                "connections-reduced",
                format!(
                    "limits.connections is {wanted}, but the limit of open files allows {possible}; raise it"
                ),
            ),
            server::Event::AcceptPaused { reason } => ("accept-paused", reason),
            server::Event::HandshakeFailed { peer, reason, .. } => {
                ("handshake-failed", format!("{peer}: {reason}"))
            }
        };
        log.event(Event::new(name, Level::Warning).message(message));
    })
}

/// Turns what happens at a provider into events of the log.
fn provider_events(log: &Log, metrics: &Metrics, service: &Arc<str>) -> crate::oidc::Events {
    use crate::oidc::Event as Happened;

    let (log, metrics, service) = (log.clone(), metrics.clone(), service.clone());
    let had_keys = AtomicBool::new(false);
    Arc::new(move |happened| {
        let event = match happened {
            Happened::Discovered => {
                Event::new("discovery", Level::Info).message("the identity provider answers")
            }
            Happened::DiscoveryFailed { reason, keeps_old } => {
                let level = if keeps_old { Level::Warning } else { Level::Error };
                Event::new("discovery-failed", level).blame("provider").message(reason)
            }
            Happened::KeysChanged { usable } => {
                let first = !had_keys.swap(true, Ordering::Relaxed);
                let name = if first { "keys" } else { "key-rotation" };
                let text = if first {
                    "the keys of the identity provider"
                } else {
                    "the identity provider changed its keys"
                };
                Event::new(name, Level::Info).message(format!("{text}; {usable} can be used"))
            }
            Happened::KeysFailed { reason } => {
                Event::new("keys-failed", Level::Warning).blame("provider").message(reason)
            }
            Happened::Reloaded { path } => {
                Event::new("reloaded", Level::Info).message(format!("{} was read again", path.display()))
            }
            Happened::ReloadFailed { path, reason } => {
                metrics.reload_failed();
                Event::new("reload-failed", Level::Error)
                    .blame("configuration")
                    .message(format!("{}: {reason}; the old content stays in use", path.display()))
            }
        };
        log.event(event.service(&service));
    })
}

/// What `/readyz` answers: of all services, or of one.
fn readiness(services: Vec<Arc<gate::Service>>, lifecycle: Lifecycle) -> Arc<admin::ReadyProbe> {
    Arc::new(move |name| {
        let chosen: Vec<_> = services.iter().filter(|it| name.is_none_or(|name| *it.name == *name)).collect();
        if chosen.is_empty() {
            return None;
        }
        let statuses: Vec<_> = chosen
            .iter()
            .filter_map(|service| Some(service.relying_party.as_ref()?.provider.status()))
            .collect();
        let unusable = |status: &Status| matches!(status, Status::Unusable { .. });
        let hopeless = !statuses.is_empty() && statuses.iter().all(unusable);
        let ready = lifecycle.is_ready() && !hopeless;
        let degraded = statuses.iter().any(|status| *status != Status::Ready);
        let status = match (ready, degraded) {
            (false, _) => "not ready",
            (true, true) => "degraded",
            (true, false) => "ready",
        };
        let list: Vec<_> = chosen.iter().map(|service| service_report(service)).collect();
        let report = json!({ "status": status, "services": list });
        Some(admin::Ready { ready, report })
    })
}

fn service_report(service: &gate::Service) -> serde_json::Value {
    let provider = service.relying_party.as_ref().map(|party| {
        let (status, reason) = match party.provider.status() {
            Status::Ready => ("ready", party.provider.last_problem()),
            Status::Discovering => ("discovering", None),
            Status::Unreachable { reason } => ("unreachable", Some(reason)),
            Status::Unusable { reason } => ("unusable", Some(reason)),
        };
        json!({ "issuer": party.provider.issuer(), "status": status, "reason": reason })
    });
    let degraded = provider.as_ref().is_some_and(|provider| provider["status"] != "ready");
    json!({
        "name": &*service.name,
        "status": if degraded { "degraded" } else { "ready" },
        "mode": if service.policy.mode() == policy::Mode::Observe { "observe" } else { "enforce" },
        "provider": provider,
    })
}
