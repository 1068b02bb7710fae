//! New connections to the application.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::{Error, Upstream};
use crate::secret::{Source, SourceError};

/// Makes connections to one application. Made once per service and shared by its workers.
#[derive(Clone, Debug)]
pub struct Connector(Route);

#[derive(Clone, Debug)]
enum Route {
    Tcp { host: Arc<str>, port: u16 },
    Tls { host: Arc<str>, port: u16, name: ServerName<'static>, config: Arc<rustls::ClientConfig> },
    Unix(Arc<Path>),
}

/// Why an upstream can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `trustedCertificateAuthorities` can't be read.
    #[error("trustedCertificateAuthorities: {0}")]
    Roots(#[from] SourceError),
    /// There is no usable certificate in it.
    #[error("trustedCertificateAuthorities has no PEM certificate that can be trusted: {0}")]
    NoRoots(String),
    /// The system has none.
    #[error(
        "the system has no certificate authorities; install ca-certificates or set trustedCertificateAuthorities"
    )]
    NoSystemRoots,
    /// No certificate can be checked for this host.
    #[error("{0:?} is neither a DNS name nor an address, so no certificate can be verified for it")]
    BadName(String),
    /// The TLS library refused the settings.
    #[error("TLS to the application can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Connector {
    /// Reads what TLS needs, if it is used. The only part of forwarding that can be wrongly configured.
    pub fn new(upstream: &Upstream) -> Result<Self, ConfigError> {
        Ok(Self(match upstream {
            Upstream::Tcp { host, port } => Route::Tcp { host: host.as_str().into(), port: *port },
            Upstream::Unix(path) => Route::Unix(path.as_path().into()),
            Upstream::Tls { host, port, roots } => Route::Tls {
                host: host.as_str().into(),
                port: *port,
                name: ServerName::try_from(host.clone()).map_err(|_| ConfigError::BadName(host.clone()))?,
                config: Arc::new(tls_config(roots.as_ref())?),
            },
        }))
    }

    /// Whether a connection can be made within `limit`, TLS included. It is closed again.
    pub async fn probe(&self, limit: Duration) -> Result<(), Error> {
        self.connect(limit).await.map(drop)
    }

    /// A new connection, TLS included, within `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Io, Error> {
        match tokio::time::timeout(limit, self.connect_unbounded(limit)).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::ConnectTimeout { upstream: self.to_string() }),
        }
    }

    async fn connect_unbounded(&self, limit: Duration) -> Result<Io, Error> {
        let unreachable = |cause: io::Error| match cause.kind() {
            io::ErrorKind::TimedOut => Error::ConnectTimeout { upstream: self.to_string() },
            _ => Error::Unreachable { upstream: self.to_string(), cause },
        };
        let stream = match &self.0 {
            Route::Tcp { host, port } => {
                Stream::Tcp(connect_tcp(host, *port, limit).await.map_err(unreachable)?)
            }
            Route::Unix(path) => Stream::Unix(UnixStream::connect(path).await.map_err(unreachable)?),
            Route::Tls { host, port, name, config } => {
                let stream = connect_tcp(host, *port, limit).await.map_err(unreachable)?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(|cause| Error::Tls { upstream: self.to_string(), cause })?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Io { stream, write_failed: false })
    }
}

impl std::fmt::Display for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Route::Tcp { host, port } => write!(f, "http://{}:{port}", Bracketed(host)),
            Route::Tls { host, port, .. } => write!(f, "https://{}:{port}", Bracketed(host)),
            Route::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A host as it stands in a URL.
struct Bracketed<'a>(&'a str);

impl std::fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

/// Tries the addresses of `host` in turn, each for its share of `limit`, so that one that swallows packets
/// does not use up the time of those that answer.
async fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses = resolve(host, port).await?;
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        let both = [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)];
        return Ok(both.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    Ok(tokio::net::lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect())
}

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Finds out that a peer is gone where silence is allowed: in tunnels and event streams.
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Silence after which the kernel asks the peer for a sign of life, and how often it asks again.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

fn tls_config(roots: Option<&Source>) -> Result<rustls::ClientConfig, ConfigError> {
    let roots = match roots {
        Some(source) => pem_roots(source.read()?.expose())?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn pem_roots(pem: &str) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| ConfigError::NoRoots(error.to_string()))?;
        store.add(certificate).map_err(|error| ConfigError::NoRoots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(ConfigError::NoRoots("it has none".to_owned()));
    }
    Ok(store)
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(ConfigError::NoSystemRoots) } else { Ok(store) }
}

/// A connection to the application.
///
/// An application may answer (`413`, say) and close without reading the rest of the request. The answer is
/// then still to be read although writing fails. So a failed write is not an error here: what follows goes
/// nowhere, and reading finds the answer. What it finds after that is never taken for a proper end.
pub(super) struct Io {
    stream: Stream,
    write_failed: bool,
}

enum Stream {
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
        let read = on_stream!(self, stream => Pin::new(stream).poll_read(cx, buf));
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
        let mut io = Io { stream: Stream::Tcp(stream), write_failed: false };
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
