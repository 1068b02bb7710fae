//! New keys, and their way into a key file while a proxy reads it.
//!
//! Owns how the file is replaced: whole or not at all, with the owner, the mode and every line that it had. It does
//! not know who reads it, or when a key may go again.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::key_file::KeyError;
use super::keys::{KeyId, KeyMistake, KeyRing, random_key_text};
use crate::clock::UnixTime;
use crate::secret::{self, Secret, SourceError};

/// Where in a key file a new key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// Before all others: it seals from now on.
    First,
    /// After all others: it only opens. For several proxies, each of which has to know a key before one seals
    /// with it.
    Last,
}

/// A new key as lines of a key file: a comment that says when it was made, and the key.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_key(now: UnixTime) -> Result<Secret<String>, KeyError> {
    let key = random_key_text().map_err(|_| KeyError::Cryptography)?;
    Ok(Secret::new(format!("# made {}\n{}\n", made(now), key.as_str())))
}

/// Puts a new key into a key file, which is made for its owner only if it is missing. Comments, order, owner and
/// mode stay; a reader sees the old file or the new one. Returns the new key's name.
///
/// # Errors
/// The file is no key file, is full, or can't be written; it is then as it was.
pub fn add_key(path: &Path, place: KeyPlace, now: UnixTime) -> Result<KeyId, KeyError> {
    // The file itself and not a link to it, which would be replaced by a file otherwise.
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(cause) => return Err(KeyError::NotMade { path: path.to_owned(), cause }),
    };
    let new = new_key(now)?;
    let temporary = Temporary::make(&path)?;
    let old = match secret::read_file(&path) {
        Ok(text) => Some(text),
        Err(SourceError::Unreadable { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let text = match (&old, place) {
        (None, _) => new.expose().clone(),
        (Some(old), KeyPlace::First) => format!("{}{}\n", new.expose(), old.expose()),
        (Some(old), KeyPlace::Last) => format!("{}\n{}", old.expose(), new.expose()),
    };
    let text = Secret::new(text);
    let malformed = |mistakes| KeyError::Malformed { path: path.clone(), mistakes };
    match old.as_ref().map(|old| KeyRing::parse(old.expose())) {
        // Told before the new lines move the numbers of the old ones.
        Some(Err(mistakes)) if mistakes != [KeyMistake::NoKey] => return Err(malformed(mistakes)),
        _ => {}
    }
    let ring = KeyRing::parse(text.expose()).map_err(malformed)?;
    let id = match place {
        KeyPlace::First => ring.ids().next(),
        KeyPlace::Last => ring.ids().last(),
    };
    temporary.replace(&path, text.expose(), old.is_some())?;
    id.ok_or(KeyError::Cryptography)
}

/// The file that is to take the key file's place. That it is there tells others to keep off.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn make(target: &Path) -> Result<Self, KeyError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".new");
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Busy { path }),
            Err(cause) => Err(KeyError::NotMade { path, cause }),
        }
    }

    fn replace(&self, target: &Path, text: &str, was_there: bool) -> Result<(), KeyError> {
        self.fill(target, text, was_there)
            .map_err(|cause| KeyError::NotMade { path: target.to_owned(), cause })
    }

    fn fill(&self, target: &Path, text: &str, was_there: bool) -> io::Result<()> {
        if was_there {
            let (old, new) = (fs::metadata(target)?, self.file.metadata()?);
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                // Or the proxy, which runs as its own user, could not read its keys any more.
                fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
            }
            self.file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        (&self.file).write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Not every file system can sync a directory; the key is there all the same.
        let _ = File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.path);
    }
}

fn made(now: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let seconds = i64::try_from(now.0).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{KeySource, MAX_KEYS};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn ids(path: &Path) -> Vec<KeyId> {
        KeyRing::load(&KeySource::File(path.to_owned())).unwrap().ids().collect()
    }

    #[test]
    fn keys_are_added_at_either_end_and_nothing_else_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let first = add_key(&path, KeyPlace::First, NOW).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# made 2027-01-15T08:00:00Z\n"), "{text}");
        fs::write(&path, format!("# of the team\n\n{text}# the end")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("keys", &link).unwrap();

        let add = |path: &Path, place| {
            let id = add_key(path, place, NOW).unwrap();
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o640);
            id
        };
        let (new, last) = (add(&link, KeyPlace::First), add(&path, KeyPlace::Last));
        assert_eq!(ids(&path), [new, first, last]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("# of the team\n\n") && text.contains("# the end\n# made"), "{text}");
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["keys", "link"], "nothing else is left");
    }

    #[test]
    fn a_file_that_is_full_wrong_or_being_changed_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        for _ in 0..MAX_KEYS {
            add_key(&path, KeyPlace::Last, NOW).unwrap();
        }
        let full = fs::read(&path).unwrap();
        for place in [KeyPlace::First, KeyPlace::Last] {
            match add_key(&path, place, NOW) {
                Err(KeyError::Malformed { mistakes, .. }) => {
                    assert!(matches!(mistakes[..], [KeyMistake::TooMany { .. }]));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(fs::read(&path).unwrap(), full);
        fs::write(&path, "not a key\n").unwrap();
        assert!(matches!(add_key(&path, KeyPlace::First, NOW), Err(KeyError::Malformed { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"not a key\n");
        fs::remove_file(&path).unwrap();
        let other = directory.path().join("keys.new");
        fs::write(&other, "").unwrap();
        assert!(matches!(add_key(&path, KeyPlace::First, NOW), Err(KeyError::Busy { .. })));
        assert!(other.exists() && !path.exists());
    }

    #[test]
    fn a_file_without_keys_takes_its_first_and_what_is_no_file_takes_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, "# none yet\n").unwrap();
        let first = add_key(&path, KeyPlace::First, NOW).unwrap();
        assert_eq!(ids(&path), [first]);
        fs::write(&path, "not a key\n").unwrap();
        match add_key(&path, KeyPlace::First, NOW) {
            Err(KeyError::Malformed { mistakes, .. }) => {
                assert!(
                    mistakes[0].to_string().contains("line 1"),
                    "by the lines of the old file: {mistakes:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        let below = directory.path().join("missing").join("keys");
        assert!(matches!(add_key(&below, KeyPlace::First, NOW), Err(KeyError::NotMade { .. })));
        let inside = directory.path().join("directory");
        fs::create_dir(&inside).unwrap();
        assert!(matches!(add_key(&inside, KeyPlace::First, NOW), Err(KeyError::Unreadable(_))));
        assert!(inside.is_dir());
        let circle = directory.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(matches!(add_key(&circle, KeyPlace::First, NOW), Err(KeyError::NotMade { .. })));
        assert!(fs::symlink_metadata(&circle).unwrap().is_symlink());
        assert!(!directory.path().join("circle.new").exists());
    }
}
