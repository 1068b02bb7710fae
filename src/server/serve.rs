//! One accepted socket, from its handshake to its end: puts stream, front, hyper, service and driver together.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::calls::Calls;
use super::connection::{Connection, Informed, Place, Protocol};
use super::drive::{Conversation, Driver, Patience};
use super::front::{Bounds, Front, Violation, Wire};
use super::handshake::{HandshakeError, Shaken, Stream, shake};
use super::limits::Limits;
use super::park::Http1;
use super::reply::StreamExecutor;
use super::roster::Activity;
use super::turns::{Paced, Turns};
use super::worker::{Port, Worker};
use super::{Event, Handler};

/// Serves one connection to its end.
pub(super) async fn serve<H: Handler>(
    worker: Rc<Worker<H>>,
    port: Rc<Port>,
    (stream, peer): (TcpStream, SocketAddr),
    (activity, place): (Rc<Activity>, Place),
) {
    // Boxed, like HTTP/2 below: the task of an idle connection would keep room for it.
    let shaken = Box::pin(async {
        tokio::select! {
            biased;
            shaken = shake(stream, peer, &port, worker.limits.handshake_timeout) => shaken,
            // A crowd that says nothing would keep everybody else out for as long as a handshake may take.
            () = activity.must_make_room() => Err(HandshakeError::Silent),
        }
    })
    .await;
    let shaken = match shaken {
        Ok(shaken) => shaken,
        Err(HandshakeError::Silent) => return,
        Err(error) => {
            let listener = port.index;
            return worker.report(|| Event::HandshakeFailed { peer, listener, reason: error.to_string() });
        }
    };
    activity.touch();
    let Shaken { mut stream, client, protocol, sni, is_misdirected } = shaken;
    stream.limit_unsent(unsent(worker.open_connections()));
    let (wire, interim) = (Arc::new(Wire::default()), Informed::new(protocol));
    let is_tls = stream.is_tls();
    let bounds = bounds(&worker.limits, is_tls);
    let front = match &interim {
        _ if is_misdirected => Front::refused(stream, wire.clone(), Violation::PlainText),
        Informed::Http1(interim) => Front::http1(stream, wire.clone(), interim.clone(), bounds),
        Informed::Http2(interim) => Front::http2(stream, wire.clone(), interim.clone()),
    };
    let driver = Driver {
        wire: wire.clone(),
        activity: activity.clone(),
        protocol,
        patience: Patience::of(&worker.limits),
    };
    let connection = Rc::new(Connection {
        peer: SocketAddr::new(client.ip().to_canonical(), client.port()),
        local_port: port.number,
        listener: port.index,
        kind: port.kind.clone(),
        sni,
        is_tls,
        protocol,
        memory: RefCell::new(None),
        wire,
        interim,
        activity,
        lifecycle: worker.lifecycle.clone(),
        last_answer: Cell::new(false),
        _place: place,
    });
    let handler = worker.handler.clone();
    match protocol {
        Protocol::Http1 => {
            let calls = Calls { handler, connection, bounds, streams: None };
            driver.run(pin!(Http1::new(worker, front, calls))).await;
        }
        Protocol::Http2 => {
            let calls = Calls { handler, connection, bounds, streams: None };
            driver.run(begin_http2(&worker, front, calls).as_mut()).await;
        }
    }
}

/// HTTP/2 on a connection of which nothing has been read.
fn begin_http2<H: Handler>(
    worker: &Worker<H>,
    front: Front<Stream>,
    calls: Calls<H>,
) -> Pin<Box<Paced<Http2<H>>>> {
    let turns = Rc::new(Turns::new(worker.crowd.clone(), calls.connection.activity.clone()));
    let streams = StreamExecutor::new(turns.clone(), worker.limits.body_idle_timeout);
    let builder = http2(&worker.limits, streams.clone(), upload_window(worker.open_connections()));
    let calls = Calls { streams: Some(streams), ..calls };
    Box::pin(Paced { conversation: builder.serve_connection(TokioIo::new(front), calls), turns })
}

/// HTTP/1 as hyper is to speak it. Times, sizes and syntax are the front's and the driver's.
pub(super) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(BUFFER_BYTES.max(limits.header_bytes * 2));
    if limits.header_fields > HYPER_FIELDS {
        // Only then: it moves hyper's field table to the heap.
        builder.max_headers(limits.header_fields);
    }
    builder
}

/// Twice what a request may have: what lies between reaches us whole and gets an answer that says so. More than
/// this ends the connection, without an answer.
fn header_list_bytes(limits: &Limits) -> u32 {
    u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// HTTP/2 as hyper is to speak it.
fn http2(limits: &Limits, streams: StreamExecutor, window: u32) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(header_list_bytes(limits))
        .initial_stream_window_size(window / 2)
        .initial_connection_window_size(window)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(MOST_LOCAL_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Bytes that TLS may have encrypted for a new connection and that its client has not taken.
fn unsent(open_connections: usize) -> usize {
    (UNSENT / open_connections.max(1)).clamp(LEAST_UNSENT, MOST_UNSENT)
}

/// Bytes of all uploads of a new connection that its client may be ahead of the application; each of them has half of
/// it. The more connections there are, the less, so that all of them together stay within bounds.
fn upload_window(open_connections: usize) -> u32 {
    let share = UPLOADS_AHEAD / open_connections.max(1);
    u32::try_from(share).unwrap_or(MOST_AHEAD).clamp(LEAST_AHEAD, MOST_AHEAD)
}

fn bounds(limits: &Limits, is_tls: bool) -> Bounds {
    Bounds {
        head_bytes: limits.header_bytes,
        fields: limits.header_fields,
        target_bytes: limits.target_bytes,
        scheme: if is_tls { "https" } else { "http" },
    }
}

type Http2<H> = http2::Connection<TokioIo<Front<Stream>>, Calls<H>, StreamExecutor>;

impl<H: Handler> Conversation for Http2<H> {
    fn wind_up(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Most bytes that hyper buffers of an HTTP/1 connection, in each direction.
const BUFFER_BYTES: usize = 128 * 1024;

/// The fields that hyper makes room for without being told.
const HYPER_FIELDS: usize = 100;

/// What may be encrypted and unsent over all connections, as long as each has [`LEAST_UNSENT`].
const UNSENT: usize = 16 * 1024 * 1024;
/// The most for one: what rustls takes by itself.
const MOST_UNSENT: usize = 64 * 1024;
/// The least: one record of TLS.
const LEAST_UNSENT: usize = 16 * 1024;

/// What uploads of HTTP/2 may be ahead of the application over all connections, as long as each has [`LEAST_AHEAD`].
const UPLOADS_AHEAD: usize = 32 * 1024 * 1024;
/// The largest window of a connection.
const MOST_AHEAD: u32 = 1024 * 1024;
/// The smallest: what RFC 9113 section 6.9.2 begins with.
const LEAST_AHEAD: u32 = 64 * 1024;

/// Bytes of one download that the application may be ahead of the client.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams of one connection that we may reset for errors of the client before that is the end of it.
const MOST_LOCAL_RESETS: usize = 256;

/// How often an HTTP/2 client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
