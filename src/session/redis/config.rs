//! What the operator decides about the store.

use super::address::{Address, AddressError};
use crate::secret::{Source, SourceError};
use crate::web::trust::{Trust, TrustError};

/// The store of sessions in Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL or URLs, passwords in them. A file is read at every new connection.
    pub url: Source,
    /// What is behind the URLs.
    pub topology: Topology,
    /// The authorities that vouch for Redis, PEM; `None`: those of the system. Read at every new connection.
    pub authorities: Option<Source>,
}

/// What is behind the URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels, which know the server that is the master now.
    Sentinel {
        /// What they call it.
        master: String,
    },
    /// Nodes of a cluster.
    Cluster,
}

/// What is wrong with the configuration of the store.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of the URL, or of the authorities.
    #[error("session.redis: {0}")]
    File(#[from] SourceError),
    /// The URL.
    #[error("session.redis: the URL {0}")]
    Address(#[from] AddressError),
    /// The certificate authorities.
    #[error("session.redis.trustedCertificateAuthorities: {0}")]
    Authorities(#[from] TrustError),
}

impl Config {
    /// Reads the address, from its file if it is in one.
    pub(super) fn address(&self) -> Result<Address, ConfigError> {
        Ok(Address::parse(self.url.read()?.expose(), &self.topology)?)
    }

    /// The PEM text of the certificate authorities, if others than the system's are to be trusted.
    pub(super) fn authorities(&self) -> Result<Option<String>, ConfigError> {
        let Some(source) = &self.authorities else { return Ok(None) };
        let pem = source.read()?;
        // Says better than the connection would what is wrong with it.
        Trust::only(pem.expose())?;
        Ok(Some(pem.expose().clone()))
    }
}
