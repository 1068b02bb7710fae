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
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const START: UnixTime = UnixTime(1_700_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn hosts(hosts: &[&str]) -> Vec<HostName> {
        hosts.iter().map(|host| HostName::parse(host).unwrap()).collect()
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self, names: &[&str], now: UnixTime) -> (Own, Vec<Change>) {
            let (own, _, changes) = Own::open("app", hosts(names), Some(self.0.path()), now).unwrap();
            (own, changes)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join("app").join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.file(name)).unwrap()
        }

        fn openssl(&self, arguments: &[&str]) -> String {
            let output = std::process::Command::new("openssl")
                .args(arguments)
                .current_dir(self.0.path().join("app"))
                .output()
                .expect("these tests need the openssl command");
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        }
    }

    fn why(changes: &[Change]) -> Option<Remade> {
        changes.iter().find_map(|change| match change {
            Change::AuthorityMade { why, .. } => Some(*why),
            _ => None,
        })
    }

    #[test]
    fn everything_is_kept_across_restarts() {
        let folder = Folder::new();
        assert_eq!(why(&folder.open(&["a.test"], START).1), Some(Remade::Missing));
        let files = ["ca.pem", "ca.key", "ca.crl", "leaf.pem", "leaf.key"];
        let before = files.map(|name| folder.read(name));
        assert!(folder.open(&["A.test."], START.plus(59 * DAY)).1.is_empty());
        assert_eq!(files.map(|name| folder.read(name)), before);
        for (name, mode) in [("ca.key", 0o600), ("leaf.key", 0o600)] {
            assert_eq!(fs::metadata(folder.file(name)).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_to_string(folder.0.path().join("ca.pem")).unwrap().trim(), before[0].trim());
    }

    #[test]
    fn the_leaf_lives_90_days_and_is_renewed_after_60() {
        let folder = Folder::new();
        let (mut own, _) = folder.open(&["a.test"], START);
        let first = own.facts().clone();
        assert_eq!(first.not_after.since(first.not_before), 90 * DAY);
        assert!(first.is_valid_at(START));
        let due = first.not_before.plus(60 * DAY);
        assert!(own.look(UnixTime(due.0 - 1)).0.is_none());
        let (ca, key) = (folder.read("ca.pem"), folder.read("leaf.key"));
        let (pair, changes) = own.look(due);
        assert!(matches!(changes[..], [Change::LeafIssued { .. }]), "{changes:?}");
        assert_eq!(pair.unwrap().facts, *own.facts());
        assert_eq!(folder.read("ca.pem"), ca);
        assert_ne!(folder.read("leaf.key"), key, "a new leaf has a new key");
        assert!(own.look(due).0.is_none());
        // The renewed one is what the next start finds.
        assert!(folder.open(&["a.test"], due).1.is_empty());
        // A start that comes late renews too.
        let (own, changes) = folder.open(&["a.test"], due.plus(200 * DAY));
        assert!(matches!(changes[..], [Change::LeafIssued { .. }]), "{changes:?}");
        assert!(own.facts().is_valid_at(due.plus(200 * DAY)));
    }

    #[test]
    fn the_authority_follows_the_hosts() {
        let folder = Folder::new();
        folder.open(&["a.test", "b.test", "192.0.2.1"], START);
        let ca = folder.read("ca.pem");
        // Fewer hosts: the CA permits them, only the leaf is new.
        let (own, changes) = folder.open(&["a.test", "192.0.2.1"], START);
        assert_eq!((why(&changes), changes.len()), (None, 1));
        assert_eq!((folder.read("ca.pem"), &own.facts().dns_names), (ca.clone(), &vec!["a.test".to_owned()]));
        for (names, expected) in [
            (&["a.test", "c.test"][..], Some(Remade::Hosts)),
            (&["c.test", "a.test"], None),
            // Below a permitted name everything is permitted (RFC 5280 section 4.2.1.10).
            (&["www.c.test"], None),
            (&["a.test", "192.0.2.2"], Some(Remade::Hosts)),
            (&["a.test", "2001:db8::1"], Some(Remade::Hosts)),
            (&["2001:db8::1"], None),
            (&["::1"], Some(Remade::Hosts)),
            (&["localhost"], Some(Remade::Hosts)),
        ] {
            assert_eq!(why(&folder.open(names, START).1), expected, "{names:?}");
        }
        assert_ne!(folder.read("ca.pem"), ca);
    }

    #[test]
    fn damage_is_found_and_made_good() {
        let other = Folder::new();
        other.open(&["a.test"], START);
        type Damage<'a> = &'a dyn Fn(&Folder);
        let cases: [(&str, Damage<'_>, Option<Remade>); 12] = [
            (
                "no CA key",
                &|f| fs::remove_file(f.file("ca.key")).unwrap(),
                Some(Remade::Incomplete("ca.key")),
            ),
            ("no CA", &|f| fs::remove_file(f.file("ca.pem")).unwrap(), Some(Remade::Incomplete("ca.pem"))),
            ("empty CA", &|f| fs::write(f.file("ca.pem"), "").unwrap(), Some(Remade::Damaged("ca.pem"))),
            (
                "torn CA",
                &|f| fs::write(f.file("ca.pem"), &f.read("ca.pem")[..300]).unwrap(),
                Some(Remade::Damaged("ca.pem")),
            ),
            (
                "torn CA key",
                &|f| fs::write(f.file("ca.key"), &f.read("ca.key")[..100]).unwrap(),
                Some(Remade::Damaged("ca.key")),
            ),
            (
                "CA key of another",
                &|f| {
                    fs::copy(other.file("ca.key"), f.file("ca.key")).unwrap();
                },
                Some(Remade::Mismatch),
            ),
            ("no leaf", &|f| fs::remove_file(f.file("leaf.pem")).unwrap(), None),
            ("no leaf key", &|f| fs::remove_file(f.file("leaf.key")).unwrap(), None),
            ("torn leaf", &|f| fs::write(f.file("leaf.pem"), &f.read("leaf.pem")[..300]).unwrap(), None),
            (
                "leaf key of another",
                &|f| {
                    fs::copy(other.file("leaf.key"), f.file("leaf.key")).unwrap();
                },
                None,
            ),
            (
                "leaf of another CA",
                &|f| {
                    for name in ["leaf.pem", "leaf.key"] {
                        fs::copy(other.file(name), f.file(name)).unwrap();
                    }
                },
                None,
            ),
            (
                "CA of another",
                &|f| {
                    for name in ["ca.pem", "ca.key"] {
                        fs::copy(other.file(name), f.file(name)).unwrap();
                    }
                },
                None,
            ),
        ];
        for (name, damage, expected) in cases {
            let folder = Folder::new();
            let (own, _) = folder.open(&["a.test"], START);
            let before = own.facts().clone();
            damage(&folder);
            let (own, changes) = folder.open(&["a.test"], START);
            assert_eq!(why(&changes), expected, "{name}");
            assert_eq!(changes.len(), 1, "{name}: {changes:?}");
            assert!(own.facts().is_valid_at(START) && before.is_valid_at(START));
            let verified = folder.openssl(&["verify", "-no_check_time", "-CAfile", "ca.pem", "leaf.pem"]);
            assert!(verified.contains("leaf.pem: OK"), "{name}: {verified}");
            assert!(folder.open(&["a.test"], START).1.is_empty(), "{name}: not stable");
        }
    }

    #[test]
    fn a_foreign_authority_is_left_alone() {
        let folder = Folder::new();
        folder.open(&["a.test"], START);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let foreign = params.self_signed(&key).unwrap().pem();
        fs::write(folder.file("ca.pem"), &foreign).unwrap();
        fs::write(folder.file("ca.key"), key.serialize_pem()).unwrap();
        let error = Own::open("app", hosts(&["a.test"]), Some(folder.0.path()), START).err().unwrap();
        assert!(matches!(error, OwnError::NotOurs { .. }), "{error}");
        assert_eq!(folder.read("ca.pem"), foreign);
    }

    #[test]
    fn dates_that_went_wrong_are_mended() {
        let folder = Folder::new();
        folder.open(&["a.test"], START);
        // The clock was ahead at the first start, and was set right since.
        let earlier = UnixTime(START.0 - 30 * DAY.as_secs());
        let (own, changes) = folder.open(&["a.test"], earlier);
        assert_eq!(why(&changes), Some(Remade::Dates));
        assert!(own.facts().is_valid_at(earlier));
        // Ten years on, less than a leaf's life: in a running process, and at a start.
        let late = earlier.plus(3600 * DAY);
        let (mut own, _) = folder.open(&["a.test"], earlier);
        assert_eq!(why(&own.look(late).1), Some(Remade::Dates));
        assert!(folder.open(&["a.test"], late).1.is_empty());
    }

    #[test]
    fn a_leaf_that_cannot_be_kept_is_shown_all_the_same() {
        let folder = Folder::new();
        let (mut own, _) = folder.open(&["a.test"], START);
        fs::remove_dir_all(folder.0.path()).unwrap();
        fs::write(folder.0.path(), "in the way").unwrap();
        let (pair, changes) = own.look(START.plus(61 * DAY));
        assert!(pair.is_some());
        assert!(matches!(changes[..], [Change::LeafIssued { .. }, Change::NotSaved(_)]), "{changes:?}");
        fs::remove_file(folder.0.path()).unwrap();
        fs::create_dir(folder.0.path()).unwrap();
    }

    #[test]
    fn readable_keys_are_closed_and_reported() {
        let folder = Folder::new();
        folder.open(&["a.test"], START);
        fs::set_permissions(folder.file("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let (_, changes) = folder.open(&["a.test"], START);
        assert!(matches!(changes[..], [Change::KeyWasReadable { .. }]), "{changes:?}");
        assert_eq!(fs::metadata(folder.file("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// As another implementation reads it: constraints, path length, and what the CA must not sign.
    #[test]
    fn openssl_agrees_with_the_constraints() {
        for (names, shown, hidden) in [
            (
                &["app.example.com", "192.0.2.7", "2001:db8::7"][..],
                &["DNS:app.example.com", "IP:192.0.2.7/255.255.255.255", "IP:2001:DB8:0:0:0:0:0:7/FFFF"][..],
                "Excluded",
            ),
            (&["app.example.com"], &["Permitted", "Excluded", "IP:0.0.0.0/0.0.0.0"], "192.0.2.7"),
            (&["192.0.2.7"], &["Permitted", "Excluded", "DNS:"], "0.0.0.0/0"),
        ] {
            let folder = Folder::new();
            folder.open(names, START);
            let text = folder.openssl(&["x509", "-in", "ca.pem", "-noout", "-text"]);
            for part in ["CA:TRUE, pathlen:0", "Name Constraints: critical", "prime256v1"].iter().chain(shown)
            {
                assert!(text.contains(part), "{names:?}: {part} is not in {text}");
            }
            assert!(!text.contains(hidden), "{names:?}: {hidden} is in {text}");
            let leaf = folder.openssl(&["x509", "-in", "leaf.pem", "-noout", "-text"]);
            for part in ["CA:FALSE", "TLS Web Server Authentication", "URI:urn:Portcullis:CA:app:"] {
                assert!(leaf.contains(part), "{names:?}: {part} is not in {leaf}");
            }
            let verified = folder.openssl(&[
                "verify",
                "-no_check_time",
                "-x509_strict",
                "-purpose",
                "sslserver",
                "-crl_check",
                "-CRLfile",
                "ca.crl",
                "-CAfile",
                "ca.pem",
                "leaf.pem",
            ]);
            assert!(verified.contains("leaf.pem: OK"), "{names:?}: {verified}");
        }
    }

    #[test]
    fn what_the_authority_must_not_sign_is_refused() {
        let permitted = [
            (&["a.test"][..], &["b.test", "192.0.2.1", "::1", "test"][..]),
            (&["192.0.2.1"], &["a.test", "192.0.2.2", "::1", "::ffff:192.0.2.1"]),
            (&["a.test", "192.0.2.1"], &["nota.test", "b.test", "192.0.2.2", "2001:db8::1"]),
        ];
        for (names, others) in permitted {
            let authority = Authority::make("app", &hosts(names), START).unwrap();
            for other in others {
                let signed = authority.issue(&hosts(&[other]), START);
                assert!(matches!(signed, Err(IssueError::Verification(_))), "{names:?} signed {other}");
            }
        }
    }

    #[test]
    fn without_a_folder_nothing_is_written_and_it_is_said() {
        let (mut own, _, changes) = Own::open("app", hosts(&["a.test"]), None, START).unwrap();
        assert!(matches!(changes[..], [Change::AuthorityMade { file: None, .. }]));
        assert!(changes[0].to_string().contains("set stateDirectory"));
        let ca = own.authority_pem().to_owned();
        assert!(own.look(START.plus(61 * DAY)).0.is_some());
        assert_eq!(own.authority_pem(), ca);
    }
}
