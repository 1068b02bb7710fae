//! The folder of own certificates through starts, renewals, changes and damage.

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
        ("no CA key", &|f| fs::remove_file(f.file("ca.key")).unwrap(), Some(Remade::Incomplete("ca.key"))),
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
        for part in ["CA:TRUE, pathlen:0", "Name Constraints: critical", "prime256v1"].iter().chain(shown) {
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
