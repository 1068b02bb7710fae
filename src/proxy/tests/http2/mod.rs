//! Applications that speak HTTP/2, and those that only should.

mod calls;
mod connections;
mod endings;
mod faults;
mod streams;

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::*;

/// One call as the application sees it.
struct Call {
    /// The number of its connection.
    connection: usize,
    head: http::request::Parts,
    body: RecvStream,
    reply: SendResponse<Bytes>,
}

impl Call {
    /// Begins the answer.
    fn answer(&mut self, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        self.reply.send_response(response(fields), false).unwrap()
    }

    /// Answers whole.
    fn finish(&mut self, body: &'static str) {
        self.answer(&[]).send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    }

    /// The next bytes of the request; `None` at its end.
    async fn read(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let data = soon(self.body.data()).await?;
        if let Ok(data) = &data {
            self.body.flow_control().release_capacity(data.len()).unwrap();
        }
        Some(data)
    }

    /// The whole body of the request.
    async fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(data) = self.read().await {
            all.extend_from_slice(&data.unwrap());
        }
        all
    }

    /// Waits until the client has reset the stream.
    async fn reset(&mut self) -> Reason {
        soon(std::future::poll_fn(|cx| self.reply.poll_reset(cx))).await.unwrap()
    }
}

fn response(fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happens")
}

/// An application that serves every call with `serve`.
async fn calls<F, S>(serve: S) -> SocketAddr
where
    S: Fn(Call) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    calls_with(h2::server::Builder::new(), serve).await
}

async fn calls_with<F, S>(builder: h2::server::Builder, serve: S) -> SocketAddr
where
    S: Fn(Call) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let serve = Rc::new(serve);
    application(move |connection, stream| {
        let (serve, builder) = (serve.clone(), builder.clone());
        async move {
            let Ok(mut server) = builder.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok((request, reply))) = server.accept().await {
                let (head, body) = request.into_parts();
                tokio::task::spawn_local(serve(Call { connection, head, body, reply }));
            }
        }
    })
    .await
}

fn over_http2(address: SocketAddr) -> Config {
    Config { version: HttpVersion::Http2, ..config(tcp(address)) }
}

fn http2_forwarder(address: SocketAddr) -> Rc<Forwarder> {
    forwarder_with(&over_http2(address))
}

/// Impatient, also with connections.
fn hasty_http2(address: SocketAddr) -> Rc<Forwarder> {
    let config = Config { version: HttpVersion::Http2, ..hasty(tcp(address)) };
    let mut forwarder = Forwarder::new(&config, Connector::new(&config.upstream, config.version).unwrap());
    forwarder.links.as_mut().unwrap().hurry(SHORT, PATIENCE);
    Rc::new(forwarder)
}

fn post(target: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = request(Method::POST, target);
    *request.body_mut() = body.into();
    request
}

/// A call of a client of the front, over HTTP/2 and as it goes.
struct ClientCall {
    upload: SendStream<Bytes>,
    answer: h2::client::ResponseFuture,
}

impl ClientCall {
    async fn begin(front: &Front, fields: &[(&str, &str)]) -> Self {
        Self::begin_at(front, "/", fields).await
    }

    async fn begin_at(front: &Front, target: &str, fields: &[(&str, &str)]) -> Self {
        let (sender, connection) = h2::client::handshake(front.connect().await).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut sender = sender.ready().await.unwrap();
        let mut request = Request::builder().method("POST").uri(format!("http://app.example{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (answer, upload) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        Self { upload, answer }
    }

    async fn response(&mut self) -> Response<RecvStream> {
        soon(&mut self.answer).await.unwrap()
    }

    fn send(&mut self, text: &'static str, end: bool) {
        self.upload.send_data(Bytes::from_static(text.as_bytes()), end).unwrap();
    }
}

async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon(body.data()).await?;
    if let Ok(data) = &data {
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    Some(data)
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
}
