//! TLS towards clients: the certificates of a listener's services, where they come from, and how they stay
//! fresh. Knows nothing of connections, hosts in requests, or configuration files.
//!
//! Two kinds of certificate. `External` is issued by somebody else: a chain and key in PEM, read again when
//! they change ([`external`]). `Own` is signed by a certification authority of our own ([`own`]), one for
//! each service, so that a change of one service's hosts asks nobody else to trust anew. With a state
//! directory it is kept there:
//!
//! ```text
//! certs/ca.pem             every CA below: the file to trust (curl --cacert)
//! certs/SERVICE/ca.pem     the service's CA
//! certs/SERVICE/ca.key     its key, mode 0600
//! certs/SERVICE/ca.crl     its list of revoked certificates, empty
//! certs/SERVICE/leaf.pem   the certificate that clients see: 90 days, renewed after 60
//! certs/SERVICE/leaf.key   its key, mode 0600
//! ```
//!
//! In `SERVICE`, whatever is not a letter, digit, `-` or `_` is percent-encoded. Folders of services that
//! are gone may be deleted. The CA stays the same for as long as it permits all hosts of the service.

mod authority;
mod directory;
mod external;
mod facts;
mod host;
mod outcome;
mod own;
mod pair;
mod server;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;

pub use authority::IssueError;
pub use directory::DirectoryError;
pub use facts::{Doubt, Facts};
pub use host::{HostError, HostName};
pub use outcome::{Change, ReloadOutcome, Remade};
pub use own::OwnError;
pub use pair::PairError;

use crate::clock::{Clock, UnixTime};
use crate::secret::Source;
use external::{External, Look};
use own::Own;
use pair::Pair;
use server::Resolver;

/// Where a service's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by a CA of our own.
    Own {
        /// Where it is kept, `certs` in the state directory; `None`: in memory only, new at every start.
        directory: Option<PathBuf>,
        /// The hosts in the certificate: DNS names and IP addresses.
        hosts: Vec<String>,
    },
    /// Issued by somebody else.
    External {
        /// The chain in PEM, the server's own certificate first.
        certificate: Source,
        /// Its key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
        key: Source,
    },
}

/// One service of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// The hosts whose SNI asks for it.
    pub hosts: Vec<String>,
    /// What it shows.
    pub certificate: Certificate,
}

/// The services of one listener. The first one's certificate is shown to clients without SNI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub services: Vec<Service>,
}

/// The TLS side of one listener. Call [`reload_if_changed`](Self::reload_if_changed) every
/// [`POLL_INTERVAL`](crate::watch::POLL_INTERVAL).
pub struct ServerTls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    clock: Clock,
    state: Mutex<State>,
}

/// What [`ServerTls::reload_if_changed`] works on.
struct State {
    services: Vec<Live>,
    /// What happened before anybody could ask.
    pending: Vec<ReloadOutcome>,
}

/// A service with its certificate.
struct Live {
    name: String,
    hosts: Vec<HostName>,
    source: LiveSource,
}

enum LiveSource {
    Own(Box<Own>),
    External(Box<External>),
}

impl ServerTls {
    /// Reads or makes every certificate.
    pub fn new(config: Config, clock: Clock) -> Result<Self, Error> {
        let now = clock.now();
        let mut services = Vec::new();
        let mut pairs = Vec::new();
        let mut pending = Vec::new();
        for service in &config.services {
            let (live, pair, changes) = Live::open(service, now)?;
            pending.extend(changes.into_iter().map(|change| live.outcome(change)));
            services.push(live);
            pairs.push(pair);
        }
        if services.is_empty() {
            return Err(Error::NoServices);
        }
        let slots = services.iter().zip(&pairs);
        let slots = slots.map(|(live, pair)| (live.hosts.as_slice(), pair.certified.clone())).collect();
        let resolver = Arc::new(Resolver::new(slots));
        let config = Arc::new(server::server_config(resolver.clone()).map_err(Error::Settings)?);
        Ok(Self { config, resolver, clock, state: Mutex::new(State { services, pending }) })
    }

    /// The settings for handshakes. They stay the same object: a new certificate is in use from the next
    /// handshake on, and sessions of before can still be resumed.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Takes up external pairs that changed, renews own leaves that are due, and tells what was done; the
    /// first call also tells what was done at the start. Reads files: not for a worker's thread.
    pub fn reload_if_changed(&self) -> Vec<ReloadOutcome> {
        let now = self.clock.now();
        let mut state = self.state();
        let mut outcomes = std::mem::take(&mut state.pending);
        for (slot, live) in state.services.iter_mut().enumerate() {
            let (pair, changes) = live.look(now);
            if let Some(pair) = pair {
                self.resolver.show(slot, pair.certified);
            }
            outcomes.extend(changes.into_iter().map(|change| live.outcome(change)));
        }
        outcomes
    }

    /// Facts of the certificate in use, by service.
    pub fn certificates(&self) -> Vec<(String, Facts)> {
        self.state().services.iter().map(|live| (live.name.clone(), live.facts().clone())).collect()
    }

    /// The certificates in PEM of the CAs that sign the own certificates, in the order of the services.
    pub fn ca_pem(&self) -> String {
        self.state().services.iter().filter_map(Live::own).map(Own::authority_pem).collect()
    }

    /// Files on disk with the CAs that sign the own certificates, in the order of the services.
    pub fn ca_certificate_paths(&self) -> Vec<PathBuf> {
        self.state().services.iter().filter_map(Live::own).filter_map(Own::authority_path).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves whole certificates behind: each is put in place in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificates", &self.certificates()).finish_non_exhaustive()
    }
}

impl Live {
    fn open(service: &Service, now: UnixTime) -> Result<(Self, Pair, Vec<Change>), Error> {
        let hosts = service.host_names(&service.hosts)?;
        let (source, pair, changes) = match &service.certificate {
            Certificate::Own { directory, hosts } => {
                let names = service.host_names(hosts)?;
                let opened = Own::open(&service.name, names, directory.as_deref(), now);
                let failed = |cause| Error::Own { service: service.name.clone(), cause };
                let (own, pair, changes) = opened.map_err(failed)?;
                (LiveSource::Own(Box::new(own)), pair, changes)
            }
            Certificate::External { certificate, key } => {
                let failed = |cause| Error::External { service: service.name.clone(), cause };
                let (external, pair) = External::load(certificate, key).map_err(failed)?;
                let doubts = pair.facts.doubts(&hosts, now).into_iter().map(Change::Doubtful).collect();
                (LiveSource::External(Box::new(external)), pair, doubts)
            }
        };
        Ok((Self { name: service.name.clone(), hosts, source }, pair, changes))
    }

    fn look(&mut self, now: UnixTime) -> (Option<Pair>, Vec<Change>) {
        match &mut self.source {
            LiveSource::Own(own) => own.look(now),
            LiveSource::External(external) => match external.look(now) {
                Look::Unchanged => (None, Vec::new()),
                Look::Bad(error) => (None, vec![Change::Refused(error)]),
                Look::New(pair) => {
                    let doubts = pair.facts.doubts(&self.hosts, now).into_iter().map(Change::Doubtful);
                    let reloaded = Change::Reloaded(Box::new(pair.facts.clone()));
                    let changes = std::iter::once(reloaded).chain(doubts).collect();
                    (Some(pair), changes)
                }
            },
        }
    }

    fn facts(&self) -> &Facts {
        match &self.source {
            LiveSource::Own(own) => own.facts(),
            LiveSource::External(external) => external.facts(),
        }
    }

    fn own(&self) -> Option<&Own> {
        match &self.source {
            LiveSource::Own(own) => Some(own),
            LiveSource::External(_) => None,
        }
    }

    fn outcome(&self, change: Change) -> ReloadOutcome {
        ReloadOutcome { service: self.name.clone(), change }
    }
}

impl Service {
    fn host_names(&self, hosts: &[String]) -> Result<Vec<HostName>, Error> {
        let parse = |host: &String| {
            HostName::parse(host).map_err(|cause| Error::Host {
                service: self.name.clone(),
                host: host.clone(),
                cause,
            })
        };
        hosts.iter().map(parse).collect()
    }
}

/// Reads the facts of an external pair without putting it in use; for checks. The pair is proven to belong
/// together.
pub fn inspect(certificate: &Source, key: &Source) -> Result<Facts, PairError> {
    external::read(certificate, key).map(|pair| pair.facts)
}

/// The file to trust for every own certificate kept in `directory`. It is there after the first start.
pub fn ca_bundle_path(directory: &Path) -> PathBuf {
    directory.join(directory::ALL_AUTHORITIES)
}

/// Why a listener can't do TLS. The blame is the configuration's, or the machine's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host that no certificate can name.
    #[error("service {service}: host {host}: {cause}")]
    Host {
        /// The service.
        service: String,
        /// The host as written.
        host: String,
        /// What is wrong.
        cause: HostError,
    },
    /// An external pair can't be used.
    #[error("service {service}: TLSCertificate and TLSCertificateKey: {cause}")]
    External {
        /// The service.
        service: String,
        /// What is wrong.
        cause: PairError,
    },
    /// An own certificate can't be made or kept.
    #[error("service {service}: own certificate: {cause}")]
    Own {
        /// The service.
        service: String,
        /// What is wrong.
        cause: OwnError,
    },
    /// A listener without services.
    #[error("a listener with TLS needs at least one service")]
    NoServices,
    /// The TLS library refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Settings(rustls::Error),
}

#[cfg(test)]
mod tests;
