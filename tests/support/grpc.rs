//! An application that speaks gRPC, and a client for it: HTTP/2 as it is on the wire (the gRPC protocol over
//! HTTP/2), without a library that could be lenient.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::client::connect;
use super::ports::free_port;
use super::soon;

/// The application. The last segment of a path is the method:
///
/// - `Unary`, `Collect`: all messages of the request, joined; `Count`: as many messages as the request's says
/// - `Echo`: each message as it comes; `Fail`: no message, and an error in trailers alone
/// - `Half`: one message, then a reset; `Silent`: nothing, until the client goes away
#[derive(Debug)]
pub struct GrpcApp {
    pub port: u16,
    seen: Arc<Seen>,
    server: AbortHandle,
}

#[derive(Debug, Default)]
struct Seen {
    heads: watch::Sender<Vec<http::request::Parts>>,
    connections: watch::Sender<usize>,
    resets: watch::Sender<Vec<Reason>>,
    trailers: watch::Sender<Vec<HeaderMap>>,
}

impl GrpcApp {
    /// Starts to listen, without TLS.
    pub async fn start() -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = shared.clone();
                connections.spawn(async move {
                    seen.connections.send_modify(|count| *count += 1);
                    let Ok(mut server) = h2::server::handshake(stream).await else { return };
                    let mut calls = JoinSet::new();
                    while let Some(Ok((request, reply))) = server.accept().await {
                        let seen = seen.clone();
                        calls.spawn(async move { seen.serve(request, reply).await });
                    }
                });
            }
        });
        Self { port, seen, server: server.abort_handle() }
    }

    /// The head of the last call.
    pub fn last(&self) -> http::request::Parts {
        self.seen.heads.borrow().last().expect("the app got a call").clone()
    }

    /// How many calls came.
    pub fn count(&self) -> usize {
        self.seen.heads.borrow().len()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.seen.connections.borrow()
    }

    /// Waits until that many calls have come.
    pub async fn wait_for(&self, count: usize) {
        let mut heads = self.seen.heads.subscribe();
        soon("a call at the app", heads.wait_for(|heads| heads.len() >= count)).await.unwrap();
    }

    /// Waits until that many streams were reset, and gives the reasons.
    pub async fn resets(&self, count: usize) -> Vec<Reason> {
        let mut resets = self.seen.resets.subscribe();
        soon("a reset at the app", resets.wait_for(|resets| resets.len() >= count)).await.unwrap().clone()
    }

    /// The trailers of the last call that had some.
    pub fn trailers(&self) -> HeaderMap {
        self.seen.trailers.borrow().last().cloned().unwrap_or_default()
    }
}

impl Drop for GrpcApp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Seen {
    async fn serve(&self, request: Request<RecvStream>, mut reply: SendResponse<Bytes>) -> Option<()> {
        let (head, body) = request.into_parts();
        let method = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        self.heads.send_modify(|heads| heads.push(head));
        let mut messages = Messages::new(body);
        if method == "Fail" {
            let fields = [("grpc-status", "5"), ("grpc-message", "Stra%C3%9Fe nicht gefunden")];
            return reply.send_response(answer(&fields), true).map(drop).ok();
        }
        if method == "Silent" {
            let reason = std::future::poll_fn(|cx| reply.poll_reset(cx)).await.ok()?;
            self.resets.send_modify(|resets| resets.push(reason));
            return None;
        }
        let mut stream = reply.send_response(answer(&[("x-head", "1")]), false).ok()?;
        match method.as_str() {
            "Echo" => {
                while let Some(message) = messages.next().await {
                    send(&mut stream, &message).await?;
                }
            }
            "Count" => {
                let count: usize = String::from_utf8(messages.next().await?.to_vec()).ok()?.parse().ok()?;
                for number in 0..count {
                    send(&mut stream, number.to_string().as_bytes()).await?;
                }
            }
            "Half" => {
                send(&mut stream, b"half").await?;
                // The client says that it has it.
                messages.next().await;
                stream.send_reset(Reason::INTERNAL_ERROR);
                return None;
            }
            _ => {
                let mut all = BytesMut::new();
                while let Some(message) = messages.next().await {
                    all.extend_from_slice(&message);
                }
                send(&mut stream, &all).await?;
            }
        }
        while messages.next().await.is_some() {}
        if let Ok(Some(trailers)) = messages.body.trailers().await {
            self.trailers.send_modify(|all| all.push(trailers));
        }
        stream.send_trailers(fields(&[("grpc-status", "0"), ("x-sum", "7"), ("set-cookie", "a=b")])).ok()
    }
}

fn answer(extra: &[(&'static str, &'static str)]) -> Response<()> {
    let mut answer = Response::new(());
    *answer.headers_mut() = fields(extra);
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    answer
}

/// Fields of a head or of trailers.
pub fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

/// Sends one message: a flag, a length and the message itself.
async fn send(stream: &mut SendStream<Bytes>, message: &[u8]) -> Option<()> {
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
    framed.extend_from_slice(message);
    let mut left = framed.freeze();
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        if stream.capacity() == 0 {
            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        }
        let room = stream.capacity().min(left.len());
        stream.send_data(left.split_to(room), false).ok()?;
    }
    Some(())
}

/// The messages of a body.
#[derive(Debug)]
pub struct Messages {
    body: RecvStream,
    ahead: BytesMut,
    /// How the body ended, if not well.
    pub error: Option<h2::Error>,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        Self { body, ahead: BytesMut::new(), error: None }
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = self.ahead.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.ahead.len() >= 5 + length {
                    self.ahead.advance(5);
                    return Some(self.ahead.split_to(length).freeze());
                }
            }
            match soon("a message", self.body.data()).await? {
                Ok(data) => {
                    self.body.flow_control().release_capacity(data.len()).unwrap();
                    self.ahead.extend_from_slice(&data);
                }
                Err(error) => {
                    self.error = Some(error);
                    return None;
                }
            }
        }
    }

    /// The trailers, once there are no more messages.
    pub async fn trailers(&mut self) -> HeaderMap {
        soon("trailers", self.body.trailers()).await.unwrap().unwrap_or_default()
    }
}

/// A channel to the proxy, by TLS.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Bytes>,
    authority: String,
    cookie: String,
}

impl Channel {
    /// Connects to a port of loopback as `host`, with the cookies of a session.
    pub async fn connect(port: u16, host: &str, cookie: String) -> Self {
        let stream = soon("TLS", connect(port, Some(host), &[b"h2"])).await.unwrap();
        // Libraries of gRPC have no such bound on small messages that nobody has read yet.
        let mut builder = h2::client::Builder::new();
        let (sender, connection) = builder.data_frame_budget(1 << 20).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender, authority: format!("{host}:{port}"), cookie }
    }

    /// Begins a call.
    pub async fn call(&self, path: &str, extra: &[(&str, &str)]) -> ClientCall {
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("https://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !self.cookie.is_empty() {
            request = request.header("cookie", &self.cookie);
        }
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        let mut sender = soon("a stream", self.sender.clone().ready()).await.unwrap();
        let (answer, upload) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        ClientCall { upload, answer }
    }
}

/// A call of the client.
pub struct ClientCall {
    pub upload: SendStream<Bytes>,
    answer: ResponseFuture,
}

impl ClientCall {
    /// Sends a message.
    pub async fn send(&mut self, message: &str) {
        soon("room for a message", send(&mut self.upload, message.as_bytes()))
            .await
            .expect("the call is open");
    }

    /// Says that there will be no more messages.
    pub fn end(&mut self) {
        self.upload.send_data(Bytes::new(), true).unwrap();
    }

    /// The head and the messages of the answer.
    pub async fn answer(&mut self) -> (http::response::Parts, Messages) {
        let (head, body) = soon("an answer", &mut self.answer).await.unwrap().into_parts();
        (head, Messages::new(body))
    }
}
