//! Listens in on the bytes of a connection: whether they begin as HTTP/2 begins, and when the last ones came.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::io::Io;

/// What has been heard on a connection.
#[derive(Debug)]
pub(super) struct Heard {
    greeting: Cell<Greeting>,
    last: Cell<Instant>,
}

/// What the peer began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// So many bytes fit, and more are needed to tell.
    Awaited(usize),
    /// The header of a SETTINGS frame, with which every server begins (RFC 9113 section 3.4).
    Http2,
    /// Something else.
    Other,
}

impl Heard {
    fn new() -> Self {
        Self { greeting: Cell::new(Greeting::Awaited(0)), last: Cell::new(Instant::now()) }
    }

    pub(super) fn greeting(&self) -> Greeting {
        self.greeting.get()
    }

    /// When the last bytes came.
    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }

    fn hear(&self, bytes: &[u8]) {
        self.last.set(Instant::now());
        let greeting = bytes.iter().fold(self.greeting.get(), |greeting, byte| greeting.after(*byte));
        self.greeting.set(greeting);
    }
}

impl Greeting {
    /// Reads one more byte of what should be a frame header: length (3 bytes), type, flags and stream.
    fn after(self, byte: u8) -> Self {
        let Greeting::Awaited(at) = self else { return self };
        let fits = match at {
            // A payload of 64 KiB is more than may be sent unasked. Text begins with a letter.
            0 => byte == 0,
            1 | 2 => true,
            3 => byte == SETTINGS,
            4 => byte & ACK == 0,
            _ => byte == 0,
        };
        match at + 1 {
            _ if !fits => Greeting::Other,
            FRAME_HEADER_BYTES => Greeting::Http2,
            next => Greeting::Awaited(next),
        }
    }
}

const FRAME_HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// A connection that is listened in on.
pub(super) struct Overheard {
    io: Io,
    heard: Rc<Heard>,
}

impl Overheard {
    pub(super) fn new(io: Io) -> (Self, Rc<Heard>) {
        let heard = Rc::new(Heard::new());
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.heard.hear(new);
        }
        read
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_settings_frame_is_a_greeting() {
        for (bytes, expected) in [
            (&b""[..], Greeting::Awaited(0)),
            (&[0, 0, 0, 4, 0, 0, 0, 0], Greeting::Awaited(8)),
            (&[0, 0, 0, 4, 0, 0, 0, 0, 0], Greeting::Http2),
            (&[0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100], Greeting::Http2),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", Greeting::Other),
            (b"H", Greeting::Other),
            (&[0, 0, 0, 4, 1], Greeting::Other),
            (&[0, 0, 8, 7], Greeting::Other),
            (&[0, 0, 0, 4, 0, 0, 0, 0, 1], Greeting::Other),
        ] {
            let greeting = bytes.iter().fold(Greeting::Awaited(0), |greeting, byte| greeting.after(*byte));
            assert_eq!(greeting, expected, "{bytes:?}");
        }
    }
}
