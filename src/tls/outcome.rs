//! What became of the certificates, for the log: every change that was made and every one that was not.

use std::fmt;
use std::path::PathBuf;

use super::authority::IssueError;
use super::directory::DirectoryError;
use super::facts::{Date, Doubt, Facts};
use super::pair::PairError;
use crate::clock::UnixTime;

/// Something that happened to a service's certificate. Displays as a sentence for the log.
#[derive(Debug)]
pub struct ReloadOutcome {
    /// The service.
    pub service: String,
    /// What happened.
    pub change: Change,
}

impl fmt::Display for ReloadOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate of {}: {}", self.service, self.change)
    }
}

/// What happened to a certificate.
#[derive(Debug)]
pub enum Change {
    /// An own CA was made, with a first leaf; who trusted an earlier one must trust the new one.
    AuthorityMade {
        /// Why.
        why: Remade,
        /// Its certificate; `None` if it lives in memory only.
        file: Option<PathBuf>,
    },
    /// The own CA signed a new leaf; clients notice nothing.
    LeafIssued {
        /// Its last second.
        until: UnixTime,
    },
    /// A new own leaf is in use, but could not be kept.
    NotSaved(DirectoryError),
    /// A new own leaf could not be made; the present one stays, and it is tried again.
    NotRenewed(IssueError),
    /// A private key was readable by others; it no longer is.
    KeyWasReadable {
        /// The key.
        file: PathBuf,
    },
    /// A new external pair is in use.
    Reloaded(Box<Facts>),
    /// A new external pair is bad; the present one stays.
    Refused(PairError),
    /// The external pair in use will be refused by clients, now or soon.
    Doubtful(Doubt),
}

impl Change {
    /// Whether a reload did not happen as it should (`portcullis_reload_failures_total`).
    pub fn is_failure(&self) -> bool {
        matches!(self, Change::NotSaved(_) | Change::NotRenewed(_) | Change::Refused(_))
    }

    /// Whether somebody should look at it, failures included.
    pub fn is_warning(&self) -> bool {
        match self {
            Change::AuthorityMade { why, file } => file.is_none() || !matches!(why, Remade::Missing),
            Change::KeyWasReadable { .. } | Change::Doubtful(_) => true,
            Change::LeafIssued { .. } | Change::Reloaded(_) => false,
            Change::NotSaved(_) | Change::NotRenewed(_) | Change::Refused(_) => true,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AuthorityMade { why, file: Some(file) } => {
                write!(f, "made a certification authority ({why}); let clients trust {}", file.display())
            }
            Change::AuthorityMade { why: _, file: None } => f.write_str(
                "made a certification authority in memory only; it is gone at the next start: \
                 set stateDirectory to keep it",
            ),
            Change::LeafIssued { until } => write!(f, "renewed, valid until {}", Date(*until)),
            Change::NotSaved(error) => write!(f, "renewed, but not kept: {error}"),
            Change::NotRenewed(error) => write!(f, "not renewed, the present one stays: {error}"),
            Change::KeyWasReadable { file } => {
                write!(f, "{} was readable by others; it is closed to them now", file.display())
            }
            Change::Reloaded(facts) => write!(f, "reloaded, valid until {}", Date(facts.not_after)),
            Change::Refused(error) => write!(f, "not reloaded, the present one stays: {error}"),
            Change::Doubtful(doubt) => doubt.fmt(f),
        }
    }
}

/// Why a CA was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Remade {
    /// There was none.
    #[error("there was none")]
    Missing,
    /// One of its two files was missing.
    #[error("its {0} was missing")]
    Incomplete(&'static str),
    /// One of its two files was damaged.
    #[error("its {0} was damaged")]
    Damaged(&'static str),
    /// Its two files did not belong together.
    #[error("its ca.pem and ca.key did not belong together")]
    Mismatch,
    /// Its name constraints did not permit every host.
    #[error("the hosts changed, and the last one does not permit the new ones")]
    Hosts,
    /// It ends before a new leaf would, or begins in the future.
    #[error("the last one is at the end of its life, or was made by a clock that was ahead")]
    Dates,
}
