//! The only way out to an identity provider: an HTTP client that a hostile answer can't hurt.
//!
//! Every call has one deadline for everything, a bounded answer, verified TLS, the address rules of
//! [`Reach`], and a connection of its own: a token call must never meet a connection that the other end is
//! just closing, because it can't be repeated. Redirects are followed only for calls without credentials,
//! and only within the origin. Knows nothing of OpenID Connect.

use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::dial::{Connection, Dialer, StopOnDrop, authority, builder, header_value, within};
use super::reach::{NotPermitted, Reach, Unresolved, shown};
use super::trust::{TlsProblem, Trust};

/// A client for one identity provider.
#[derive(Debug)]
pub struct Outbound {
    dialer: Dialer,
    calls: Semaphore,
}

/// Why a call brought no answer. The blame is the provider's or the network's, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address may not be connected to, or its name has none.
    #[error(transparent)]
    Address(#[from] Unresolved),
    /// No TCP connection.
    #[error("cannot connect to {host}: {cause}")]
    Connect {
        /// Host and port.
        host: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No TLS connection.
    #[error("no TLS connection to {host}: {problem}")]
    Tls {
        /// Host and port.
        host: String,
        /// What is wrong.
        problem: TlsProblem,
    },
    /// The proxy that `HTTPS_PROXY` names did not open a tunnel.
    #[error("the proxy {proxy} (from HTTPS_PROXY) opened no tunnel to {host}: {problem}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the destination.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection broke, or what came over it is no HTTP.
    #[error("{host} gave no readable answer: {cause}")]
    Exchange {
        /// Host and port.
        host: String,
        /// What the HTTP library said.
        cause: hyper::Error,
    },
    /// The deadline of the call was over.
    #[error("{host} did not answer within {} seconds ({doing})", patience.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// What was waited for.
        doing: &'static str,
        /// How long the call was allowed to take.
        patience: Duration,
    },
    /// The answer's body has more than [`MAX_BODY_BYTES`].
    #[error("the answer of {host} is larger than 1 MiB")]
    TooLarge {
        /// Host and port.
        host: String,
    },
    /// The answer's body has more than [`MAX_BODY_COMMAS`], and may become much larger when it is read as JSON.
    #[error("the answer of {host} has more than 100,000 values")]
    TooManyValues {
        /// Host and port.
        host: String,
    },
    /// The answer is compressed, which was not asked for.
    #[error("the answer of {host} is compressed although that was not asked for")]
    Compressed {
        /// Host and port.
        host: String,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects to {to}, which is not followed: {why}")]
    Redirect {
        /// Who redirects.
        from: String,
        /// Where to, without its query.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// The request can't be sent as it is: a mistake in our own code.
    #[error("the request to {host} is not valid HTTP")]
    Request {
        /// Host and port.
        host: String,
    },
}

/// How long one call may take, from the name lookup to the last byte of the body.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer's body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Most commas of an answer's body: a JSON value of two bytes takes more than thirty times that in memory.
pub const MAX_BODY_COMMAS: usize = 100_000;
/// Most redirects that one call follows, all of them within the origin.
pub const MAX_REDIRECTS: usize = 3;
/// Most calls at once; more wait, within their own deadline.
pub const MAX_CALLS: usize = 64;

impl Outbound {
    /// A client for the issuer at `home`. The proxies are those of the environment.
    pub fn new(home: &Url, trust: Trust) -> Result<Self, NotPermitted> {
        Self::with_proxies(home, trust, Matcher::from_env())
    }

    /// As [`Outbound::new`], with other proxies than the environment's.
    pub fn with_proxies(home: &Url, trust: Trust, proxies: Matcher) -> Result<Self, NotPermitted> {
        let dialer = Dialer { reach: Reach::new(home)?, trust: ArcSwap::from_pointee(trust), proxies };
        Ok(Self { dialer, calls: Semaphore::new(MAX_CALLS) })
    }

    /// From the next call on, trusts `trust`.
    pub fn replace_trust(&self, trust: Trust) {
        self.dialer.trust.store(trust.into());
    }

    /// Judges an endpoint before it is used, as far as that is possible without resolving its name.
    pub async fn admit(&self, url: &Url) -> Result<(), NotPermitted> {
        self.dialer.admit(url, Instant::now() + CALL_TIMEOUT).await
    }

    /// Gets `url` without credentials, following at most [`MAX_REDIRECTS`] redirects within its origin.
    /// Every status comes back as an answer.
    pub async fn get(&self, url: &Url) -> Result<Response<Vec<u8>>, Error> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Vec::new());
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            let answer = self.exchange(&url, request, deadline).await?;
            match redirect(&url, &answer) {
                None => return Ok(answer),
                Some(Ok(next)) => url = next,
                Some(Err(error)) => return Err(error),
            }
        }
        Err(Error::Redirect { from: authority(&url), to: shown(&url), why: "too many redirects" })
    }

    /// Sends a request that carries credentials, to the absolute URL in it. A redirect is an error: it is
    /// never followed, so nothing is ever sent twice or elsewhere.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Error> {
        self.send_within(request, CALL_TIMEOUT).await
    }

    /// As [`Outbound::send`], for a call that may take `patience` instead of [`CALL_TIMEOUT`].
    pub async fn send_within(
        &self,
        request: Request<Vec<u8>>,
        patience: Duration,
    ) -> Result<Response<Vec<u8>>, Error> {
        self.send_by(request, Instant::now() + patience).await.map_err(|error| match error {
            Error::Timeout { host, doing, .. } => Error::Timeout { host, doing, patience },
            other => other,
        })
    }

    async fn send_by(
        &self,
        request: Request<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Response<Vec<u8>>, Error> {
        let host = request.uri().authority().map_or_else(String::new, |authority| authority.to_string());
        let url = Url::parse(&request.uri().to_string()).map_err(|_| Error::Request { host })?;
        let answer = self.exchange(&url, request, deadline).await?;
        if answer.status().is_redirection() {
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            // Not the address: what was sent could stand in any part of it.
            let to = match location.and_then(|location| url.join(location).ok()) {
                None => "nowhere",
                Some(to) if to.origin() == url.origin() => "another path of the same origin",
                Some(to) if to.host() == url.host() => "another scheme or port of the same host",
                Some(_) => "another host",
            };
            return Err(Error::Redirect {
                from: authority(&url),
                to: to.to_owned(),
                why: "the request carries credentials",
            });
        }
        Ok(answer)
    }

    /// Whether a TCP connection to `url` (or to the proxy on the way) can be opened within `patience`.
    /// Nothing is sent over it.
    pub async fn knock(&self, url: &Url, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience.min(CALL_TIMEOUT);
        self.dialer.knock(url, deadline).await
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Response<Vec<u8>>, Error> {
        let host = authority(url);
        let request = origin_form(url, request)?;
        let waiting = within(deadline, &host, "too many calls at once", self.calls.acquire());
        let _permit = waiting.await?;
        match self.dialer.dial(url, deadline).await? {
            Connection::Plain(stream) => converse(stream, request, &host, deadline).await,
            Connection::Tls(stream) => converse(stream, request, &host, deadline).await,
            Connection::Tunneled(stream) => converse(stream, request, &host, deadline).await,
        }
    }
}

async fn converse<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    host: &str,
    deadline: Instant,
) -> Result<Response<Vec<u8>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |cause| Error::Exchange { host: host.to_owned(), cause };
    let (mut sender, connection) = builder().handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let _stop = StopOnDrop(driver.abort_handle());
    let answering = within(deadline, host, "waiting for the answer", sender.send_request(request));
    let answer = answering.await?.map_err(failed)?;
    let (head, body) = answer.into_parts();
    refuse_compressed(&head.headers, host)?;
    let body = within(deadline, host, "reading the answer", collect(body, host)).await??;
    Ok(Response::from_parts(head, body))
}

async fn collect(mut body: Incoming, host: &str) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { host: host.to_owned() };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| Error::Exchange { host: host.to_owned(), cause })?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    if bytes.iter().filter(|byte| **byte == b',').count() > MAX_BODY_COMMAS {
        return Err(Error::TooManyValues { host: host.to_owned() });
    }
    Ok(bytes)
}

/// A compressed answer could be of any size once it is read: nothing is ever decompressed.
fn refuse_compressed(headers: &HeaderMap, host: &str) -> Result<(), Error> {
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        true => Ok(()),
        false => Err(Error::Compressed { host: host.to_owned() }),
    }
}

fn origin_form(url: &Url, request: Request<Vec<u8>>) -> Result<Request<Full<Bytes>>, Error> {
    let host = authority(url);
    let (mut head, body) = request.into_parts();
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    head.uri = target.parse().map_err(|_| Error::Request { host: host.clone() })?;
    head.version = http::Version::HTTP_11;
    head.headers.insert(HOST, header_value(&host, &host)?);
    head.headers.insert(USER_AGENT, HeaderValue::from_static("portcullis"));
    head.headers.remove(CONTENT_LENGTH);
    Ok(Request::from_parts(head, Full::new(Bytes::from(body))))
}

/// Where an answer redirects to, if it does.
fn redirect(url: &Url, answer: &Response<Vec<u8>>) -> Option<Result<Url, Error>> {
    let redirecting = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(LOCATION).filter(|_| redirecting)?;
    let refused = |to: String, why| Error::Redirect { from: authority(url), to, why };
    let next = location.to_str().ok().and_then(|location| url.join(location).ok());
    Some(match next {
        None => Err(refused("an unreadable address".to_owned(), "its Location is no URL")),
        Some(next) if next.origin() == url.origin() && next.origin().is_tuple() => Ok(next),
        Some(next) => Err(refused(shown(&next), "it is another origin")),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::web::dial::MAX_HEAD_BYTES;
    use crate::web::testing::{Reply, Server, TestAuthority, connect_proxy};

    const JSON: &str = "{\"good\":true}";

    fn client(server: &Server) -> Outbound {
        Outbound::new(&url(&server.url("")), Trust::system()).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn full(headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Reply::Full(200, headers.collect(), body)
    }

    #[tokio::test]
    async fn rp_27_bad_answers_are_bounded_errors() {
        let large = full(&[], vec![b'x'; MAX_BODY_BYTES + 1]);
        let promised = Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n".to_vec());
        let many_fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
        let large_head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(4 * MAX_HEAD_BYTES));
        let rows: Vec<(&str, Reply, &str)> = vec![
            ("good", Reply::json(JSON), ""),
            ("empty", Reply::json(""), ""),
            ("no content", Reply::status(204), ""),
            ("error", Reply::status(500), ""),
            ("just fits", full(&[], vec![b'x'; MAX_BODY_BYTES]), ""),
            ("identity", full(&[("Content-Encoding", "identity")], vec![b'x']), ""),
            ("commas that just fit", full(&[], vec![b','; MAX_BODY_COMMAS]), ""),
            ("too many commas", full(&[], vec![b','; MAX_BODY_COMMAS + 1]), "more than 100,000 values"),
            ("too large", large, "larger than 1 MiB"),
            ("too large by its own word", promised, "larger than 1 MiB"),
            ("endless", Reply::Endless, "larger than 1 MiB"),
            ("gzip", full(&[("Content-Encoding", "gzip")], vec![b'x']), "compressed"),
            ("br", full(&[("Content-Encoding", "identity, br")], vec![b'x']), "compressed"),
            ("hangup", Reply::Hangup, "no readable answer"),
            ("no HTTP", Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "no readable answer"),
            (
                "cut",
                Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()),
                "no readable answer",
            ),
            ("many fields", Reply::Raw(many_fields.into_bytes()), "no readable answer"),
            ("large head", Reply::Raw(large_head.into_bytes()), "no readable answer"),
            ("drip", Reply::Drip, "did not answer within 5 seconds"),
            ("silence", Reply::Silence, "did not answer within 5 seconds"),
        ];
        let begin = Instant::now();
        // At once: the slow ones all take their five seconds.
        let calls = rows.into_iter().map(|(name, reply, problem)| async move {
            let server = Server::plain(move |_| reply.clone()).await;
            let outcome = client(&server).get(&url(&server.url("/"))).await;
            match outcome {
                Ok(_) => assert_eq!(problem, "", "{name}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!problem.is_empty() && text.contains(problem), "{name}: {text}");
                }
            }
        });
        futures_util::future::join_all(calls).await;
        assert!(begin.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test]
    async fn rp_31_redirects_stay_within_the_origin() {
        let other = Server::plain(|_| Reply::json(JSON)).await;
        let away = other.url("/steal");
        let server = Server::plain(move |asked| match asked.target.as_str() {
            "/here" => Reply::redirect(302, "/good"),
            "/near" => Reply::redirect(308, "good?x=1"),
            "/good" | "/good?x=1" => Reply::json(JSON),
            "/twice" => Reply::redirect(301, "/here"),
            "/loop" => Reply::redirect(302, "/loop"),
            "/away" => Reply::redirect(301, away.clone()),
            "/file" => Reply::redirect(302, "file:///etc/passwd"),
            "/https" => Reply::redirect(302, "https://127.0.0.1/"),
            "/garbage" => Reply::redirect(302, "http://[::"),
            _ => Reply::redirect(304, "/good"),
        })
        .await;
        let client = client(&server);
        for (path, status) in [
            ("/here", Some(200)),
            ("/near", Some(200)),
            ("/twice", Some(200)),
            ("/not-modified", Some(304)),
            ("/loop", None),
            ("/away", None),
            ("/file", None),
            ("/https", None),
            ("/garbage", None),
        ] {
            let outcome = client.get(&url(&server.url(path))).await;
            assert_eq!(outcome.ok().map(|answer| answer.status().as_u16()), status, "{path}");
        }
        assert_eq!(server.count("/loop"), 1 + MAX_REDIRECTS);
        assert!(other.asked().is_empty());
    }

    #[tokio::test]
    async fn rp_31_a_request_with_credentials_follows_nothing() {
        for status in [301, 302, 303, 307, 308] {
            for (to, shown) in [
                ("/hush?x=y", "to another path of the same origin,"),
                ("http://127.0.0.1:1/hush", "to another scheme or port of the same host,"),
                ("https://hush.example/", "to another host,"),
                ("https://[hush", "to nowhere,"),
            ] {
                let server = Server::plain(move |_| Reply::redirect(status, to)).await;
                let request =
                    Request::post(server.url("/token")).body(b"client_secret=hush".to_vec()).unwrap();
                let error = client(&server).send(request).await.unwrap_err().to_string();
                assert!(
                    error.contains(shown) && !error.contains("hush") && !error.contains("x=y"),
                    "{error}"
                );
                assert_eq!(server.asked().len(), 1, "{status}");
            }
        }
    }

    #[tokio::test]
    async fn rp_32_a_server_of_this_machine_is_not_asked_for_a_foreign_issuer() {
        let authority = TestAuthority::new();
        let server = Server::tls(authority.server(&["localhost"], |_| ()), |_| Reply::json(JSON)).await;
        let trust = Trust::only(&authority.pem()).unwrap();
        let foreign = Outbound::new(&url("https://203.0.113.7"), trust).unwrap();
        for host in ["localhost", "127.0.0.1", "a.localhost"] {
            let endpoint = url(&format!("https://{host}:{}/", server.address.port()));
            assert!(matches!(foreign.get(&endpoint).await, Err(Error::Address(_))), "{host}");
        }
        let plain = url(&format!("http://localhost:{}/", server.address.port()));
        assert!(matches!(foreign.get(&plain).await, Err(Error::Address(_))));
        assert!(server.asked().is_empty());
    }

    #[tokio::test]
    async fn tls_03_bad_certificates_are_refused_and_named() {
        type Change = fn(&mut rcgen::CertificateParams);
        let rows: [(&str, &str, Change, bool, &str); 5] = [
            ("good", "localhost", |_| (), true, ""),
            ("unknown CA", "localhost", |_| (), false, "authority that is not trusted"),
            ("wrong name", "other.example", |_| (), true, "another name"),
            ("expired", "localhost", |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1), true, "expired"),
            (
                "not yet",
                "localhost",
                |p| p.not_before = rcgen::date_time_ymd(2090, 1, 1),
                true,
                "not valid yet",
            ),
        ];
        for (row, name, change, trusted, problem) in rows {
            let authority = TestAuthority::new();
            let known = if trusted { authority.pem() } else { TestAuthority::new().pem() };
            let server = Server::tls(authority.server(&[name], change), |_| Reply::json(JSON)).await;
            let issuer = url(&format!("https://localhost:{}/", server.address.port()));
            let client = Outbound::new(&issuer, Trust::only(&known).unwrap()).unwrap();
            match client.get(&issuer).await {
                Ok(_) => assert_eq!(problem, "", "{row}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!problem.is_empty() && text.contains(problem), "{row}: {text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_new_trust_counts_from_the_next_call() {
        let authority = TestAuthority::new();
        let server = Server::tls(authority.server(&["localhost"], |_| ()), |_| Reply::json(JSON)).await;
        let issuer = url(&format!("https://localhost:{}/", server.address.port()));
        let client = Outbound::new(&issuer, Trust::only(&TestAuthority::new().pem()).unwrap()).unwrap();
        assert!(client.get(&issuer).await.is_err());
        client.replace_trust(Trust::only(&authority.pem()).unwrap());
        assert!(client.get(&issuer).await.is_ok());
    }

    #[tokio::test]
    async fn the_proxy_gets_a_tunnel_and_sees_no_request() {
        let authority = TestAuthority::new();
        let tls = authority.server(&["idp.example"], |_| ());
        let server = Server::tls(tls, |_| Reply::json(JSON)).await;
        let issuer = url("https://idp.example/realm");
        let through = |proxy: SocketAddr, no: &str| {
            let proxies =
                Matcher::builder().https(format!("http://user:pw@{proxy}")).no(no.to_owned()).build();
            Outbound::with_proxies(&issuer, Trust::only(&authority.pem()).unwrap(), proxies).unwrap()
        };
        let (proxy, asked) = connect_proxy(server.address, None).await;
        let answer = through(proxy, "").get(&url("https://idp.example/realm/x?y=z")).await.unwrap();
        assert_eq!(answer.body(), JSON.as_bytes());
        let seen = asked.lock().unwrap()[0].clone();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("CONNECT", "idp.example:443"));
        assert!(
            seen.head.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwdw=="),
            "{}",
            seen.head
        );
        assert_eq!(server.asked()[0].target, "/realm/x?y=z");

        // Addresses of this machine are judged before a proxy could be asked, and never given to one.
        let client = through(proxy, "");
        assert!(client.get(&url("https://169.254.169.254/")).await.is_err());
        assert!(client.get(&url("https://127.0.0.1/")).await.is_err());
        assert_eq!(asked.lock().unwrap().len(), 1);

        let refusing = "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n";
        let (proxy, _) = connect_proxy(server.address, Some(refusing)).await;
        let error = through(proxy, "").get(&issuer).await.unwrap_err().to_string();
        assert!(error.contains("407") && !error.contains("pw"), "{error}");
    }

    #[tokio::test]
    async fn a_call_past_the_bound_waits() {
        let server = Server::plain(|_| Reply::json(JSON)).await;
        let client = Arc::new(client(&server));
        let permits = client.calls.acquire_many(u32::try_from(MAX_CALLS).unwrap()).await.unwrap();
        let call = client.get(&url(&server.url("/"))).await;
        assert!(call.unwrap_err().to_string().contains("too many calls"));
        drop(permits);
        assert!(client.get(&url(&server.url("/"))).await.is_ok());
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error_at_once() {
        let server = Server::plain(|_| Reply::Hangup).await;
        let gone = url(&server.url("/"));
        let client = client(&server);
        client.knock(&gone, CALL_TIMEOUT).await.unwrap();
        drop(server);
        tokio::task::yield_now().await;
        assert!(matches!(client.get(&gone).await, Err(Error::Connect { .. })));
        assert!(matches!(client.knock(&gone, CALL_TIMEOUT).await, Err(Error::Connect { .. })));
    }
}
