//! The folder where a service's own certificates are kept: whole files or none, keys for the owner only,
//! one process at a time. Knows nothing of what the files mean.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::secret::{Secret, SourceError, read_file};

/// How long to wait for another process that works in the same folder.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Most services whose CAs are gathered in one file.
const MAX_SERVICES: usize = 1000;

/// The CAs of every service of the directory in one file, for people to trust.
pub(super) const ALL_AUTHORITIES: &str = "ca.pem";

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Everybody,
    Owner,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Access::Everybody => 0o644,
            Access::Owner => 0o600,
        }
    }
}

/// A service's folder below the directory of all own certificates.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    base: PathBuf,
    service: PathBuf,
}

impl Directory {
    /// Names the folder of `service` below `base`. Touches nothing.
    pub(super) fn new(base: &Path, service: &str) -> Self {
        Self { base: base.to_owned(), service: base.join(folder_name(service)) }
    }

    /// The path of a file of this service.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.service.join(name)
    }

    /// Makes the folder where it is missing, and keeps other processes out until the lock is dropped.
    pub(super) fn lock(&self) -> Result<Lock, DirectoryError> {
        let folder = DirBuilder::new().recursive(true).mode(0o755).create(&self.service);
        folder.map_err(|cause| DirectoryError::Write { path: self.service.clone(), cause })?;
        let path = self.base.join(".lock");
        let failed = |cause| DirectoryError::Write { path: path.clone(), cause };
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.map_err(failed)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(DirectoryError::Busy { path: self.base.clone() });
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
    }

    /// Reads a file of this service. `None` if it is missing; text that is none is empty text, so that it
    /// is found damaged where it is read.
    pub(super) fn read(&self, name: &str) -> Result<Option<Secret<String>>, DirectoryError> {
        match read_file(&self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(SourceError::TooLarge { .. }) => Ok(Some(Secret::new(String::new()))),
            Err(SourceError::Unreadable { path, cause }) => match cause.kind() {
                io::ErrorKind::NotFound => Ok(None),
                io::ErrorKind::InvalidData => Ok(Some(Secret::new(String::new()))),
                _ => Err(DirectoryError::Read { path, cause }),
            },
        }
    }

    /// Puts a file in place, whole: a crash leaves the old one or the new one.
    pub(super) fn write(&self, name: &str, text: &str, access: Access) -> Result<(), DirectoryError> {
        write_whole(&self.service, name, text, access)
    }

    /// Takes from others the right to read a file that only its owner may read. Tells whether they had it.
    pub(super) fn close_to_others(&self, name: &str) -> Result<bool, DirectoryError> {
        let path = self.path(name);
        let failed = |cause| DirectoryError::Write { path: path.clone(), cause };
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
        if mode & 0o077 == 0 {
            return Ok(false);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(Access::Owner.mode())).map_err(failed)?;
        Ok(true)
    }

    /// Gathers the CA of every service into one file at the top, and returns its path.
    pub(super) fn gather(&self, authority: &str) -> Result<PathBuf, DirectoryError> {
        let failed = |cause| DirectoryError::Read { path: self.base.clone(), cause };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.base).map_err(failed)?.take(MAX_SERVICES) {
            files.push(entry.map_err(failed)?.path().join(authority));
        }
        files.sort();
        let texts: String =
            files.iter().filter_map(|path| Some(read_file(path).ok()?.expose().clone() + "\n")).collect();
        write_whole(&self.base, ALL_AUTHORITIES, &texts, Access::Everybody)?;
        Ok(self.base.join(ALL_AUTHORITIES))
    }
}

/// While it lives, no other process works in the directory.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Why the folder can't be used. The blame is the configuration's, or the machine's.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file is there but can't be read.
    #[error("cannot read {}: {cause}; the user that Portcullis runs as must own it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file or folder can't be made.
    #[error("cannot write {}: {cause}; the user that Portcullis runs as must own the state directory", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process holds the lock for longer than [`LOCK_WAIT`].
    #[error("another process is working in {}; give each Portcullis its own state directory", path.display())]
    Busy {
        /// The directory of all own certificates.
        path: PathBuf,
    },
}

/// A folder's name for a service, the same for no two services: what is not a letter, digit, `-` or `_` is
/// percent-encoded. No dot is left, so it is never one of the files at the top.
fn folder_name(service: &str) -> String {
    let mut name = String::new();
    for byte in service.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// Writes beside, then renames over. Under the lock, so the name beside is nobody else's.
fn write_whole(folder: &Path, name: &str, text: &str, access: Access) -> Result<(), DirectoryError> {
    let path = folder.join(name);
    let beside = folder.join(format!(".{name}.new"));
    let failed = |cause| DirectoryError::Write { path: path.clone(), cause };
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let options = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(&beside);
    let mut file = options.map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, &path).map_err(failed)?;
    // The rename itself must survive a power cut too.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folder_names_stay_inside_and_apart() {
        for (service, folder) in [
            ("private-app", "private-app"),
            ("..", "%2E%2E"),
            ("ca.pem", "ca%2Epem"),
            ("../../etc", "%2E%2E%2F%2E%2E%2Fetc"),
            ("a b", "a%20b"),
            ("a%20b", "a%2520b"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(folder_name(service), folder);
        }
    }

    #[test]
    fn files_are_replaced_whole_and_keys_are_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(&dir.path().join("certs"), "app");
        let _lock = directory.lock().unwrap();
        assert!(directory.read("ca.key").unwrap().is_none());
        // A crash left half a file beside.
        fs::write(directory.path(".ca.key.new"), "half").unwrap();
        for text in ["one", "two"] {
            directory.write("ca.key", text, Access::Owner).unwrap();
            assert_eq!(directory.read("ca.key").unwrap().unwrap().expose(), text);
        }
        assert_eq!(mode(&directory.path("ca.key")), 0o600);
        assert!(!directory.path(".ca.key.new").exists());

        assert!(!directory.close_to_others("ca.key").unwrap());
        fs::set_permissions(directory.path("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(directory.close_to_others("ca.key").unwrap());
        assert_eq!(mode(&directory.path("ca.key")), 0o600);
    }

    #[test]
    fn what_is_no_text_is_empty_and_what_is_no_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path(), "app");
        let _lock = directory.lock().unwrap();
        fs::write(directory.path("a"), [0xff, 0xfe]).unwrap();
        assert_eq!(directory.read("a").unwrap().unwrap().expose(), "");
        fs::create_dir(directory.path("b")).unwrap();
        let error = directory.read("b").unwrap_err().to_string();
        assert!(error.contains("app/b"), "{error}");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = Directory::new(&dir.path().join("file"), "app").lock().unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("own the state directory"), "{error}");
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path(), "app");
        let lock = directory.lock().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = {
            let directory = directory.clone();
            std::thread::spawn(move || {
                let _lock = directory.lock().unwrap();
                sender.send(()).unwrap();
            })
        };
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "two hold the lock");
        drop(lock);
        receiver.recv_timeout(LOCK_WAIT).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn the_authorities_are_gathered() {
        let dir = tempfile::tempdir().unwrap();
        for service in ["b", "a"] {
            let directory = Directory::new(dir.path(), service);
            let _lock = directory.lock().unwrap();
            directory.write("ca.pem", service, Access::Everybody).unwrap();
            directory.gather("ca.pem").unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("ca.pem")).unwrap(), "a\nb\n");
    }
}
