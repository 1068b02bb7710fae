//! Connections to an identity provider: name, TCP, the proxy where there is one, TLS.

use std::net::SocketAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::outbound::{CALL_TIMEOUT, Error};
use super::reach::{MAX_ADDRESSES, NotPermitted, Reach, Unresolved, names_this_machine, shown};
use super::trust::{TlsProblem, Trust};

/// Opens connections under the rules of one issuer.
#[derive(Debug)]
pub(super) struct Dialer {
    pub reach: Reach,
    pub trust: ArcSwap<Trust>,
    pub proxies: Matcher,
}

/// A connection on which HTTP can be spoken.
pub(super) enum Connection {
    /// Plain, to this machine.
    Plain(TcpStream),
    /// TLS, straight.
    Tls(TlsStream<TcpStream>),
    /// TLS, through a tunnel that a proxy opened.
    Tunneled(TlsStream<TokioIo<Upgraded>>),
}

/// Most bytes of an answer's head.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most fields of an answer's head.
const MAX_HEAD_FIELDS: usize = 100;
/// How long one address of several is tried before the next is tried beside it (RFC 8305 section 8).
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

impl Dialer {
    /// Opens a connection to the host of `url`.
    pub async fn dial(&self, url: &Url, deadline: Instant) -> Result<Connection, Error> {
        if url.scheme() == "http" {
            return self.connect(url, deadline).await.map(Connection::Plain);
        }
        let Some(proxy) = self.proxy_for(url) else {
            let tcp = self.connect(url, deadline).await?;
            return self.handshake(tcp, url, deadline).await.map(Connection::Tls);
        };
        // The proxy resolves the name: what the URL itself says is all that can be judged here.
        self.admit(url, deadline).await.map_err(Unresolved::from)?;
        let tunnel = self.tunnel(&proxy, url, deadline).await?;
        self.handshake(TokioIo::new(tunnel), url, deadline).await.map(Connection::Tunneled)
    }

    /// Opens a TCP connection towards the host of `url`, which may end at the proxy, and closes it.
    pub async fn knock(&self, url: &Url, deadline: Instant) -> Result<(), Error> {
        match self.proxy_for(url) {
            Some(proxy) => connect_to_proxy(&proxy, &authority(url), deadline).await.map(drop),
            None => self.connect(url, deadline).await.map(drop),
        }
    }

    /// Judges `url` without connecting.
    pub async fn admit(&self, url: &Url, deadline: Instant) -> Result<(), NotPermitted> {
        let judging = timeout_at(deadline, self.reach.admit(url)).await;
        judging.unwrap_or_else(|_| Err(NotPermitted::Local(authority(url))))
    }

    /// This machine is never reached through a proxy.
    fn proxy_for(&self, url: &Url) -> Option<Intercept> {
        let host = url.host()?;
        if url.scheme() == "http" || names_this_machine(&host.to_owned()) {
            return None;
        }
        self.proxies.intercept(&url.as_str().parse::<Uri>().ok()?)
    }

    async fn connect(&self, url: &Url, deadline: Instant) -> Result<TcpStream, Error> {
        let host = authority(url);
        let addresses = within(deadline, &host, "looking up its name", self.reach.addresses(url)).await??;
        let connecting = within(deadline, &host, "connecting", connect_any(addresses));
        connecting.await?.map_err(|cause| Error::Connect { host, cause })
    }

    async fn handshake<S>(&self, stream: S, url: &Url, deadline: Instant) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = authority(url);
        let failed = |problem| Error::Tls { host: host.clone(), problem };
        let config = self.trust.load().client_config().map_err(failed)?;
        let bare = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| failed(TlsProblem::Other("its name can't be in a certificate".to_owned())))?;
        let shaking = TlsConnector::from(config).connect(name, stream);
        let shaken = within(deadline, &host, "in the TLS handshake", shaking).await?;
        shaken.map_err(|error| failed(TlsProblem::of(&error)))
    }

    async fn tunnel(&self, proxy: &Intercept, url: &Url, deadline: Instant) -> Result<Upgraded, Error> {
        let host = authority(url);
        let tcp = connect_to_proxy(proxy, &host, deadline).await?;
        let mut connect = Request::new(Empty::<Bytes>::new());
        let target = format!("{}:{}", url.host_str().unwrap_or_default(), url_port(url));
        let invalid = |_| Error::Request { host: host.clone() };
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = Uri::builder().authority(target.as_str()).build().map_err(invalid)?;
        connect.headers_mut().insert(HOST, header_value(&target, &host)?);
        if let Some(credentials) = proxy.basic_auth() {
            connect.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        if proxy.uri().scheme_str() == Some("https") {
            let at =
                Url::parse(&proxy.uri().to_string()).map_err(|_| Error::Request { host: host.clone() })?;
            let tls = self.handshake(tcp, &at, deadline).await?;
            return open_tunnel(tls, connect, proxy, &host, deadline).await;
        }
        open_tunnel(tcp, connect, proxy, &host, deadline).await
    }
}

/// Tries the addresses in their order, each with a head start over the next.
async fn connect_any(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut failure = std::io::Error::other("it has no address");
    let mut remaining = addresses.into_iter().peekable();
    loop {
        if let Some(address) = remaining.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let joined = match remaining.peek() {
            None => attempts.join_next().await,
            Some(_) => match tokio::time::timeout(ADDRESS_HEAD_START, attempts.join_next()).await {
                Ok(joined) => joined,
                Err(_) => continue,
            },
        };
        match joined {
            Some(Ok(Ok(stream))) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Ok(Err(error))) => failure = error,
            Some(Err(stopped)) => failure = std::io::Error::other(stopped),
            None => return Err(failure),
        }
    }
}

async fn connect_to_proxy(proxy: &Intercept, host: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let uri = proxy.uri();
    let at = uri.authority().map_or_else(String::new, |authority| authority.to_string());
    let failed = |problem: String| Error::Proxy { proxy: at.clone(), host: host.to_owned(), problem };
    let default_port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(failed("only http and https proxies are supported".to_owned())),
    };
    let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(default_port);
    let connecting = async {
        let addresses = tokio::net::lookup_host((name.as_str(), port)).await?;
        connect_any(addresses.take(MAX_ADDRESSES).collect()).await
    };
    let connected = within(deadline, host, "connecting to the proxy", connecting).await?;
    connected.map_err(|error| failed(error.to_string()))
}

async fn open_tunnel<S>(
    stream: S,
    connect: Request<Empty<Bytes>>,
    proxy: &Intercept,
    host: &str,
    deadline: Instant,
) -> Result<Upgraded, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let at = proxy.uri().authority().map_or_else(String::new, |authority| authority.to_string());
    let failed = |problem: String| Error::Proxy { proxy: at.clone(), host: host.to_owned(), problem };
    let opening = async {
        let (mut sender, connection) =
            builder().handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        let driver = tokio::spawn(connection.with_upgrades());
        let _stop = StopOnDrop(driver.abort_handle());
        let answer = sender.send_request(connect).await.map_err(|error| failed(error.to_string()))?;
        match answer.status() {
            StatusCode::OK => hyper::upgrade::on(answer).await.map_err(|error| failed(error.to_string())),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(failed("it asks for other credentials (407)".to_owned()))
            }
            status => Err(failed(format!("it answered {}", status.as_u16()))),
        }
    };
    within(deadline, host, "opening the tunnel", opening).await?
}

/// `text` as a header value.
pub(super) fn header_value(text: &str, host: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Request { host: host.to_owned() })
}

/// HTTP/1.1 with bounds for the answer's head.
pub(super) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEAD_FIELDS);
    builder
}

/// `future`, until `deadline`.
pub(super) async fn within<T>(
    deadline: Instant,
    host: &str,
    doing: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let patience = CALL_TIMEOUT;
    timeout_at(deadline, future).await.map_err(|_| Error::Timeout { host: host.to_owned(), doing, patience })
}

/// Host, and the port if it is not the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => shown(url),
    }
}

fn url_port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

/// Ends a connection's task when the call is over, however it ends.
pub(super) struct StopOnDrop(pub AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
