//! From an accepted socket to a stream that HTTP can be spoken on: a PROXY header and TLS where they are due,
//! both within one time.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Protocol;
use super::front::Arrivals;
use super::listener::{Kind, TlsSource};
use super::proxy_protocol::{HeaderError, read_header};
use super::worker::Port;
use crate::web::transit;

/// A client's byte stream.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream, and what the handshake said about it.
#[derive(Debug)]
pub(super) struct Shaken {
    pub(super) stream: Stream,
    /// The other end, or whom a load balancer says that it speaks for.
    pub(super) client: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) sni: Option<String>,
    /// Plain HTTP where TLS is spoken.
    pub(super) is_misdirected: bool,
}

/// Why there is no stream. The blame is the client's, or the load balancer's before it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// Nothing was sent: a port scan, or the check of a load balancer. Or too little, while others waited for the place.
    #[error("the client connected and left")]
    Silent,
    /// `limits.handshakeTimeout` passed.
    #[error("the TLS handshake, or the PROXY header before it, took too long")]
    TimedOut,
    /// A load balancer's connection did not begin as it should.
    #[error("{0}")]
    Header(HeaderError),
    /// rustls refused, or the client did.
    #[error("{0}")]
    Failed(io::Error),
}

/// Does what the listener asks for, within `limit`. Waits for nothing where nothing is due.
pub(super) async fn shake(
    mut stream: TcpStream,
    peer: SocketAddr,
    port: &Port,
    limit: Duration,
) -> Result<Shaken, HandshakeError> {
    let is_balancer = port.is_balancer(peer.ip());
    if !is_balancer && !matches!(port.kind, Kind::Tls(_)) {
        return Ok(Shaken::plain(stream, peer));
    }
    let handshake = async {
        let said = if is_balancer { read_header(&mut stream).await? } else { None };
        let client = said.unwrap_or(peer);
        match &port.kind {
            Kind::Tls(source) => shake_tls(stream, client, source).await,
            _ => Ok(Shaken::plain(stream, client)),
        }
    };
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
}

async fn shake_tls(
    stream: TcpStream,
    client: SocketAddr,
    source: &TlsSource,
) -> Result<Shaken, HandshakeError> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => Err(HandshakeError::Silent),
        // A TLS record of a handshake begins with 22; a request begins with a letter.
        Ok(_) if first.iter().all(u8::is_ascii_alphabetic) => {
            Ok(Shaken { is_misdirected: true, ..Shaken::plain(stream, client) })
        }
        Ok(_) => {
            let tls = TlsAcceptor::from(source()).accept(stream).await.map_err(HandshakeError::Failed)?;
            Ok(Shaken::tls(tls, client))
        }
        Err(error) => Err(HandshakeError::Failed(error)),
    }
}

impl From<HeaderError> for HandshakeError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Silent => Self::Silent,
            error => Self::Header(error),
        }
    }
}

impl Shaken {
    fn plain(stream: TcpStream, client: SocketAddr) -> Self {
        let stream = Stream::Plain(stream);
        Self { stream, client, protocol: Protocol::Http1, sni: None, is_misdirected: false }
    }

    fn tls(stream: TlsStream<TcpStream>, client: SocketAddr) -> Self {
        let (_, session) = stream.get_ref();
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        let sni = session.server_name().map(str::to_ascii_lowercase);
        Self { protocol, sni, client, stream: Stream::Tls(Box::new(stream)), is_misdirected: false }
    }
}

impl Stream {
    /// Whether it is TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// How many bytes TLS may encrypt ahead of what the client takes.
    pub(super) fn limit_unsent(&mut self, bytes: usize) {
        if let Self::Tls(stream) = self {
            stream.get_mut().1.set_buffer_limit(Some(bytes));
        }
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Self::Plain(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Self::Tls(stream) => {
                let $inner = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl Arrivals for Stream {
    fn poll_arrival(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self.get_mut() {
            Self::Plain(stream) => {
                let mut first = [0];
                stream.poll_peek(cx, &mut ReadBuf::new(&mut first)).map_ok(|count| count > 0)
            }
            // What is decrypted stays with rustls.
            Self::Tls(stream) => {
                Pin::new(stream.as_mut()).poll_fill_buf(cx).map_ok(|bytes| !bytes.is_empty())
            }
        }
    }

    fn has_left(&self, by_end: bool) -> bool {
        let state = pin!(self.socket().ready(Interest::READABLE | Interest::ERROR));
        match state.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_error() || (by_end && ready.is_read_closed()),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    fn reset_when_dropped(&self, resets: bool) {
        // A system that can't leaves the end as it is.
        let _ = SockRef::from(self.socket()).set_linger(resets.then_some(Duration::ZERO));
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => transit::poll_read(stream, cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
