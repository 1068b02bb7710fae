//! What keeps revocations beyond the process.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Revocation;

/// Writes revocations down, so that they come back after a restart or reach other processes. What it has read goes
/// to [`super::Revocations::learn`].
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Takes a revocation of a service at once, without blocking; the future says whether it is durable. A ledger
    /// that fails tells so itself, and keeps trying.
    fn append(&self, service: &str, revocation: &Revocation) -> Written;

    /// Whether other processes learn from it.
    fn is_shared(&self) -> bool {
        false
    }
}

/// Resolves when what was given to a [`Ledger`] is durable, or when that is not in sight.
pub type Written = Pin<Box<dyn Future<Output = Result<(), LedgerError>> + Send>>;

/// A revocation holds in this process, and not beyond it yet: the ledger is in trouble, which it has told, and goes on
/// trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It would be forgotten with the process.
    #[error("the ledger of ended sessions can't be written now")]
    NotDurable,
    /// Other processes, which have the session too, don't know.
    #[error("other processes can't be told now which sessions were ended")]
    NotShared,
}

/// What other processes hear of, and what this one finds again when it is started: the one may be out of reach when
/// something is ended, and is told by whoever remembers it.
#[derive(Debug)]
pub struct SharedAndKept {
    /// For the other processes.
    pub shared: Arc<dyn Ledger>,
    /// For this one.
    pub kept: Arc<dyn Ledger>,
}

impl Ledger for SharedAndKept {
    fn append(&self, service: &str, revocation: &Revocation) -> Written {
        let shared = self.shared.append(service, revocation);
        let kept = self.kept.append(service, revocation);
        Box::pin(async move {
            // A disk that hangs must not pass for others who don't know.
            let kept = tokio::time::timeout(KEPT_WITHIN, kept);
            let (shared, kept) = tokio::join!(shared, kept);
            shared.and(kept.unwrap_or(Err(LedgerError::NotDurable)))
        })
    }

    fn is_shared(&self) -> bool {
        self.shared.is_shared()
    }
}

/// How long is waited for what is kept, where others are told as well: less than [`super::DURABLE_WITHIN`].
const KEPT_WITHIN: Duration = Duration::from_millis(1500);
