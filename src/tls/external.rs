//! A certificate that somebody else issues: read from its files, and again when they change. A bad pair
//! never replaces a good one.

use super::facts::Facts;
use super::pair::{Pair, PairError};
use crate::clock::UnixTime;
use crate::secret::Source;
use crate::watch::FileWatch;

/// How many looks in a row must meet a bad pair before it is reported. Tools that renew certificates
/// often write one file after the other; such a moment is no mistake.
const LOOKS_BEFORE_REPORT: u8 = 2;

/// How often a look reads again at once because the files moved under it.
const READS_PER_LOOK: usize = 3;

/// A pair from outside, and where it comes from.
#[derive(Debug)]
pub(super) struct External {
    certificate: Source,
    key: Source,
    watch: FileWatch,
    facts: Facts,
    failing: Option<Failing>,
}

/// A bad pair that was met and not yet mended.
#[derive(Debug)]
struct Failing {
    error: String,
    looks: u8,
}

/// What a look at the files led to.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing to do, nothing to say.
    Unchanged,
    /// A new pair.
    New(Pair),
    /// The new pair is bad; the present one stays.
    Bad(PairError),
}

impl External {
    /// Reads the pair for the first time. Dates are not looked at: an expired certificate is better than
    /// none, and it is reported.
    pub(super) fn load(certificate: &Source, key: &Source) -> Result<(Self, Pair), PairError> {
        let paths = [certificate, key].into_iter().filter_map(Source::path);
        // Before the files are read, so that no change is lost in between.
        let watch = FileWatch::new(paths.map(ToOwned::to_owned));
        let pair = read(certificate, key)?;
        let external = Self {
            certificate: certificate.clone(),
            key: key.clone(),
            watch,
            facts: pair.facts.clone(),
            failing: None,
        };
        Ok((external, pair))
    }

    /// Looks whether the files have a new pair. A bad one is tried again at each look (it may have become
    /// readable, or valid, since), and reported once.
    pub(super) fn look(&mut self, now: UnixTime) -> Look {
        if !self.watch.changed() && self.failing.is_none() {
            return Look::Unchanged;
        }
        let mut result = self.read(now);
        for _ in 1..READS_PER_LOOK {
            // A swap between the two reads gives halves of two pairs: read again before believing it.
            if result.is_ok() || !self.watch.changed() {
                break;
            }
            result = self.read(now);
        }
        match result {
            Ok(pair) => {
                self.failing = None;
                self.facts = pair.facts.clone();
                Look::New(pair)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Facts of the pair in use.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, now: UnixTime) -> Result<Pair, PairError> {
        let pair = read(&self.certificate, &self.key)?;
        let Facts { not_before, not_after, .. } = pair.facts;
        if !pair.facts.is_valid_at(now) && self.facts.is_valid_at(now) {
            return Err(PairError::OutOfDates { not_before, not_after });
        }
        Ok(pair)
    }

    fn failed(&mut self, error: PairError) -> Look {
        let text = error.to_string();
        let looks = match &self.failing {
            Some(failing) if failing.error == text => failing.looks.saturating_add(1),
            _ => 1,
        };
        self.failing = Some(Failing { error: text, looks });
        if looks == LOOKS_BEFORE_REPORT { Look::Bad(error) } else { Look::Unchanged }
    }
}

/// Reads certificate and key where they are now.
pub(super) fn read(certificate: &Source, key: &Source) -> Result<Pair, PairError> {
    Pair::from_pem(certificate.read()?.expose(), key.read()?.expose())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const START: UnixTime = UnixTime(1_700_000_000);
    const DAY: u64 = 24 * 60 * 60;

    /// A pair for `host`, valid for 90 days from `days` after the start.
    fn pair(host: &str, days: i64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let start = time::OffsetDateTime::from_unix_timestamp(START.0 as i64).unwrap();
        params.not_before = start + time::Duration::days(days);
        params.not_after = params.not_before + time::Duration::days(90);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn write(directory: &Path, (certificate, key): &(String, String)) {
        fs::write(directory.join("tls.crt"), certificate).unwrap();
        fs::write(directory.join("tls.key"), key).unwrap();
    }

    fn load(directory: &Path) -> External {
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| Source::File(directory.join(name)));
        External::load(&certificate, &key).unwrap().0
    }

    fn names(look: Look) -> Vec<String> {
        match look {
            Look::New(pair) => pair.facts.dns_names,
            other => panic!("no new pair but {other:?}"),
        }
    }

    #[test]
    fn a_new_pair_is_taken_at_the_first_look() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &pair("a.test", 0));
        let mut external = load(dir.path());
        assert!(matches!(external.look(START), Look::Unchanged));
        write(dir.path(), &pair("b.test", 0));
        assert_eq!(names(external.look(START)), ["b.test"]);
        assert!(matches!(external.look(START), Look::Unchanged));
        assert_eq!(external.facts().dns_names, ["b.test"]);
    }

    #[test]
    fn a_bad_pair_is_reported_once_and_the_good_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &pair("a.test", 0));
        let mut external = load(dir.path());
        fs::write(dir.path().join("tls.key"), pair("b.test", 0).1).unwrap();
        assert!(matches!(external.look(START), Look::Unchanged), "half a rotation is no mistake yet");
        assert!(matches!(external.look(START), Look::Bad(PairError::Mismatch)));
        assert!(matches!(external.look(START), Look::Unchanged));
        fs::remove_file(dir.path().join("tls.key")).unwrap();
        assert!(matches!(external.look(START), Look::Unchanged));
        assert!(matches!(external.look(START), Look::Bad(PairError::Unreadable(_))), "another mistake");
        assert_eq!(external.facts().dns_names, ["a.test"]);

        write(dir.path(), &pair("c.test", 0));
        assert_eq!(names(external.look(START)), ["c.test"]);
    }

    #[test]
    fn one_file_after_the_other_is_no_mistake() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &pair("a.test", 0));
        let mut external = load(dir.path());
        let (certificate, key) = pair("b.test", 0);
        fs::write(dir.path().join("tls.crt"), certificate).unwrap();
        assert!(matches!(external.look(START), Look::Unchanged));
        fs::write(dir.path().join("tls.key"), key).unwrap();
        assert_eq!(names(external.look(START)), ["b.test"]);
    }

    #[test]
    fn a_kubernetes_secret_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        let version = |name: &str, host| {
            fs::create_dir(mount.join(name)).unwrap();
            write(&mount.join(name), &pair(host, 0));
        };
        version("..v1", "a.test");
        symlink("..v1", mount.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
        }
        let mut external = load(mount);
        for (name, old, host) in [("..v2", "..v1", "b.test"), ("..v3", "..v2", "c.test")] {
            version(name, host);
            symlink(name, mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
            fs::remove_dir_all(mount.join(old)).unwrap();
            assert_eq!(names(external.look(START)), [host]);
        }
    }

    #[test]
    fn dates_decide_only_against_a_better_pair() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &pair("a.test", 0));
        let mut external = load(dir.path());

        // Not valid yet: waits, and is taken on its first day without another change of the files.
        write(dir.path(), &pair("b.test", 10));
        assert!(matches!(external.look(START), Look::Unchanged));
        assert!(matches!(external.look(START), Look::Bad(PairError::OutOfDates { .. })));
        assert_eq!(names(external.look(UnixTime(START.0 + 10 * DAY))), ["b.test"]);

        // Both expired: the newer one is taken, there is nothing to lose.
        write(dir.path(), &pair("c.test", 11));
        assert_eq!(names(external.look(UnixTime(START.0 + 400 * DAY))), ["c.test"]);
    }

    #[test]
    fn text_in_the_configuration_never_changes() {
        let (certificate, key) = pair("a.test", 0);
        let [certificate, key] =
            [certificate, key].map(|pem| Source::Inline(crate::secret::Secret::new(pem)));
        let (mut external, _) = External::load(&certificate, &key).unwrap();
        assert!(matches!(external.look(START), Look::Unchanged));
    }
}
