//! The proxy on real sockets: applications that behave and that don't, and clients that do the same.

mod bodies;
mod faults;
mod headers;
mod http2;
mod reuse;
mod sessions;
mod stalls;
mod transports;
mod upgrades;
mod websocket;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::path::{self, NormalPath};
use crate::web::Body;
use crate::web::body::{End, PeerBody};

/// Longest that any test may wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Timeouts under test are this short, so that tests can wait for them.
const SHORT: Duration = Duration::from_millis(150);

/// Runs a test as a worker would.
fn worker<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(4 * PATIENCE, test).await.expect("the test took too long")
    })
}

/// An application: `serve` is called with each connection and its number.
async fn application<F, S>(serve: S) -> SocketAddr
where
    S: Fn(usize, TcpStream) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut number = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(number, stream));
            number += 1;
        }
    });
    address
}

/// An application that answers every request on every connection with the same bytes, and what it read.
async fn canned(answer: &'static str) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let heads = Rc::new(RefCell::new(Vec::new()));
    let seen = heads.clone();
    let address = application(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                seen.borrow_mut().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, heads)
}

/// Reads up to the empty line. `None`: the connection ended before.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.extend_from_slice(&byte),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Everything until the connection ends, by FIN or RST.
async fn read_rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection stays open");
    all
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn config(upstream: Upstream) -> Config {
    Config {
        upstream,
        version: HttpVersion::Http1,
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        body_idle_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        mapped_headers: vec![HeaderName::from_static("x-user"), HeaderName::from_static("x_groups")],
        own_cookies: vec!["__Host-portcullis".to_owned(), "__Host-portcullis-login".to_owned()],
    }
}

/// With timeouts that a test can wait for.
fn hasty(upstream: Upstream) -> Config {
    Config { connect_timeout: SHORT, response_timeout: SHORT, body_idle_timeout: SHORT, ..config(upstream) }
}

fn tcp(address: SocketAddr) -> Upstream {
    Upstream::Tcp { host: address.ip().to_string(), port: address.port() }
}

fn forwarder_with(config: &Config) -> Rc<Forwarder> {
    Rc::new(Forwarder::new(config, Connector::new(&config.upstream, config.version).unwrap()))
}

fn forwarder(address: SocketAddr) -> Rc<Forwarder> {
    forwarder_with(&config(tcp(address)))
}

fn client() -> ClientInfo<'static> {
    ClientInfo {
        address: "192.0.2.7".parse().unwrap(),
        scheme: "https",
        host: "app.example:8443",
        port: 8443,
    }
}

fn terms() -> Terms<'static> {
    static USUAL: LazyLock<Client> = LazyLock::new(|| Client::new(&client()));
    Terms {
        client: &USUAL,
        request_id: "req-1",
        identity: None,
        cookie: CookieHeader::Unchanged,
        inform: None,
        private: false,
        observer: None,
        ends_at: None,
        lifeline: None,
    }
}

fn request(method: Method, target: &str) -> Request<Body> {
    Request::builder().method(method).uri(target).body(Body::Empty).unwrap()
}

async fn send(forwarder: &Forwarder, mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let path = NormalPath::parse(&path, &path::Options::default()).unwrap();
    forwarder.send(&mut request, &path, terms()).await
}

async fn get(forwarder: &Forwarder, target: &str) -> Result<Response<Body>, Error> {
    send(forwarder, request(Method::GET, target)).await
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What an exchange reported.
#[derive(Default)]
struct Tally {
    received: Cell<usize>,
    sent: Cell<usize>,
    ends: RefCell<Vec<End>>,
}

impl Observer for Tally {
    fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes);
    }

    fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes);
    }

    fn ended(&self, end: End) {
        self.ends.borrow_mut().push(end);
    }
}

impl Tally {
    /// Waits for the end of the exchange.
    async fn end(&self) -> End {
        tokio::time::timeout(PATIENCE, async {
            while self.ends.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the exchange never ended");
        assert_eq!(self.ends.borrow().len(), 1, "an exchange ends once");
        self.ends.borrow()[0]
    }
}

/// The proxy as clients see it, over plain HTTP/1.1 and HTTP/2, with a tally over all requests.
struct Front {
    address: SocketAddr,
    tally: Rc<Tally>,
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// Runs hyper's tasks where they are made.
#[derive(Clone)]
struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn front(protocol: Protocol, forwarder: Rc<Forwarder>) -> Front {
    front_until(protocol, forwarder, None).await
}

async fn front_until(protocol: Protocol, forwarder: Rc<Forwarder>, ends_at: Option<Instant>) -> Front {
    front_bound(protocol, forwarder, ends_at, None).await
}

async fn front_bound(
    protocol: Protocol,
    forwarder: Rc<Forwarder>,
    ends_at: Option<Instant>,
    lifeline: Option<Rc<Lifeline>>,
) -> Front {
    let tally = Rc::new(Tally::default());
    let observer = tally.clone();
    let address = application(move |_, stream| {
        let (forwarder, tally, lifeline) = (forwarder.clone(), observer.clone(), lifeline.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (forwarder, observer) = (forwarder.clone(), tally.clone());
            let lifeline = lifeline.clone();
            async move {
                let path = request.uri().path_and_query().unwrap().as_str().to_owned();
                let path = NormalPath::parse(&path, &path::Options::default()).unwrap();
                let terms = Terms { observer: Some(observer), ends_at, lifeline, ..terms() };
                let answer = forwarder.send(&mut request.map(received), &path, terms).await;
                Ok::<_, std::convert::Infallible>(answer.unwrap_or_else(|error| {
                    let body = Body::from(error.to_string());
                    Response::builder().status(error.status()).body(body).unwrap()
                }))
            }
        });
        async move {
            let io = TokioIo::new(stream);
            // Errors of the connection are the client's to notice.
            let _ = match protocol {
                Protocol::Http1 => {
                    let http1 = hyper::server::conn::http1::Builder::new();
                    http1.serve_connection(io, service).with_upgrades().await
                }
                Protocol::Http2 => {
                    let mut http2 = hyper::server::conn::http2::Builder::new(Here);
                    http2.max_header_list_size(128 * 1024);
                    http2.serve_connection(io, service).await
                }
            };
        }
    })
    .await;
    Front { address, tally }
}

impl Front {
    /// A raw client connection.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to raw bytes: head, and body of `Content-Length` or up to the end.
    async fn raw(&self, bytes: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.expect("an answer");
        let rest = read_rest(&mut stream).await;
        (head, rest)
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = hyper::client::conn::http2::handshake(Here, io).await.unwrap();
        tokio::task::spawn_local(connection);
        sender
    }
}

/// The body of a request as the forwarder gets it.
fn received(incoming: Incoming) -> Body {
    if incoming.is_end_stream() { Body::Empty } else { Body::Peer(Box::new(PeerBody::new(incoming, None))) }
}
