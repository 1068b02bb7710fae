//! The application behind the proxy. The last segment of the path says what it does.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A part of a large answer, and how many there are: more than anybody waits for.
const PART: usize = 64 * 1024;
const PARTS: usize = 1 << 20;

/// What the system may hold of a connection, in each direction.
const BUFFER: u32 = 64 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The pause of who takes an upload slowly, after each part.
const PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
}

/// Listens until the process is ended: for HTTP/1.1 on the one port, for HTTP/2 without TLS on the other.
pub async fn serve(port: u16, http2_port: u16) {
    tokio::join!(listen(port, Spoken::Http1), listen(http2_port, Spoken::Http2));
}

async fn listen(port: u16, spoken: Spoken) {
    let socket = TcpSocket::new_v4().unwrap();
    // Accepted connections inherit both: what the system holds for a connection is no part of what is measured.
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    let listener = socket.listen(BACKLOG).unwrap();
    loop {
        // Out of descriptors, perhaps: others will go.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Whoever attacks the proxy leaves in the middle of things, which is an error for hyper.
        tokio::spawn(async move {
            let (io, service) = (TokioIo::new(stream), service_fn(answer));
            if spoken == Spoken::Http2 {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection(io, service).await);
            } else {
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                drop(connection.with_upgrades().await);
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.rsplit('/').next().unwrap_or_default() {
        "large" => Response::new(large()),
        "page" => Response::new(Full::from(Bytes::from_static(&[b'x'; PART])).boxed_unsync()),
        "sink" => {
            let mut body = request.into_body();
            let mut total = 0;
            while let Some(Ok(frame)) = body.frame().await {
                total += frame.data_ref().map_or(0, Bytes::len);
            }
            text(total.to_string())
        }
        "slow" => {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {
                tokio::time::sleep(PAUSE).await;
            }
            text("slow".to_owned())
        }
        "deaf" => {
            let _unread = request.into_body();
            std::future::pending().await
        }
        "ws-sink" => websocket(request, false),
        "ws-source" => websocket(request, true),
        _ => text(path),
    })
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::from(text).boxed_unsync())
}

fn large() -> Body {
    let part = Bytes::from_static(&[b'x'; PART]);
    let parts = futures_util::stream::iter((0..PARTS).map(move |_| Ok(Frame::data(part.clone()))));
    StreamBody::new(parts).boxed_unsync()
}

/// Takes all that comes, and, if it `talks`, sends as much as is taken.
fn websocket(mut request: Request<Incoming>, talks: bool) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return text("no WebSocket".to_owned());
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let mut buffer = vec![0; PART];
        if talks {
            // A binary message of 125 bytes, again and again.
            let frames = [&[0x82, 125][..], &[b'x'; 125]].concat().repeat(500);
            while writer.write_all(&frames).await.is_ok() {}
        } else {
            while let Ok(1..) = reader.read(&mut buffer).await {}
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(Body::default())
        .unwrap()
}
