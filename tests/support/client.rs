//! Clients: a browser with a cookie jar that keeps the rules of RFC 6265bis, and raw TLS for exact bytes. Both
//! connect to 127.0.0.1 whatever the host, and trust every certificate: that is no test's subject but `hosts`'.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::proxy::Secrets;
use super::soon;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What was asked for.
    pub url: String,
}

impl Answer {
    /// A header; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not text)"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Where a redirect leads, absolute.
    pub fn location(&self) -> Url {
        let location = self.header("location");
        assert!(!location.is_empty(), "no Location: {self:?}");
        Url::parse(&self.url).unwrap().join(location).unwrap()
    }

    /// Every Set-Cookie.
    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// Whether a cookie that is not a login transaction's is set to something: a session.
    pub fn sets_session(&self) -> bool {
        self.set_cookies().iter().any(|cookie| {
            let pair = cookie.split(';').next().unwrap();
            pair.starts_with("__Host-portcullis")
                && !pair.starts_with("__Host-portcullis-login")
                && !pair.ends_with('=')
        })
    }

    /// The answer, once its status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {:?}\n{}", self.url, self.headers, self.text());
        self
    }
}

/// A browser: cookies and the headers that browsers send. It follows no redirect unless told.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Host, name and value.
    pub jar: Vec<(String, String, String)>,
    http2: bool,
    secrets: Secrets,
}

/// Names and values, of headers or of cookies.
pub type Pairs<'a> = &'a [(&'a str, &'a str)];

/// What a navigation sends.
pub const NAVIGATION: [(&str, &str); 4] = [
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-site", "none"),
];

/// What `fetch()` sends.
pub const FETCH: [(&str, &str); 4] = [
    ("accept", "*/*"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-site", "same-origin"),
];

impl Browser {
    /// One without cookies. What it gets as a cookie of ours is added to `secrets`.
    pub fn new(secrets: &Secrets) -> Self {
        Self { jar: Vec::new(), http2: false, secrets: secrets.clone() }
    }

    /// The same over HTTP/2.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// A top-level GET.
    pub async fn navigate(&mut self, url: &str) -> Answer {
        self.send("GET", url, &NAVIGATION, b"").await
    }

    /// A GET by `fetch()`.
    pub async fn fetch(&mut self, url: &str) -> Answer {
        self.send("GET", url, &FETCH, b"").await
    }

    /// A navigation that follows redirects, to the provider and back.
    pub async fn follow(&mut self, url: &str) -> Answer {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let answer = self.navigate(&url).await;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return answer;
            }
            url = answer.location().into();
        }
        panic!("more than ten redirects, the last to {url}");
    }

    /// Goes from a page that needs a login to the callback's URL, without calling that.
    pub async fn authorize(&mut self, url: &str) -> Url {
        let provider = self.navigate(url).await.expect(302).location();
        self.navigate(provider.as_str()).await.expect(302).location()
    }

    /// Any request. Headers of the same name are sent as often as they are given.
    pub async fn send(&mut self, method: &str, url: &str, headers: Pairs<'_>, body: &[u8]) -> Answer {
        let parsed = Url::parse(url).unwrap();
        let host = parsed.host_str().unwrap().to_owned();
        let port = parsed.port_or_known_default().unwrap();
        let tls = parsed.scheme() == "https";
        let cookies = if tls { self.cookies(&host) } else { String::new() };
        let mut request = http::Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        for (name, value) in headers {
            request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        if !cookies.is_empty() {
            request = request.header("cookie", &cookies);
        }
        let target = &parsed[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &parsed[url::Position::BeforeHost..url::Position::AfterPort];
        let request = if self.http2 && tls {
            request.uri(url.split('#').next().unwrap())
        } else {
            request.uri(target).header("host", authority)
        };
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let waited = format!("the answer to {method} {url}");
        let answer = soon(&waited, self.exchange(port, &host, tls, request)).await;
        let (head, body) = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        let answer =
            Answer { status: head.status.as_u16(), headers: head.headers, body, url: url.to_owned() };
        if tls {
            self.keep(&host, &answer);
        }
        answer
    }

    async fn exchange(
        &self,
        port: u16,
        host: &str,
        tls: bool,
        request: http::Request<Full<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), hyper::Error> {
        if !tls {
            let io = TokioIo::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connects"));
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            return finish(tokio::spawn(connection), async move { sender.send_request(request).await }).await;
        }
        let protocol: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        let io = TokioIo::new(connect(port, Some(host), &[protocol]).await.expect("TLS"));
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            return finish(tokio::spawn(connection), async move { sender.send_request(request).await }).await;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        finish(tokio::spawn(connection), async move { sender.send_request(request).await }).await
    }

    /// The Cookie header for a host.
    pub fn cookies(&self, host: &str) -> String {
        let pairs: Vec<String> = self
            .jar
            .iter()
            .filter(|(of, ..)| of == host)
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }

    /// The cookies whose names begin so.
    pub fn named(&self, prefix: &str) -> Vec<(String, String)> {
        let matching = self.jar.iter().filter(|(_, name, _)| name.starts_with(prefix));
        matching.map(|(_, name, value)| (name.clone(), value.clone())).collect()
    }

    /// The session's cookies.
    pub fn session(&self) -> Vec<(String, String)> {
        let mut cookies = self.named("__Host-portcullis");
        cookies.retain(|(name, _)| !name.starts_with("__Host-portcullis-login"));
        cookies
    }

    /// Keeps cookies as browsers do: what breaks the rules of `__Host-` or is too long is not kept.
    fn keep(&mut self, host: &str, answer: &Answer) {
        for line in answer.set_cookies() {
            let mut parts = line.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
            let has = |wanted: &str| attributes.iter().any(|attribute| attribute == wanted);
            let domain = attributes.iter().any(|attribute| attribute.starts_with("domain"));
            if name.starts_with("__Host-") && (!has("secure") || !has("path=/") || domain)
                || line.len() > 4096
            {
                continue;
            }
            self.jar.retain(|(of, known, _)| of != host || known != name);
            let expired = has("max-age=0") || attributes.iter().any(|attribute| attribute.contains("1970"));
            if !expired {
                self.jar.push((host.to_owned(), name.to_owned(), value.to_owned()));
                if name.starts_with("__Host-portcullis") {
                    self.secrets.add(value);
                }
            }
        }
    }
}

/// The whole answer of a request, and the end of its connection: nothing of it is left that could keep the proxy
/// from ending while a test waits for that.
async fn finish(
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
    response: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
) -> hyper::Result<(http::response::Parts, Bytes)> {
    let (head, body) = response.await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let _ = connection.await;
    Ok((head, body))
}

/// A TLS connection for exact bytes.
#[derive(Debug)]
pub struct Raw {
    stream: TlsStream<TcpStream>,
    ahead: Vec<u8>,
}

impl Raw {
    /// Connects for HTTP/1.1, with the host as SNI.
    pub async fn connect(port: u16, host: &str) -> Self {
        Self::over(soon("TLS", connect(port, Some(host), &[b"http/1.1"])).await.expect("TLS"))
    }

    /// The same, with these bytes of a load balancer in front of the handshake.
    pub async fn behind(header: &[u8], port: u16, host: &str) -> std::io::Result<Self> {
        soon("TLS", connect_behind(header, port, Some(host), &[b"http/1.1"])).await.map(Self::over)
    }

    /// Over a connection that is there.
    pub fn over(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// One exchange on a connection of its own.
    pub async fn ask(port: u16, host: &str, request: impl AsRef<[u8]>) -> Answer {
        let mut raw = Self::connect(port, host).await;
        raw.send(request).await;
        raw.answer().await.expect("an answer")
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        // A refusal may come before the last byte was taken.
        let _ = soon("room to send", sent).await;
    }

    /// The next answer that is not an interim one; `None` when the connection ends before.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.any_answer().await?;
            if answer.status >= 200 || answer.status == 101 {
                return Some(answer);
            }
        }
    }

    /// The next answer, interim ones too.
    pub async fn any_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in head.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.trim().parse().unwrap());
        }
        let length =
            headers.get("content-length").map(|value| value.to_str().unwrap().parse::<usize>().unwrap());
        let chunked = headers.contains_key("transfer-encoding");
        let body = match length {
            _ if status < 200 || status == 204 || status == 304 => Vec::new(),
            Some(length) => self.take(length).await?,
            None if chunked => self.chunks().await?,
            None => self.rest().await,
        };
        Some(Answer { status, headers, body: body.into(), url: "(raw)".to_owned() })
    }

    /// Reads until the bytes read hold this text, and gives them.
    pub async fn until(&mut self, text: &str) -> Option<String> {
        loop {
            let seen = String::from_utf8_lossy(&self.ahead).into_owned();
            if seen.contains(text) {
                self.ahead.clear();
                return Some(seen);
            }
            self.more().await?;
        }
    }

    /// Reads until these bytes are among those read, and gives all.
    pub async fn until_bytes(&mut self, wanted: &[u8]) -> Option<Vec<u8>> {
        while !self.ahead.windows(wanted.len()).any(|window| window == wanted) {
            self.more().await?;
        }
        Some(std::mem::take(&mut self.ahead))
    }

    /// Everything until the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await.is_some() {}
        std::mem::take(&mut self.ahead)
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16_384];
        let count = soon("bytes from the proxy", self.stream.read(&mut buffer)).await.ok()?;
        self.ahead.extend_from_slice(&buffer[..count]);
        (count > 0).then_some(())
    }

    /// So many bytes.
    pub async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.more().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                match self.ahead.windows(2).position(|window| window == b"\r\n") {
                    Some(at) => break at,
                    None => self.more().await?,
                }
            };
            let line: Vec<u8> = self.take(at + 2).await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line[..at]).ok()?, 16).ok()?;
            body.extend(self.take(size).await?);
            self.take(2).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }
}

/// Connects to a port of loopback with this SNI and these protocols.
pub async fn connect(port: u16, sni: Option<&str>, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    connect_behind(b"", port, sni, alpn).await
}

/// The same, with these bytes in front of the handshake.
pub async fn connect_behind(
    header: &[u8],
    port: u16,
    sni: Option<&str>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(header).await?;
    connect_over(stream, sni, alpn).await
}

/// The same over a TCP connection that is there.
pub async fn connect_over(
    stream: TcpStream,
    sni: Option<&str>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = sni.is_some();
    let name = ServerName::try_from(sni.unwrap_or("localhost").to_owned()).unwrap();
    stream.set_nodelay(true)?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Trusts every certificate.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
