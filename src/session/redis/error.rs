//! Why the store did not do what it was asked.

use std::time::Duration;

use super::{COMMAND_DEADLINE, MAX_IN_FLIGHT, record::MAX_PAYLOAD_BYTES};

/// Why a session could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store can't be used now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// More than [`MAX_PAYLOAD_BYTES`]. The blame is the provider's; whoever knows the claims names the
    /// biggest.
    #[error("a session of {bytes} bytes is larger than the {MAX_PAYLOAD_BYTES} that the store keeps")]
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// The cipher or the system's random number generator failed. The blame is the machine's.
    #[error("the cipher or the random number generator of this system failed")]
    Cipher,
}

/// Why the store can't be used now. The blame is that of Redis, or of the configuration of either side. Texts
/// never hold a password, a key or a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No attempt to connect has ended yet.
    #[error("Redis has not been reached yet")]
    NotYet,
    /// No connection.
    #[error("Redis can't be reached at {at}: {reason}; check that it runs, the address and the network")]
    Unreachable {
        /// The address that was tried last.
        at: String,
        /// What the system said.
        reason: String,
    },
    /// The connection ended while a command was under way.
    #[error("the connection to Redis broke")]
    Broken,
    /// No answer in time.
    #[error(
        "Redis did not answer within {} ms; it is overloaded, paused, or the network is slow", .0.as_millis()
    )]
    Slow(Duration),
    /// The certificate, or the handshake.
    #[error(
        "no TLS with Redis: {0}; check its certificate and trustedCertificateAuthorities of session.redis"
    )]
    Tls(String),
    /// `WRONGPASS`, `NOAUTH`.
    #[error("Redis refused the user or the password; correct session.redis.url or the file of urlFile")]
    Credentials,
    /// `NOPERM`.
    #[error("the user of session.redis.url lacks rights in Redis; give it those of docs/sessions-redis.md")]
    Forbidden,
    /// A replica, or a master that does not write.
    #[error("Redis is read-only there (a replica?); name the master, or use sentinelMaster or cluster")]
    ReadOnly,
    /// `MISCONF`, `OOM`, `NOREPLICAS`: up, and takes no writes.
    #[error("Redis takes no writes now ({0}); look at its memory, disk and replicas")]
    Refusing(String),
    /// `LOADING`.
    #[error("Redis is still loading its data")]
    Loading,
    /// No Sentinel knows the master, or none answers.
    #[error("no Sentinel names a master `{0}`; check session.redis.sentinelMaster and the addresses")]
    NoMaster(String),
    /// `CLUSTERDOWN`, or slots without a node.
    #[error("the Redis cluster does not serve all its slots now")]
    ClusterDown,
    /// A file that the configuration names can't be used any more.
    #[error("{0}")]
    Configuration(String),
    /// More than [`MAX_IN_FLIGHT`] commands at once.
    #[error("{MAX_IN_FLIGHT} commands to Redis are under way; it is too slow for this load")]
    Busy,
    /// Something that Redis 7 does not answer.
    #[error("Redis answered what was not expected ({0}); version 7.0 or later is needed")]
    Unexpected(String),
    /// This process is about to end.
    #[error("the proxy is stopping")]
    Stopping,
}

impl Unavailable {
    /// No answer to a command in time.
    pub(super) const fn no_answer() -> Self {
        Self::Slow(COMMAND_DEADLINE)
    }
}
