//! The admin listener: `/healthz`, `/readyz`, `/metrics`, `/config`; and the probes listener, which has only
//! the first three.
//!
//! It is never the traffic port. A page in a browser on the same host must not be able to read it, so it
//! wants a loopback Host (against DNS rebinding) and refuses any `Origin`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::secret::Source;

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

/// The admin section, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The full listener.
    pub listen: Listen,
    /// The listener for kubelet and Prometheus.
    pub probes: Option<SocketAddr>,
    /// Bearer token for `/config`.
    pub token: Option<Source>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9901))), probes: None, token: None }
    }
}

/// What `/readyz` says.
#[derive(Clone, Debug)]
pub struct Ready {
    /// 200 or 503.
    pub ready: bool,
    /// The JSON of every service and provider.
    pub report: serde_json::Value,
}

/// Tells [`Ready`] of the whole process, or of the named service.
pub type ReadyProbe = dyn Fn(Option<&str>) -> Option<Ready> + Send + Sync;

/// What the listener shows, told by whoever knows it.
#[derive(Clone)]
pub struct Sources {
    /// For `/readyz`; with a name for `/readyz?service=NAME`, `None` when there is no such service.
    pub ready: Arc<ReadyProbe>,
    /// The effective configuration, already redacted.
    pub config: Arc<str>,
    /// The metrics.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

/// Why the admin listener could not start. The blame is the configuration's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {place} for {key}: {cause}; choose another with `{key}`")]
    Bind {
        /// `admin.listen` or `admin.probes`.
        key: &'static str,
        /// Address or path.
        place: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The token file can't be read.
    #[error("admin.tokenFile: {0}")]
    Token(#[from] crate::secret::SourceError),
}

/// The bound listeners, not serving yet.
#[derive(Debug)]
pub struct Admin {
    listeners: Vec<(Listener, Scope)>,
    token: Option<Arc<Source>>,
}

impl Admin {
    /// Binds the listeners. Wants a tokio runtime.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        // Read for every request that needs it, so that a changed file is in use at once; looked at here, so
        // that a wrong name is told at the start.
        config.token.as_ref().map(Source::read).transpose()?;
        let token = config.token.clone().map(Arc::new);
        let mut listeners = vec![(Listener::bind(&config.listen)?, Scope::Admin)];
        if let Some(probes) = config.probes {
            listeners.push((Listener::tcp(probes, "admin.probes")?, Scope::Probes));
        }
        Ok(Self { listeners, token })
    }

    /// Addresses of the TCP listeners, admin first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(listener, _)| listener.address()).collect()
    }

    /// Serves for as long as the runtime lives.
    pub fn serve(self, sources: &Sources) {
        for (listener, scope) in self.listeners {
            let handler = Arc::new(Handler { scope, sources: sources.clone(), token: self.token.clone() });
            tokio::spawn(accept(listener, handler));
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    fn bind(listen: &Listen) -> Result<Self, Error> {
        match listen {
            Listen::Tcp(address) => Self::tcp(*address, "admin.listen"),
            Listen::Unix(path) => Self::unix(path).map_err(|cause| Error::Bind {
                key: "admin.listen",
                place: path.display().to_string(),
                cause,
            }),
        }
    }

    fn tcp(address: SocketAddr, key: &'static str) -> Result<Self, Error> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        bind().map(Self::Tcp).map_err(|cause| Error::Bind { key, place: address.to_string(), cause })
    }

    fn unix(path: &std::path::Path) -> std::io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

        // A socket that a dead process left behind answers nobody and may go; a live one stays.
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = tokio::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

async fn accept(listener: Listener, handler: Arc<Handler>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let handler = handler.clone();
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    serve(stream, handler).await;
                    drop(permit);
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    serve(stream, handler).await;
                    drop(permit);
                });
            }),
        };
        if accepted.is_err() {
            // Out of descriptors, most likely: let some come back.
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Arc<Handler>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = handler.answer(request.method(), request.uri(), request.headers());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A broken admin connection is its client's business.
    let _ = connection.await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Admin,
    Probes,
}

#[derive(Debug)]
struct Handler {
    scope: Scope,
    sources: Sources,
    token: Option<Arc<Source>>,
}

impl Handler {
    fn answer(&self, method: &Method, uri: &http::Uri, headers: &http::HeaderMap) -> Response<Full<Bytes>> {
        if self.scope == Scope::Admin && !host_is_loopback(uri, headers) {
            return problem(
                StatusCode::MISDIRECTED_REQUEST,
                "the admin listener wants a loopback Host: localhost, 127.0.0.1 or [::1]",
            );
        }
        if self.scope == Scope::Admin && headers.contains_key(ORIGIN) {
            return problem(
                StatusCode::FORBIDDEN,
                "the admin listener does not serve pages of other origins",
            );
        }
        let known = ["/healthz", "/readyz", "/metrics"].contains(&uri.path())
            || (self.scope == Scope::Admin && uri.path() == "/config");
        if !known {
            return problem(
                StatusCode::NOT_FOUND,
                "there is /healthz, /readyz, /metrics and, on admin.listen, /config",
            );
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match uri.path() {
            "/healthz" => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into()),
            "/readyz" => self.readyz(uri),
            "/metrics" => text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.sources.metrics.render(),
            ),
            _ if !self.authorised(headers) => {
                let mut response = problem(
                    StatusCode::UNAUTHORIZED,
                    "send the token of admin.tokenFile: Authorization: Bearer ...",
                );
                response
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis admin\""));
                response
            }
            _ => text(StatusCode::OK, "application/yaml; charset=utf-8", self.sources.config.to_string()),
        }
    }

    fn readyz(&self, uri: &http::Uri) -> Response<Full<Bytes>> {
        let query = uri.query().unwrap_or_default();
        let service = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "service");
        match (self.sources.ready)(service.as_ref().map(|(_, value)| value.as_ref())) {
            None => problem(StatusCode::NOT_FOUND, "no service has that name"),
            Some(Ready { ready, report }) => {
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, "application/json", format!("{report}\n"))
            }
        }
    }

    fn authorised(&self, headers: &http::HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let Ok(token) = token.read() else { return false };
        let given = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then_some(token)
        });
        given.is_some_and(|given| {
            aws_lc_rs::constant_time::verify_slices_are_equal(given, token.expose().as_bytes()).is_ok()
        })
    }
}

/// True for a Host (or, in absolute form, an authority) that is `localhost` or a loopback address. A request
/// over a Unix socket may leave the Host empty: no browser can send that.
fn host_is_loopback(uri: &http::Uri, headers: &http::HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    if uri.host().is_some_and(|host| !is_loopback(host)) {
        return false;
    }
    if host.is_empty() {
        return true;
    }
    host.parse::<http::uri::Authority>().is_ok_and(|authority| is_loopback(authority.host()))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    text(status, "application/problem+json", body.to_string())
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

const BEARER: &[u8] = b"Bearer ";
/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's head, which is also how long an idle connection stays.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::super::{Format, Log};
    use super::*;
    use crate::secret::Secret;

    fn handler(scope: Scope, token: Option<&str>) -> Handler {
        let (log, _writer) = Log::start(Format::Json, std::io::sink());
        let sources = Sources {
            ready: Arc::new(|service| match service {
                Some("ghost") => None,
                Some("down") => Some(Ready { ready: false, report: serde_json::json!({}) }),
                _ => Some(Ready { ready: true, report: serde_json::json!({"status": "ready"}) }),
            }),
            config: "services: []\n".into(),
            metrics: Metrics::new(&log, &[]),
        };
        Handler {
            scope,
            sources,
            token: token.map(|token| Arc::new(Source::Inline(Secret::new(token.to_owned())))),
        }
    }

    fn ask(handler: &Handler, method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        handler.answer(&method.parse().unwrap(), &target.parse().unwrap(), &map).status().as_u16()
    }

    /// OPS-02 and DNS rebinding.
    #[test]
    fn the_admin_listener_is_for_this_host_only() {
        let open = handler(Scope::Admin, None);
        let locked = handler(Scope::Admin, Some("letmein"));
        let probes = handler(Scope::Probes, None);
        let local = ("host", "localhost:9901");
        for (handler, method, target, headers, status) in [
            (&open, "GET", "/healthz", &[local][..], 200),
            (&open, "GET", "/healthz", &[("host", "[::1]:9901")], 200),
            (&open, "GET", "/healthz", &[("host", "127.9.9.9")], 200),
            (&open, "GET", "/healthz", &[("host", "evil.test:9901")], 421),
            (&open, "GET", "/healthz", &[("host", "127.0.0.1.evil.test")], 421),
            (&open, "GET", "/healthz", &[], 421),
            (&open, "GET", "/healthz", &[local, ("host", "evil.test")], 421),
            (&open, "GET", "http://evil.test/healthz", &[local], 421),
            (&open, "GET", "/metrics", &[local, ("origin", "http://localhost:3000")], 403),
            (&open, "GET", "/metrics", &[local, ("origin", "null")], 403),
            (&open, "POST", "/healthz", &[local], 405),
            (&open, "GET", "/", &[local], 404),
            (&open, "GET", "/config", &[local], 200),
            (&open, "GET", "/readyz?service=down", &[local], 503),
            (&open, "GET", "/readyz?service=ghost", &[local], 404),
            (&locked, "GET", "/config", &[local], 401),
            (&locked, "GET", "/config", &[local, ("authorization", "Bearer letmei")], 401),
            (&locked, "GET", "/config", &[local, ("authorization", "Bearer letmein")], 200),
            (&locked, "GET", "/config", &[local, ("authorization", "bearer letmein")], 200),
            (&locked, "GET", "/readyz", &[local], 200),
            (&probes, "GET", "/readyz", &[("host", "10.1.2.3:9902")], 200),
            (&probes, "GET", "/config", &[("host", "10.1.2.3:9902")], 404),
        ] {
            assert_eq!(ask(handler, method, target, headers), status, "{method} {target} {headers:?}");
        }
    }
}
