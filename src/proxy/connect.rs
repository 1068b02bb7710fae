//! New connections to the application.

use arc_swap::ArcSwap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::io::{Io, Stream};
use super::{Error, HttpVersion, Upstream, http2};
use crate::secret::{Source, SourceError};

/// Makes connections to one application. Made once per service and shared by its workers.
#[derive(Clone, Debug)]
pub struct Connector {
    route: Route,
    version: HttpVersion,
}

#[derive(Clone, Debug)]
enum Route {
    Tcp { host: Arc<str>, port: u16 },
    Tls { host: Arc<str>, port: u16, name: ServerName<'static>, config: Arc<ArcSwap<rustls::ClientConfig>> },
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
    pub fn new(upstream: &Upstream, version: HttpVersion) -> Result<Self, ConfigError> {
        let route = match upstream {
            Upstream::Tcp { host, port } => Route::Tcp { host: host.as_str().into(), port: *port },
            Upstream::Unix(path) => Route::Unix(path.as_path().into()),
            Upstream::Tls { host, port, roots } => Route::Tls {
                host: host.as_str().into(),
                port: *port,
                name: ServerName::try_from(host.clone()).map_err(|_| ConfigError::BadName(host.clone()))?,
                config: Arc::new(ArcSwap::from_pointee(tls_config(roots.as_ref(), version)?)),
            },
        };
        Ok(Self { route, version })
    }

    /// Reads the certificate authorities of `upstream` again, for connections to come. On an error the old ones
    /// stay. Reads a file: not for a worker's thread.
    pub fn reload(&self, upstream: &Upstream) -> Result<(), ConfigError> {
        if let (Route::Tls { config, .. }, Upstream::Tls { roots, .. }) = (&self.route, upstream) {
            config.store(Arc::new(tls_config(roots.as_ref(), self.version)?));
        }
        Ok(())
    }

    /// Whether a connection can be made within `limit`, TLS and the greeting of HTTP/2 included. It is closed
    /// again.
    pub async fn probe(&self, limit: Duration) -> Result<(), Error> {
        match self.version {
            HttpVersion::Http1 => self.connect(limit).await.map(drop),
            HttpVersion::Http2 => http2::probe(self, limit).await,
        }
    }

    /// The scheme of the application's URLs as HTTP/2 states it: that of this connection, whatever the client
    /// used (RFC 9113 section 8.3.1).
    pub(super) fn scheme(&self) -> http::uri::Scheme {
        match self.route {
            Route::Tls { .. } => http::uri::Scheme::HTTPS,
            Route::Tcp { .. } | Route::Unix(_) => http::uri::Scheme::HTTP,
        }
    }

    /// That the application does not speak HTTP/2, as was configured.
    pub(super) fn not_http2(&self, how: &'static str) -> Error {
        let instead = match self.route {
            Route::Tcp { .. } => "http://",
            Route::Tls { .. } => "https://",
            Route::Unix(_) => "unix:",
        };
        Error::NotHttp2 { upstream: self.to_string(), how, instead }
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
        let stream = match &self.route {
            Route::Tcp { host, port } => {
                Stream::Tcp(connect_tcp(host, *port, limit).await.map_err(unreachable)?)
            }
            Route::Unix(path) => Stream::Unix(UnixStream::connect(path).await.map_err(unreachable)?),
            Route::Tls { host, port, name, config } => {
                let stream = connect_tcp(host, *port, limit).await.map_err(unreachable)?;
                let connector = tokio_rustls::TlsConnector::from(config.load_full());
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|cause| self.tls_error(cause))?;
                if self.version == HttpVersion::Http2 && !chose_http2(&stream) {
                    return Err(self.not_http2("in TLS it did not choose HTTP/2 (ALPN `h2`)"));
                }
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Io::new(stream))
    }

    fn tls_error(&self, cause: io::Error) -> Error {
        let inner = cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol))
                if self.version == HttpVersion::Http2 =>
            {
                self.not_http2("its TLS refuses HTTP/2 (ALPN `h2`)")
            }
            _ => Error::Tls { upstream: self.to_string(), cause },
        }
    }
}

impl std::fmt::Display for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [plain, tls, unix] = match self.version {
            HttpVersion::Http1 => ["http", "https", "unix"],
            HttpVersion::Http2 => ["h2c", "h2", "h2c+unix"],
        };
        match &self.route {
            Route::Tcp { host, port } => write!(f, "{plain}://{}:{port}", Bracketed(host)),
            Route::Tls { host, port, .. } => write!(f, "{tls}://{}:{port}", Bracketed(host)),
            Route::Unix(path) => write!(f, "{unix}:{}", path.display()),
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

fn chose_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn tls_config(roots: Option<&Source>, version: HttpVersion) -> Result<rustls::ClientConfig, ConfigError> {
    let roots = match roots {
        Some(source) => pem_roots(source.read()?.expose())?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = match version {
        HttpVersion::Http1 => b"http/1.1",
        HttpVersion::Http2 => b"h2",
    };
    config.alpn_protocols = vec![protocol.to_vec()];
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
