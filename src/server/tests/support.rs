//! A running server, a handler with a behaviour for each path, and raw clients.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::client::TlsStream;

use crate::server::{
    Call, Connection, ConnectionCounts, Event, Handler, Kind, Lifecycle, Limits, Listener, RequestBody,
    RunError, Stopped, Violation, bind, run,
};

/// How long each `/busy` takes.
const BUSY: Duration = Duration::from_millis(1);

/// Limits with which a test that waits for a timeout is quick, and one that doesn't is not cut short.
pub(super) fn limits() -> Limits {
    Limits { shutdown_delay: Duration::ZERO, drain: Duration::from_secs(10), workers: 2, ..Limits::default() }
}

/// What the handlers of all workers share with the test.
#[derive(Default)]
pub(super) struct Shared {
    /// Requests that reached a handler, by `METHOD target`, refused ones as `refused WHY`.
    pub(super) seen: Mutex<Vec<String>>,
    /// `/hold` answers when told to.
    pub(super) release: Notify,
    /// `/busy` has begun.
    pub(super) begun: Notify,
    pub(super) handlers: AtomicUsize,
    pub(super) events: Mutex<Vec<Event>>,
}

impl Shared {
    pub(super) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A server that runs until it is stopped or dropped.
pub(super) struct Server {
    pub(super) tls: SocketAddr,
    pub(super) plain: SocketAddr,
    pub(super) lifecycle: Lifecycle,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<ArcSwap<rustls::ServerConfig>>,
    pub(super) counts: ConnectionCounts,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<Result<Stopped, RunError>>,
}

impl Server {
    pub(super) async fn start(limits: Limits) -> Self {
        Self::start_behind(limits, None).await
    }

    /// Expects PROXY headers from these networks.
    pub(super) async fn start_behind(limits: Limits, balancers: Option<&str>) -> Self {
        let config = Arc::new(ArcSwap::from(server_config()));
        let source = config.clone();
        let balancers: Option<Arc<[IpNet]>> = balancers.map(|network| [network.parse().unwrap()].into());
        let address = Some("127.0.0.1".parse().unwrap());
        let listener = |kind| Listener { address, port: 0, kind, balancers: balancers.clone() };
        let tls = Kind::Tls(Arc::new(move || source.load_full()));
        let bound = bind(vec![listener(tls), listener(Kind::PublicOnly)]).unwrap();
        let addresses = bound.addresses();
        let (lifecycle, shared) = (Lifecycle::new(), Arc::new(Shared::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (theirs, events) = (shared.clone(), shared.clone());
        let counts = ConnectionCounts::new(limits.workers);
        let running = tokio::spawn(run(
            bound,
            limits,
            lifecycle.clone(),
            async {
                let _ = stopped.await;
            },
            Arc::new(move |event| events.events.lock().unwrap().push(event)),
            counts.clone(),
            move |_worker| {
                theirs.handlers.fetch_add(1, Ordering::SeqCst);
                Rc::new(Told(theirs.clone()))
            },
        ));
        let (tls, plain) = (addresses[0], addresses[1]);
        lifecycle.reached(crate::server::Phase::Serving).await;
        Self { tls, plain, lifecycle, shared, config, counts, stop: Some(stop), running }
    }

    /// Asks it to stop, as SIGTERM does.
    pub(super) fn stop(&mut self) {
        self.stop.take();
    }

    /// Waits for the end.
    pub(super) async fn ended(self) -> Stopped {
        within(self.running).await.unwrap().unwrap()
    }

    /// A TLS connection that offers `alpn`.
    pub(super) async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.tls).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client_config(alpn));
        connector.connect(ServerName::try_from("LocalHost").unwrap(), stream).await.unwrap()
    }

    /// A plain connection.
    pub(super) async fn connect_plain(&self) -> TcpStream {
        TcpStream::connect(self.plain).await.unwrap()
    }

    /// An HTTP/2 client.
    pub(super) async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect(b"h2").await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(executor).handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// The handler: behaves by path.
pub(super) struct Told(Arc<Shared>);

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Handler for Told {
    type Received = Option<RequestBody>;
    type Body = Body;

    async fn handle(
        self: Rc<Self>,
        request: &mut Request<Option<RequestBody>>,
        connection: Rc<Connection>,
        call: Call,
    ) -> Response<Body> {
        if let Some(violation) = Violation::of(request) {
            self.0.seen.lock().unwrap().push(format!("refused {violation:?}"));
            let mut response = Response::new(full(violation.to_string()));
            *response.status_mut() = violation.status();
            return response;
        }
        let target = request.uri().path_and_query().unwrap().to_string();
        self.0.seen.lock().unwrap().push(format!("{} {target}", request.method()));
        let body = request.body_mut().take().unwrap();
        match request.uri().path() {
            "/info" => Response::new(full(format!("{connection:?}"))),
            "/echo" => Response::new(body.map_err(Into::into).boxed_unsync()),
            "/length" => match body.collect().await {
                Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
                Err(_) => {
                    let mut response = Response::new(full(format!("{:?}", connection.body_violation())));
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            },
            // Answers before it looks at the body, which it does when told to.
            "/later" => {
                let shared = self.0.clone();
                tokio::task::spawn_local(async move {
                    shared.release.notified().await;
                    let body = body.collect().await.map(|body| body.to_bytes());
                    shared.seen.lock().unwrap().push(format!("later {:?}", body.ok()));
                });
                Response::new(full("ok"))
            }
            "/hold" => {
                self.0.release.notified().await;
                Response::new(full("released"))
            }
            // Takes the worker for a while.
            "/busy" => {
                self.0.begun.notify_one();
                let since = std::time::Instant::now();
                while since.elapsed() < BUSY {
                    std::hint::spin_loop();
                }
                Response::new(full("busy"))
            }
            "/hold-body" => {
                let shared = self.0.clone();
                let frames = futures_util::stream::unfold(0, move |at| {
                    let shared = shared.clone();
                    async move {
                        if at == 1 {
                            shared.release.notified().await;
                        }
                        (at < 2).then(|| (Ok(Frame::data(Bytes::from_static(b"part"))), at + 1))
                    }
                });
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            "/endless" => {
                let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                let frames = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            "/large" => Response::new(full(vec![b'x'; LARGE])),
            // Hints, and the answer at once or when told to.
            "/hints" | "/hints-hold" => {
                tokio::task::yield_now().await;
                let count = request.uri().query().map_or(1, |count| count.parse().unwrap());
                for at in 0..count {
                    let link = format!("</{at}.css>; rel=preload").parse().unwrap();
                    let headers = http::HeaderMap::from_iter([(http::header::LINK, link)]);
                    connection.inform(call, StatusCode::EARLY_HINTS, &headers);
                }
                if request.uri().path() == "/hints-hold" {
                    self.0.release.notified().await;
                }
                Response::new(full("hinted"))
            }
            "/last" => {
                connection.close_after_this_response();
                Response::new(full("last"))
            }
            "/up" => {
                let upgrade = hyper::upgrade::on(request);
                tokio::task::spawn_local(echo_tunnel(upgrade, connection));
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response
            }
            _ => Response::new(full("ok")),
        }
    }
}

/// Bytes of `/large`: more than sockets and buffers hold.
pub(super) const LARGE: usize = 8 * 1024 * 1024;

async fn echo_tunnel(upgrade: hyper::upgrade::OnUpgrade, connection: Rc<Connection>) {
    let tunnel = connection.tunnel();
    drop(connection);
    let mut io = TokioIo::new(upgrade.await.unwrap());
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            () = tunnel.closing() => {
                io.write_all(b"bye").await.unwrap();
                return io.shutdown().await.unwrap();
            }
            read = io.read(&mut buffer) => match read {
                Ok(more @ 1..) => io.write_all(&buffer[..more]).await.unwrap(),
                _ => return,
            }
        }
    }
}

/// Everything until the end; a reset counts as an end.
pub(super) async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` has come.
pub(super) async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(within(stream.read(&mut byte)).await.unwrap(), 1, "{:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends `request` and reads until the end of the connection.
pub(super) async fn exchange(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(request.as_ref()).await.unwrap();
    read_all(&mut stream).await
}

/// Statuses of the answers in `text`, in order.
pub(super) fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.").skip(1).map(|answer| answer[2..5].parse().unwrap()).collect()
}

/// What should not take long.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it took too long")
}

fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// A configuration with a fresh certificate.
pub(super) fn server_config() -> Arc<rustls::ServerConfig> {
    install_provider();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

pub(super) fn client_config(alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    install_provider();
    let mut config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// Trusts any certificate: these tests are about what comes after.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
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
