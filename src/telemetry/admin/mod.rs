//! The admin listener: `/healthz`, `/readyz`, `/metrics`, `/config`, `/sessions/end`; and the probes listener, which
//! has only the first three.
//!
//! It is never the traffic port. A page in a browser on the same host must not be able to read it, so it
//! wants a loopback Host (against DNS rebinding) and refuses any `Origin`.

mod ending;
mod listener;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Metrics;
use crate::secret::Source;

use self::listener::{Listener, accept};

pub use self::ending::{EndError, EndSessions, Ended, Ending, NotEverywhere};

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
    /// Bearer token for `/config` and for every POST.
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
    /// For `/sessions/end`.
    pub end_sessions: Arc<EndSessions>,
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
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match self.route(&head.method, &head.uri, &head.headers) {
            Ok(Answer::Now(response)) => response,
            Ok(Answer::EndSessions) => ending::end(&self.sources, &head.headers, body).await,
            Err(refusal) => *refusal,
        }
    }

    fn route(&self, method: &Method, uri: &http::Uri, headers: &http::HeaderMap) -> Result<Answer, Refusal> {
        if self.scope == Scope::Admin {
            for_this_host_only(uri, headers)?;
        }
        let admin = self.scope == Scope::Admin;
        let path = match uri.path() {
            "/config" | "/sessions/end" if !admin => "",
            path => path,
        };
        let methods = match path {
            "/healthz" | "/readyz" | "/metrics" | "/config" => "GET, HEAD",
            "/sessions/end" => "POST",
            _ => {
                return Err(Box::new(problem(
                    StatusCode::NOT_FOUND,
                    "there is /healthz, /readyz, /metrics and, on admin.listen, /config and /sessions/end",
                )));
            }
        };
        if !methods.split(", ").any(|known| known == method.as_str()) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("send {methods}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return Err(Box::new(response));
        }
        if matches!(path, "/config" | "/sessions/end") {
            self.authorise(headers)?;
        }
        Ok(match path {
            "/healthz" => Answer::Now(text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into())),
            "/readyz" => Answer::Now(self.readyz(uri)),
            "/metrics" => Answer::Now(text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.sources.metrics.render(),
            )),
            "/sessions/end" => Answer::EndSessions,
            _ => Answer::Now(text(
                StatusCode::OK,
                "application/yaml; charset=utf-8",
                self.sources.config.to_string(),
            )),
        })
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

    /// Wants the token, if there is one. It is read anew every time.
    fn authorise(&self, headers: &http::HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then_some(token)
        });
        let known = token.read().is_ok_and(|token| {
            given.is_some_and(|given| {
                aws_lc_rs::constant_time::verify_slices_are_equal(given, token.expose().as_bytes()).is_ok()
            })
        });
        if known {
            return Ok(());
        }
        let mut response =
            problem(StatusCode::UNAUTHORIZED, "send the token of admin.tokenFile: Authorization: Bearer ...");
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis admin\""));
        Err(Box::new(response))
    }
}

/// What a request gets that may not be made.
type Refusal = Box<Response<Full<Bytes>>>;

/// What a request gets that was not refused.
enum Answer {
    Now(Response<Full<Bytes>>),
    /// After its body was read.
    EndSessions,
}

/// No page in a browser gets further, by rebinding a name or from another origin.
fn for_this_host_only(uri: &http::Uri, headers: &http::HeaderMap) -> Result<(), Refusal> {
    if !host_is_loopback(uri, headers) {
        return Err(Box::new(problem(
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener wants a loopback Host: localhost, 127.0.0.1 or [::1]",
        )));
    }
    if headers.contains_key(ORIGIN) {
        return Err(Box::new(problem(
            StatusCode::FORBIDDEN,
            "the admin listener does not serve pages of other origins",
        )));
    }
    Ok(())
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
            end_sessions: Arc::new(|_, _| Err(EndError::NoService)),
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
        match handler.route(&method.parse().unwrap(), &target.parse().unwrap(), &map) {
            Ok(Answer::Now(response)) => response.status().as_u16(),
            Err(refusal) => refusal.status().as_u16(),
            Ok(Answer::EndSessions) => 200,
        }
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
            (&open, "GET", "/sessions/end", &[local], 405),
            (&open, "POST", "/sessions/end", &[local], 200),
            (&open, "POST", "/sessions/end", &[("host", "evil.test")], 421),
            (&open, "POST", "/sessions/end", &[local, ("origin", "http://localhost:9901")], 403),
            (&locked, "POST", "/sessions/end", &[local], 401),
            (&locked, "POST", "/sessions/end", &[local, ("authorization", "Bearer letmein")], 200),
            (&probes, "POST", "/sessions/end", &[("host", "10.1.2.3:9902")], 404),
            (&probes, "GET", "/readyz", &[("host", "10.1.2.3:9902")], 200),
            (&probes, "GET", "/config", &[("host", "10.1.2.3:9902")], 404),
        ] {
            assert_eq!(ask(handler, method, target, headers), status, "{method} {target} {headers:?}");
        }
    }
}
