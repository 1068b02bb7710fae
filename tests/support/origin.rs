//! One application over every version and transport that `upstream` can name, so that what differs between two rows
//! of a table is what was on the wire and nothing else.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::soon;

/// What `document` is.
pub const DOCUMENT: &str = "0123456789";

/// The body of everything that can end badly.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The application. The last segment of a path is what it does:
///
/// - `document`: [`DOCUMENT`] with an ETag, in whole, in part, or only as a head; `empty`: 204
/// - `echo`: every frame of the request as it comes, trailers too; `count`: the length of the body, once it is there
/// - `held`, `sse`: a part, and the rest after [`Origin::go`]; `cut`, `cut-chunked`: a part, and after that no end
/// - `silent`: no answer; `stalled`: a part of one; both until the client is gone
/// - `tunnel`: 101 to what is asked for, if anything is; then `hi `, what is said, and at its end ` bye`
#[derive(Debug)]
pub struct Origin {
    /// The value for `upstream`.
    pub upstream: String,
    /// Who vouches for its certificate, in PEM. Only with TLS.
    pub authority: Option<String>,
    shared: Arc<Shared>,
    server: AbortHandle,
    _directory: TempDir,
}

#[derive(Debug, Default)]
struct Shared {
    go: Notify,
    begun: watch::Sender<usize>,
    gone: watch::Sender<usize>,
    uploaded: watch::Sender<usize>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

impl Origin {
    /// Starts one for a scheme of `upstream`.
    pub async fn start(scheme: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shared = Arc::<Shared>::default();
        let is_http2 = scheme.starts_with("h2");
        let (theirs, accepted) = (shared.clone(), move |io: Box<dyn Io>, shared: Arc<Shared>| async move {
            let answer = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            let io = TokioIo::new(io);
            let _ = if is_http2 {
                http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await
            } else {
                http1::Builder::new().serve_connection(io, answer).with_upgrades().await
            };
        });
        let mut connections = JoinSet::new();
        if scheme.ends_with("unix") {
            let path = directory.path().join("app.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let server = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(accepted(Box::new(stream), theirs.clone()));
                }
            });
            let upstream = format!("{scheme}:{}", path.display());
            return Self {
                upstream,
                authority: None,
                shared,
                server: server.abort_handle(),
                _directory: directory,
            };
        }
        let (authority, acceptor) = match scheme {
            "https" => tls(b"http/1.1"),
            "h2" => tls(b"h2"),
            _ => (None, None),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (acceptor, shared) = (acceptor.clone(), theirs.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => accepted(Box::new(stream), shared).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            accepted(Box::new(stream), shared).await;
                        }
                    }
                });
            }
        });
        let upstream = format!("{scheme}://localhost:{port}");
        Self { upstream, authority, shared, server: server.abort_handle(), _directory: directory }
    }

    /// Lets one answer that is held go on.
    pub fn go(&self) {
        self.shared.go.notify_one();
    }

    /// How many exchanges have begun that only the client will end, and how many of them it has ended.
    pub fn waiting(&self) -> (usize, usize) {
        (*self.shared.begun.borrow(), *self.shared.gone.borrow())
    }

    /// Waits until that many have begun.
    pub async fn begun(&self, count: usize) {
        let mut begun = self.shared.begun.subscribe();
        soon("the request at the app", begun.wait_for(|begun| *begun >= count)).await.unwrap();
    }

    /// Waits until the client has ended that many.
    pub async fn gone(&self, count: usize) {
        let mut gone = self.shared.gone.subscribe();
        soon("the end of the exchange at the app", gone.wait_for(|gone| *gone >= count)).await.unwrap();
    }

    /// Waits until the body that is being counted is exactly that long.
    pub async fn uploaded(&self, length: usize) {
        let mut uploaded = self.shared.uploaded.subscribe();
        soon("the upload at the app", uploaded.wait_for(|uploaded| *uploaded == length)).await.unwrap();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A certificate for `localhost`, and a server that has it and speaks this.
fn tls(protocol: &[u8]) -> (Option<String>, Option<TlsAcceptor>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    (Some(certificate.pem()), Some(TlsAcceptor::from(Arc::new(config))))
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "document" => document(&request),
            "empty" => answer(204, whole("")),
            "echo" => {
                let mut answer = answer(200, request.into_body().map_err(io::Error::other).boxed_unsync());
                answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
                answer
            }
            "count" => {
                let mut frames = BodyStream::new(request.into_body());
                self.uploaded.send_replace(0);
                while let Some(Ok(frame)) = frames.next().await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    self.uploaded.send_modify(|uploaded| *uploaded += length);
                }
                answer(200, whole(&self.uploaded.borrow().to_string()))
            }
            "held" => answer(200, self.parts("first part, ", Ok("second part"))),
            "sse" => {
                let mut answer = answer(200, self.parts("data: first\n\n", Ok("data: second\n\n")));
                let kind = HeaderValue::from_static("text/event-stream");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            "cut-chunked" => answer(200, self.parts("only this", Err(io::Error::other("cut")))),
            "cut" => {
                let mut answer = answer(200, self.parts("only this", Err(io::Error::other("cut"))));
                answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(1_000));
                answer
            }
            "silent" => {
                let _until = Gone::new(self);
                std::future::pending().await
            }
            "stalled" => {
                let until = Gone::new(self);
                let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"only this")))]);
                answer(
                    200,
                    body(first.chain(stream::pending()).inspect(move |_| {
                        let _held = &until;
                    })),
                )
            }
            "tunnel" => tunnel(request),
            _ => answer(404, whole("no such thing")),
        }
    }

    /// A part, and after leave to go on the rest or what is wrong.
    fn parts(self: Arc<Self>, first: &'static str, rest: Result<&'static str, io::Error>) -> Body {
        let frame = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
        let rest = stream::once(async move {
            self.go.notified().await;
            rest.map(frame)
        });
        body(stream::iter([Ok(frame(first))]).chain(rest))
    }
}

/// An exchange that the client ends.
struct Gone(Arc<Shared>);

impl Gone {
    fn new(shared: Arc<Shared>) -> Self {
        shared.begun.send_modify(|count| *count += 1);
        Self(shared)
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.send_modify(|count| *count += 1);
    }
}

fn body(frames: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static) -> Body {
    StreamBody::new(frames).boxed_unsync()
}

/// A body of this text.
pub fn whole(text: &str) -> Body {
    Full::from(text.to_owned()).map_err(|never| match never {}).boxed_unsync()
}

fn answer(status: u16, body: Body) -> Response<Body> {
    Response::builder().status(status).header("x-app", "yes").body(body).unwrap()
}

fn document(request: &Request<Incoming>) -> Response<Body> {
    let has = |name| request.headers().contains_key(name);
    let mut answer = match request.method() {
        _ if has(header::IF_NONE_MATCH) => answer(304, whole("")),
        &Method::HEAD => answer(200, whole("")),
        _ if has(header::RANGE) => answer(206, whole(&DOCUMENT[2..5])),
        _ => answer(200, whole(DOCUMENT)),
    };
    let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
    let fields = answer.headers_mut();
    fields.insert(header::ETAG, HeaderValue::from_static("\"1\""));
    if is_part {
        fields.insert(header::CONTENT_RANGE, HeaderValue::from_static("bytes 2-4/10"));
    } else {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(DOCUMENT.len()));
    }
    answer
}

fn tunnel(mut request: Request<Incoming>) -> Response<Body> {
    let Some(wish) = request.headers().get(header::UPGRADE).cloned() else {
        return answer(200, whole("no tunnel"));
    };
    let mut answer = answer(101, whole(""));
    let fields = answer.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, wish);
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.map_err(io::Error::other)?);
        io.write_all(b"hi ").await?;
        let mut buffer = [0; 1024];
        loop {
            let count = io.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            io.write_all(&buffer[..count]).await?;
            io.flush().await?;
        }
        io.write_all(b" bye").await?;
        io.shutdown().await
    });
    answer
}
