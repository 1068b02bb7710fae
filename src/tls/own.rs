//! A service's own certificate through its life: taken up from the folder or made, renewed at two thirds
//! of its life, and the CA made again when it no longer fits.
//!
//! What is on disk is never trusted to fit together: a leaf is used again only if a client that trusts the
//! CA would accept it now for every host, and its key is its own. Anything damaged or cut short is made
//! anew, and said; only a CA that this program did not make is never written over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::authority::{Authority, IssueError, Issued, LEAF_RENEWAL, LoadError};
use super::directory::{Access, Directory, DirectoryError};
use super::facts::Facts;
use super::host::HostName;
use super::outcome::{Change, Remade};
use super::pair::Pair;
use crate::clock::UnixTime;

/// Files of a service's folder.
const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CA_LIST: &str = "ca.crl";
const LEAF: &str = "leaf.pem";
const LEAF_KEY: &str = "leaf.key";

/// How long to wait after a renewal that failed before the next try.
const RETRY: Duration = Duration::from_secs(60);

/// A service's own certificate, and the CA that signs it.
pub(super) struct Own {
    service: String,
    hosts: Vec<HostName>,
    directory: Option<Directory>,
    authority: Authority,
    facts: Facts,
    next_try: UnixTime,
}

impl Own {
    /// Takes up what is in the service's folder below `base`, or makes it; without `base` in memory only.
    /// Returns the pair to show, and what was done that somebody should know.
    pub(super) fn open(
        service: &str,
        hosts: Vec<HostName>,
        base: Option<&Path>,
        now: UnixTime,
    ) -> Result<(Self, Pair, Vec<Change>), OwnError> {
        if hosts.is_empty() {
            return Err(OwnError::NoHosts);
        }
        let directory = base.map(|base| Directory::new(base, service));
        let (authority, pair, changes) = match &directory {
            Some(directory) => Kept { directory, service, hosts: &hosts, now }.take_up()?,
            None => {
                let made = Made::new(service, &hosts, now)?;
                let change = Change::AuthorityMade { why: Remade::Missing, file: None };
                (made.authority, made.issued.pair, vec![change])
            }
        };
        let facts = pair.facts.clone();
        let own = Self { service: service.to_owned(), hosts, directory, authority, facts, next_try: now };
        Ok((own, pair, changes))
    }

    /// Replaces the leaf where it is time. The new one is shown even if it can't be kept.
    pub(super) fn look(&mut self, now: UnixTime) -> (Option<Pair>, Vec<Change>) {
        if !is_due(&self.facts, now) || now < self.next_try {
            return (None, Vec::new());
        }
        match self.renew(now) {
            Ok((pair, changes)) => {
                self.facts = pair.facts.clone();
                (Some(pair), changes)
            }
            Err(error) => {
                self.next_try = now.plus(RETRY);
                (None, vec![Change::NotRenewed(error)])
            }
        }
    }

    /// Facts of the leaf in use.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The CA's certificate in PEM.
    pub(super) fn authority_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The CA's certificate on disk.
    pub(super) fn authority_path(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.path(CA))
    }

    /// Signs with the CA in memory, whatever became of the one on disk: clients trust this one.
    fn renew(&mut self, now: UnixTime) -> Result<(Pair, Vec<Change>), IssueError> {
        let (pair, change, saved) = if self.authority.outlives_a_leaf(now) {
            let issued = self.authority.issue(&self.hosts, now)?;
            let change = Change::LeafIssued { until: issued.pair.facts.not_after };
            let saved = self.keep(|directory| save_leaf(directory, &issued));
            (issued.pair, change, saved)
        } else {
            let made = Made::new(&self.service, &self.hosts, now)?;
            let change = Change::AuthorityMade { why: Remade::Dates, file: self.authority_path() };
            let saved = self.keep(|directory| made.save(directory));
            self.authority = made.authority;
            (made.issued.pair, change, saved)
        };
        Ok((pair, std::iter::once(change).chain(saved.err().map(Change::NotSaved)).collect()))
    }

    /// Writes with `save` where there is a folder.
    fn keep(
        &self,
        save: impl FnOnce(&Directory) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let _lock = directory.lock()?;
        save(directory)
    }
}

/// Why a service has no own certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The folder can't be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A CA can't be made, or can't sign.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Somebody else's CA lies where ours would be.
    #[error(
        "{} was not made by Portcullis and is not used or overwritten; move it away (for certificates of another CA use TLSType: External)", path.display()
    )]
    NotOurs {
        /// The certificate.
        path: PathBuf,
    },
    /// The service has no hosts that a certificate could name.
    #[error("a certificate needs at least one host")]
    NoHosts,
}

/// What is in the folder, being taken up.
struct Kept<'a> {
    directory: &'a Directory,
    service: &'a str,
    hosts: &'a [HostName],
    now: UnixTime,
}

impl Kept<'_> {
    fn take_up(&self) -> Result<(Authority, Pair, Vec<Change>), OwnError> {
        let _lock = self.directory.lock()?;
        let mut changes = Vec::new();
        for key in [CA_KEY, LEAF_KEY] {
            if self.directory.path(key).exists() && self.directory.close_to_others(key)? {
                changes.push(Change::KeyWasReadable { file: self.directory.path(key) });
            }
        }
        let why = match self.authority()? {
            Ok(authority) => {
                if let Some(pair) = self.leaf(&authority)? {
                    return Ok((authority, pair, changes));
                }
                match authority.issue(self.hosts, self.now) {
                    Ok(issued) => {
                        save_leaf(self.directory, &issued)?;
                        changes.push(Change::LeafIssued { until: issued.pair.facts.not_after });
                        return Ok((authority, issued.pair, changes));
                    }
                    Err(IssueError::Verification(_)) => Remade::Hosts,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(why) => why,
        };
        let made = Made::new(self.service, self.hosts, self.now)?;
        made.save(self.directory)?;
        changes.push(Change::AuthorityMade { why, file: Some(self.directory.path(CA)) });
        Ok((made.authority, made.issued.pair, changes))
    }

    /// The CA that is there, or why another has to be made.
    fn authority(&self) -> Result<Result<Authority, Remade>, OwnError> {
        let (certificate, key) = match (self.directory.read(CA)?, self.directory.read(CA_KEY)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Ok(Err(Remade::Missing)),
            (None, Some(_)) => return Ok(Err(Remade::Incomplete(CA))),
            (Some(_), None) => return Ok(Err(Remade::Incomplete(CA_KEY))),
        };
        Ok(match Authority::load(certificate.expose(), key.expose()) {
            Ok(authority) if !authority.outlives_a_leaf(self.now) => Err(Remade::Dates),
            Ok(authority) => Ok(authority),
            Err(LoadError::Damaged(file)) => Err(Remade::Damaged(file)),
            Err(LoadError::Mismatch) => Err(Remade::Mismatch),
            Err(LoadError::NotOurs) => return Err(OwnError::NotOurs { path: self.directory.path(CA) }),
        })
    }

    /// The leaf that is there, if it is whole, fits and is not due.
    fn leaf(&self, authority: &Authority) -> Result<Option<Pair>, OwnError> {
        let (Some(certificate), Some(key)) = (self.directory.read(LEAF)?, self.directory.read(LEAF_KEY)?)
        else {
            return Ok(None);
        };
        Ok(Pair::from_pem(certificate.expose(), key.expose()).ok().filter(|pair| {
            let accepted = |leaf| authority.verify(leaf, self.hosts, self.now).is_ok();
            !is_due(&pair.facts, self.now)
                && names_exactly(&pair.facts, self.hosts)
                && pair.certified.cert.first().is_some_and(accepted)
        }))
    }
}

/// A CA that was made just now, with its first leaf.
struct Made {
    authority: Authority,
    revocation_list: String,
    issued: Issued,
}

impl Made {
    fn new(service: &str, hosts: &[HostName], now: UnixTime) -> Result<Self, IssueError> {
        let authority = Authority::make(service, hosts, now)?;
        let issued = authority.issue(hosts, now)?;
        Ok(Self { revocation_list: authority.revocation_list()?, authority, issued })
    }

    /// The CA's key comes first: of a crash in between, what is left does not fit together, is found out at
    /// the next start, and made anew.
    fn save(&self, directory: &Directory) -> Result<(), DirectoryError> {
        directory.write(CA_KEY, self.authority.key_pem().expose(), Access::Owner)?;
        directory.write(CA, self.authority.pem(), Access::Everybody)?;
        directory.write(CA_LIST, &self.revocation_list, Access::Everybody)?;
        directory.gather(CA)?;
        save_leaf(directory, &self.issued)
    }
}

fn save_leaf(directory: &Directory, issued: &Issued) -> Result<(), DirectoryError> {
    directory.write(LEAF_KEY, issued.key_pem.expose(), Access::Owner)?;
    directory.write(LEAF, &issued.certificate_pem, Access::Everybody)
}

/// Whether a leaf is past two thirds of its life, or from the future: then it was made while the clock was
/// wrong, and clients refuse it.
fn is_due(facts: &Facts, now: UnixTime) -> bool {
    now < facts.not_before || now >= facts.not_before.plus(LEAF_RENEWAL)
}

fn names_exactly(facts: &Facts, hosts: &[HostName]) -> bool {
    let names: HashSet<String> =
        facts.dns_names.iter().cloned().chain(facts.addresses.iter().map(ToString::to_string)).collect();
    names == hosts.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
