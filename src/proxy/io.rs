//! The byte stream to the application, whatever it runs over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::web::transit;

/// A connection to the application.
///
/// An application may answer (`413`, say) and close without reading the rest of the request. The answer is
/// then still to be read although writing fails. So a failed write is not an error here: what follows goes
/// nowhere, and reading finds the answer. What it finds after that is never taken for a proper end.
pub(super) struct Io {
    stream: Stream,
    write_failed: bool,
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// The same expression for each kind of stream.
macro_rules! on_stream {
    ($io:expr, $stream:ident => $call:expr) => {
        match &mut $io.stream {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl Io {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, write_failed: false }
    }

    /// Ends the connection so that the application sees that it broke off, where the system has a way to say so.
    pub(super) fn abort(self) {
        let socket = match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Unix(_) => return,
        };
        // A system that can't ends it like any other.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// What a write comes to, where `swallowed` is the outcome that hides a peer that reads no more.
    fn settle<T>(&mut self, outcome: Poll<io::Result<T>>, swallowed: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match outcome {
            Poll::Ready(Err(error))
                if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) =>
            {
                self.write_failed = true;
                Poll::Ready(Ok(swallowed))
            }
            outcome => outcome,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = on_stream!(self, stream => transit::poll_read(Pin::new(stream), cx, buf));
        // The failed write may have been told of a reset that reading then shows as an end of stream.
        if self.write_failed && matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_failed {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = on_stream!(self, stream => Pin::new(stream).poll_write(cx, buf));
        self.settle(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.write_failed {
            return Poll::Ready(Ok(length));
        }
        let written = on_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.settle(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = on_stream!(self, stream => Pin::new(stream).poll_flush(cx));
        self.settle(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = on_stream!(self, stream => Pin::new(stream).poll_shutdown(cx));
        self.settle(shut, ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An answer can be read although the peer reads no more and writing to it fails.
    #[tokio::test]
    async fn a_failed_write_does_not_hide_what_came_before() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut io = Io::new(Stream::Tcp(stream));
        io.write_all(b"request").await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        // Unread bytes turn the close into a reset.
        drop(peer);
        for _ in 0..3 {
            io.write_all(b"more").await.unwrap();
        }
        assert!(io.write_failed, "the peer is gone");
        io.flush().await.unwrap();
        let mut answer = [0; 6];
        io.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        assert!(io.read_to_end(&mut Vec::new()).await.is_err(), "a reset is no end of stream");
    }
}
