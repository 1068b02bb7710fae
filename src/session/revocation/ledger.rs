//! What keeps revocations beyond the process.

use std::fmt;
use std::pin::Pin;

use super::Revocation;

/// Writes revocations down, so that they come back after a restart or reach other processes. What it has read goes
/// to [`super::Revocations::learn`].
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Takes a revocation of a service at once, without blocking; the future says whether it is durable. A ledger
    /// that fails tells so itself, and keeps trying.
    fn append(&self, service: &str, revocation: &Revocation) -> Written;
}

/// Resolves when what was given to a [`Ledger`] is durable, or when that is not in sight.
pub type Written = Pin<Box<dyn Future<Output = Result<(), LedgerError>> + Send>>;

/// A revocation is not durable yet: the ledger is in trouble, which it has told, and goes on trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of ended sessions can't be written now")]
pub struct LedgerError;
