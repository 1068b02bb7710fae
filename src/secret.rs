//! Secrets as types: a value that can't be printed by accident, and the place it comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroize;

use crate::file;

/// A value that must never reach a log, page, metric, panic or Debug. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize = String>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Most bytes that a file named in the configuration (secret, key, certificate, CA bundle) may have.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where a secret or a PEM text comes from: written in the configuration, or a file that is read at the
/// start and again whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The text itself.
    Inline(Secret<String>),
    /// A file; one trailing newline is not part of the text.
    File(PathBuf),
}

impl Source {
    /// The file behind this source, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Source::Inline(_) => None,
            Source::File(path) => Some(path),
        }
    }

    /// Reads the text. Errors name the file and never its content.
    pub fn read(&self) -> Result<Secret<String>, SourceError> {
        match self {
            Source::Inline(secret) => Ok(secret.clone()),
            Source::File(path) => read_file(path),
        }
    }
}

/// Reads a text file of at most [`MAX_FILE_BYTES`], without its trailing newline.
pub fn read_file(path: &Path) -> Result<Secret<String>, SourceError> {
    let failed = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut bytes = file::read(path, MAX_FILE_BYTES + 1).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(SourceError::TooLarge { path: path.to_owned() });
    }
    let mut text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        error.into_bytes().zeroize();
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text"))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Secret::new(text))
}

/// Why a [`Source`] could not be read. The blame is the configuration's.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file could not be opened or read, or is not UTF-8.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file has more than [`MAX_FILE_BYTES`].
    #[error("{} is larger than 1 MiB; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let source = Source::Inline(Secret::new("hunter2".to_owned()));
        assert!(!format!("{source:?}").contains("hunter2"));
    }

    #[test]
    fn one_trailing_newline_is_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (written, read) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            std::fs::write(&path, written).unwrap();
            assert_eq!(Source::File(path.clone()).read().unwrap().expose(), read);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Source::File("/nonexistent/secret".into()).read().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/secret"));
    }
}
