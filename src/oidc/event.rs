//! What happens between us and the provider, for whoever keeps the log.

use std::path::PathBuf;
use std::sync::Arc;

/// One thing that happened. Not one a request: only changes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Discovery succeeded for the first time, or again after it had failed.
    Discovered,
    /// Discovery failed, for another reason than before.
    DiscoveryFailed {
        /// What the operator should know.
        reason: String,
        /// Whether an older, good answer goes on being used.
        keeps_old: bool,
    },
    /// The provider's set of keys is another than before.
    KeysChanged {
        /// How many usable keys it has.
        usable: usize,
    },
    /// The keys could not be fetched, for another reason than before. Older, good ones go on being used.
    KeysFailed {
        /// What the operator should know.
        reason: String,
    },
    /// A file with the client secret or the certificate authority has changed and is in use.
    Reloaded {
        /// The file.
        path: PathBuf,
    },
    /// Such a file has changed and can't be used: the older content stays in use.
    ReloadFailed {
        /// The file.
        path: PathBuf,
        /// What the operator should know.
        reason: String,
    },
}

/// Where events go. Called from any thread; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;
