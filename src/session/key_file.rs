//! Where the key ring is kept: the operator's key file, one in the state directory, or nowhere.
//!
//! Owns how the file in the state directory comes to be. It does not know what a key line means or is for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

use super::keys::{KeyMistake, KeyRing};
use crate::secret::{self, SourceError};

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The operator's key file.
    File(PathBuf),
    /// [`STATE_KEY_FILE`] in this state directory; both are made if missing.
    State(PathBuf),
    /// A key that is forgotten with the process: a restart logs everybody out.
    Ephemeral,
}

impl KeyRing {
    /// Reads, makes or draws the keys.
    pub fn load(source: &KeySource) -> Result<KeyRing, KeyError> {
        match source {
            KeySource::File(path) => read(path),
            KeySource::State(directory) => read_or_make(directory),
            KeySource::Ephemeral => KeyRing::random().map_err(|_| KeyError::Cryptography),
        }
    }
}

/// Why there is no key ring. The blame is the configuration's or the machine's.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file can't be read.
    #[error("session keys: {0}")]
    Unreadable(#[from] SourceError),
    /// The key file holds something else than keys.
    #[error("session keys: {}: {}", path.display(), list(mistakes))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        mistakes: Vec<KeyMistake>,
    },
    /// The key file of the state directory could not be made.
    #[error("session keys: cannot make {}: {cause}", path.display())]
    NotMade {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another command is changing the key file, or one was interrupted.
    #[error("session keys: {} is there: another keygen is at work, or one was interrupted; then remove it", path.display())]
    Busy {
        /// What it writes before it replaces the file.
        path: PathBuf,
    },
    /// The system gave no random bytes, or the key derivation failed.
    #[error("session keys: the system's cryptography failed")]
    Cryptography,
}

fn list(mistakes: &[KeyMistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn read(path: &Path) -> Result<KeyRing, KeyError> {
    let text = secret::read_file(path)?;
    KeyRing::parse(text.expose()).map_err(|mistakes| KeyError::Malformed { path: path.to_owned(), mistakes })
}

fn read_or_make(directory: &Path) -> Result<KeyRing, KeyError> {
    let path = directory.join(STATE_KEY_FILE);
    match read(&path) {
        Err(KeyError::Unreadable(SourceError::Unreadable { cause, .. }))
            if cause.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    let text = KeyRing::random_text().map_err(|_| KeyError::Cryptography)?;
    make_once(directory, &path, text.expose())
        .map_err(|cause| KeyError::NotMade { path: path.clone(), cause })?;
    // Not the key made here: of several processes that start at once, the first to finish has made the file.
    read(&path)
}

/// Puts `text` into a new file at `path`, whole or not at all; a file that is there already stays.
fn make_once(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut suffix = [0; 8];
    rand::fill(&mut suffix).map_err(|_| io::Error::other("no random bytes"))?;
    let temporary = directory.join(format!(".{STATE_KEY_FILE}.{:016x}", u64::from_be_bytes(suffix)));
    write_new(&temporary, text)?;
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Ok(()) => {
            // Not every file system can sync a directory; the key is there all the same.
            let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
            removed
        }
        // The file is there, or the file system has no hard links: then a second process that reads before the line
        // is written finds no key, and says so, rather than another key.
        Err(_) => match write_new(path, text) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            written => written,
        },
    }
}

/// Writes a file that was not there, for its owner only; if it can't be written whole, it is not there after.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// The key file in the state directory.
pub const STATE_KEY_FILE: &str = "session.keys";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;

    use super::*;
    use crate::session::KeyId;

    fn first_id(source: &KeySource) -> KeyId {
        KeyRing::load(source).unwrap().first().id()
    }

    #[test]
    fn a_key_file_that_is_missing_or_broken_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let error = KeyRing::load(&KeySource::File(path.clone())).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(!path.exists(), "an operator's file is never made");
        fs::write(&path, "x\n").unwrap();
        let error = KeyRing::load(&KeySource::File(path.clone())).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("line 1"), "{error}");
    }

    #[test]
    fn the_state_key_is_made_once_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b");
        let source = KeySource::State(state.clone());
        let made = first_id(&source);
        assert_eq!(first_id(&source), made);
        let mode = fs::metadata(state.join(STATE_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        let files: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [STATE_KEY_FILE], "nothing else is left");
    }

    #[test]
    fn processes_that_start_at_once_end_with_one_key() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let source = KeySource::State(directory.path().join("state"));
            let barrier = Barrier::new(8);
            let ids: std::collections::HashSet<_> = std::thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    first_id(&source)
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(ids.len(), 1);
        }
    }

    /// What another process has made since we looked.
    #[test]
    fn a_file_that_is_there_stays_and_what_can_t_be_made_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATE_KEY_FILE);
        make_once(directory.path(), &path, "first").unwrap();
        make_once(directory.path(), &path, "second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let error = make_once(directory.path(), &directory.path().join("missing/keys"), "third").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let files: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [STATE_KEY_FILE], "nothing else is left");
    }

    #[test]
    fn a_state_key_that_broke_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATE_KEY_FILE);
        fs::write(&path, "").unwrap();
        let source = KeySource::State(directory.path().to_owned());
        assert!(matches!(KeyRing::load(&source), Err(KeyError::Malformed { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_state_directory_that_can_t_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = KeyRing::load(&KeySource::State(file.clone())).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn ephemeral_keys_differ() {
        assert_ne!(first_id(&KeySource::Ephemeral), first_id(&KeySource::Ephemeral));
    }
}
