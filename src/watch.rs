//! Notices that files changed: certificates, keys, secrets, key rings, CA bundles. Knows nothing of what
//! is in them.
//!
//! It polls, and it compares what the files say rather than when they were written. Notifications of the
//! kernel lose a file whose directory is swapped under it (Kubernetes replaces the `..data` link of a
//! mounted Secret) and don't exist on some network file systems; times of modification miss two writes
//! within one tick, and stay the same for `cp -p` of an equally old file. The files are few and small, so
//! reading them twice a second costs less than any of that.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use zeroize::Zeroizing;

/// How often to call [`FileWatch::changed`] so that a change is in use within a second.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Most bytes of one file that are looked at; what users of the watch read is bounded the same way.
const MAX_BYTES: u64 = 1024 * 1024;

/// A set of files, and what was in them when they were last looked at.
///
/// Make the watch (or call [`changed`](Self::changed)) **before** reading the files: then a write in
/// between costs one needless reload. In the other order it would be missed for good.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<(PathBuf, Seen)>,
}

impl FileWatch {
    /// Watches `paths`, from what they say now. Files that don't exist (yet) are fine.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = paths.into_iter().map(|path| {
            let seen = Seen::look(&path);
            (path, seen)
        });
        Self { files: files.collect() }
    }

    /// Whether any of the files says something else than at the last call, appeared or went away.
    /// Reads every file; call it where blocking for a local read is fine.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.files {
            let now = Seen::look(path);
            changed |= now != *seen;
            *seen = now;
        }
        changed
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

/// What a look at a file found. The content itself is never kept: it may be a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Missing,
    /// It is there, but can't be opened or read.
    Unreadable,
    /// A pipe, device or directory. Reading one can block or eat what it holds: it never changes.
    NotAFile,
    Content([u8; SHA256_OUTPUT_LEN]),
}

impl Seen {
    fn look(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Seen::NotAFile,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Seen::Missing,
            Ok(_) | Err(_) => {}
        }
        let mut content = Zeroizing::new(Vec::new());
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut content));
        match read {
            Ok(_) => {
                let mut sum = [0; SHA256_OUTPUT_LEN];
                sum.copy_from_slice(digest(&SHA256, &content).as_ref());
                Seen::Content(sum)
            }
            Err(_) => Seen::Unreadable,
        }
    }
}

impl fmt::Debug for Seen {
    // Not even the digest: a short secret could be guessed from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seen::Missing => "missing",
            Seen::Unreadable => "unreadable",
            Seen::NotAFile => "not a file",
            Seen::Content(_) => "content",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "one").unwrap();
        let mut watch = FileWatch::new([a.clone(), b.clone()]);
        assert!(!watch.changed());

        fs::write(&a, "two").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());

        fs::write(&b, "").unwrap();
        assert!(watch.changed(), "an empty file is not a missing one");
        fs::remove_file(&b).unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn the_same_content_written_again_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new([path.clone()]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "one").unwrap();
        assert!(!watch.changed());
    }

    #[test]
    fn same_length_and_same_time_of_modification_are_no_excuse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new([path.clone()]);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(watch.changed());
    }

    /// What kubelet does with a mounted Secret: a new directory, and one rename of the `..data` link.
    #[test]
    fn a_kubernetes_swap_of_links_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        for (version, content) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(mount.join(version)).unwrap();
            fs::write(mount.join(version).join("token"), content).unwrap();
        }
        symlink("..v1", mount.join("..data")).unwrap();
        symlink("..data/token", mount.join("token")).unwrap();
        let mut watch = FileWatch::new([mount.join("token")]);
        assert!(!watch.changed());

        symlink("..v2", mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        fs::remove_dir_all(mount.join("..v1")).unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn pipes_and_directories_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = FileWatch::new([dir.path().to_owned(), "/dev/zero".into()]);
        fs::write(dir.path().join("new"), "").unwrap();
        assert!(!watch.changed());
    }

    #[test]
    fn debug_shows_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "hunter2").unwrap();
        let shown = format!("{:?}", FileWatch::new([path]));
        assert!(shown.ends_with("a\", content)] }"), "{shown}");
    }
}
