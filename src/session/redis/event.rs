//! What happens between us and Redis, for whoever keeps the log.

use std::sync::Arc;

use super::error::Unavailable;

/// One change of the store's state. Nothing is told twice in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The store can be used: for the first time, or again.
    Available,
    /// The store can't be used. It is tried again, about once a second.
    Unavailable(Unavailable),
}

/// Where events go. Called on the control runtime; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;
