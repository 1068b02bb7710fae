//! Reading what an operator names as a file: bounded in size and, where it is a pipe, in time.
//!
//! Does not know what is in it, and wipes what it lets go of, for it may be a secret.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use zeroize::Zeroizing;

/// The first `most` bytes.
///
/// # Errors
/// Those of the system; and a pipe for which there is no writer within [`WRITER_PATIENCE`], or which it has not closed
/// within [`PIPE_PATIENCE`]: both could be waited for for ever.
pub fn read(path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return take(File::open(path)?, most);
    }
    let (opened, open) = sync_channel(1);
    let (tell, told) = sync_channel(1);
    let named = path.to_owned();
    // Left behind where it waits for ever; it holds nothing but itself. Whoever asked may have gone then.
    std::thread::Builder::new().name("pipe".to_owned()).spawn(move || {
        let pipe = File::open(named);
        if opened.send(()).is_ok() {
            let _ = tell.send(pipe.and_then(|pipe| take(pipe, most)));
        }
    })?;
    let too_late = |what| Err(io::Error::new(io::ErrorKind::TimedOut, what));
    if open.recv_timeout(WRITER_PATIENCE).is_err() {
        return too_late("it is a pipe, and nobody writes to it");
    }
    let read = told.recv_timeout(PIPE_PATIENCE);
    read.unwrap_or_else(|_| too_late("it is a pipe, and whoever writes to it does not come to an end"))
}

fn take(file: File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // At once as large as it will be: what grows leaves copies behind.
    let size = file.metadata()?.len().min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How long is waited for somebody who writes to a pipe.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);
/// And then for the end of it.
const PIPE_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pipe_is_read_if_somebody_writes_and_not_waited_for_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let (file, pipe) = (directory.path().join("file"), directory.path().join("pipe"));
        std::fs::write(&file, "text").unwrap();
        assert_eq!(*read(&file, 3).unwrap(), b"tex");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = read(&pipe, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The one that was left behind may take it, and then the next one gets it.
        let written = pipe.clone();
        std::thread::spawn(move || {
            while let Ok(mut writer) = File::options().write(true).open(&written) {
                let _ = writer.write_all(b"piped");
            }
        });
        assert_eq!(*read(&pipe, 9).unwrap().first_chunk::<5>().unwrap(), *b"piped");
        std::fs::remove_file(&pipe).unwrap();
        assert_eq!(read(&pipe, 9).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
