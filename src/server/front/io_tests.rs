//! The front before the real hyper: what the service behind both of them gets to see.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::Violation as V;
use super::super::framing::tests::{BOUNDS, feed};
use super::*;

/// One call of the service.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request { line: String, body: Result<Vec<u8>, ()> },
    Refused(Violation),
}

fn request(line: &str, body: &[u8]) -> Seen {
    Seen::Request { line: line.to_owned(), body: Ok(body.to_owned()) }
}

fn broken(line: &str) -> Seen {
    Seen::Request { line: line.to_owned(), body: Err(()) }
}

/// Never asked for here: only a connection that is parked, or whose upload is held back, is.
impl Arrivals for DuplexStream {
    fn poll_arrival(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Pending
    }

    fn has_left(&self, _: bool) -> bool {
        false
    }

    fn reset_when_dropped(&self, _: bool) {}
}

struct Client {
    stream: DuplexStream,
    wire: Arc<Wire>,
    seen: Rc<RefCell<Vec<Seen>>>,
}

/// A client before front and hyper, whose service reads each body and answers 200 (or 101 for `/up`).
fn connect() -> Client {
    let (stream, server) = tokio::io::duplex(64 * 1024);
    let wire = Arc::new(Wire::default());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (their_wire, their_seen, calls) = (wire.clone(), seen.clone(), Rc::new(Cell::new(0)));
    let front = Front::http1(server, wire.clone(), Arc::default(), BOUNDS);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        calls.set(calls.get() + 1);
        let (call, wire, seen) = (calls.get(), their_wire.clone(), their_seen.clone());
        async move {
            let mut response = http::Response::new(Full::new(Bytes::from_static(b"ok")));
            if let Some(violation) = wire.refusal_of(call) {
                seen.borrow_mut().push(Seen::Refused(violation));
                *response.status_mut() = violation.status();
            } else {
                let line = format!("{} {}", request.method(), request.uri());
                if line == "GET /up" {
                    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                }
                let body = request.into_body().collect().await;
                let body = body.map(|body| body.to_bytes().to_vec()).map_err(|_| ());
                seen.borrow_mut().push(Seen::Request { line, body });
            }
            wire.answered(call, response.status() == http::StatusCode::SWITCHING_PROTOCOLS);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(front), service);
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    Client { stream, wire, seen }
}

/// Runs `test` on a runtime without any I/O of the system: all that happens is tasks waking tasks.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(test))
}

/// Sends `pieces`, each once everything before it has been dealt with, and says what the service saw.
fn seen<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, String) {
    run(async {
        let mut client = connect();
        for piece in pieces {
            if client.stream.write_all(piece).await.is_err() {
                break;
            }
            settle().await;
        }
        let mut answers = vec![0; 64 * 1024];
        let mut have = 0;
        while let Some(Ok(more @ 1..)) = client.stream.read(&mut answers[have..]).now_or_never() {
            have += more;
            settle().await;
        }
        let answers = String::from_utf8_lossy(&answers[..have]).into_owned();
        (client.seen.take(), answers)
    })
}

/// Lets all tasks run until none has anything left to do: they take far fewer turns than this.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_service_sees_whole_requests_and_refusals_in_order() {
    const GOOD: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let good = || request("POST /a", b"hello");
    for (stream, wanted) in [
        (GOOD.repeat(3), vec![good(), good(), good()]),
        (
            format!("{CHUNKED}2\r\nhe\r\n3;x\r\nllo\r\n0\r\nX: y\r\n\r\n{GOOD}"),
            vec![request("POST /b", b"hello"), good()],
        ),
        (format!("{GOOD}GET /x HTTP/1.1\r\nHost : a\r\n\r\n{GOOD}"), vec![good(), Seen::Refused(V::Field)]),
        (format!("GET / HTTP/1.1\r\n\r\n{GOOD}"), vec![Seen::Refused(V::HostMissing)]),
        (format!("{CHUNKED}2\r\nhe\r\n0x3\r\nllo\r\n0\r\n\r\n{GOOD}"), vec![broken("POST /b")]),
        (format!("{CHUNKED}2\r\nheX\r\n{GOOD}"), vec![broken("POST /b")]),
        (
            format!("GET https://a/p?q HTTP/1.1\r\nHost: A\r\n\r\n{GOOD}"),
            vec![request("GET https://a/p?q", b""), good()],
        ),
        (
            format!(
                "GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n{GOOD}GET / HTTP/1.1\r\n\r\n"
            ),
            vec![request("GET /w", b""), good(), Seen::Refused(V::HostMissing)],
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), vec![Seen::Refused(V::Version)]),
        (
            format!("GET /l HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{GOOD}"),
            vec![request("GET /l", b"")],
        ),
        (format!("GET /l HTTP/1.0\r\n\r\n{GOOD}"), vec![request("GET /l", b"")]),
    ] {
        for size in [1, 7, stream.len()] {
            let (seen, answers) = seen(stream.as_bytes().chunks(size));
            assert_eq!(seen, wanted, "in pieces of {size}: {stream:?}");
            assert_eq!(answers.matches("HTTP/1.").count(), wanted.len(), "{answers}");
        }
    }
}

#[test]
fn bytes_after_an_upgrade_wait_for_the_answer_and_are_then_the_tunnels() {
    run(async {
        let mut client = connect();
        let head = b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nGET / HTTP/1.1\r\n\r\n\x00\xff";
        client.stream.write_all(head).await.unwrap();
        settle().await;
        assert_eq!(client.seen.take(), [request("GET /up", b"")]);
    });
}

#[test]
fn a_head_that_is_given_up_is_refused_and_what_arrived_of_it_is_not_seen() {
    run(async {
        let mut client = connect();
        client.stream.write_all(b"GET /slow HTT").await.unwrap();
        settle().await;
        assert!(client.wire.signals().head_since.is_some());
        client.wire.expire_head();
        client.stream.write_all(b"P").await.unwrap();
        settle().await;
        assert_eq!(client.seen.take(), [Seen::Refused(V::HeadTimeout)]);
        let mut answer = Vec::new();
        client.stream.write_all(b"/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        client.stream.shutdown().await.unwrap();
        client.stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408 "));
    });
}

#[test]
fn an_end_within_a_refused_request_does_not_lose_the_answer() {
    run(async {
        let mut client = connect();
        client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.unwrap();
        client.stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn a_stalled_write_is_noticed_and_so_is_its_end() {
    run(async {
        let (client, server) = tokio::io::duplex(4);
        let wire = Arc::new(Wire::default());
        let mut front = Front::http1(server, wire.clone(), Arc::default(), BOUNDS);
        let writing = tokio::task::spawn_local(async move { front.write_all(b"12345678").await });
        settle().await;
        assert!(wire.signals().write_blocked_since.is_some());
        let mut client = client;
        client.read_exact(&mut [0; 8]).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(wire.signals().write_blocked_since.is_none());
    });
}

/// A front without hyper, whose reader and writer is the test.
fn alone(room: usize) -> (DuplexStream, Front<DuplexStream>, Arc<Wire>) {
    let (client, server) = tokio::io::duplex(room);
    let wire = Arc::new(Wire::default());
    (client, Front::http1(server, wire.clone(), Arc::default(), BOUNDS), wire)
}

/// What there is to read now; `None`: nothing yet.
fn read_now(front: &mut Front<DuplexStream>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let read = front.read(&mut bytes).now_or_never()?.unwrap();
    bytes.truncate(read);
    Some(bytes)
}

#[test]
fn a_connection_is_between_requests_only_where_a_head_may_begin() {
    const WHOLE: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const BODY: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
    for (bytes, between) in [
        (WHOLE.to_owned(), true),
        (format!("{WHOLE}G"), false),
        (BODY.to_owned(), false),
        (format!("{BODY}x"), false),
        (format!("{BODY}xy"), true),
    ] {
        run(async {
            let (mut client, mut front, wire) = alone(4096);
            client.write_all(bytes.as_bytes()).await.unwrap();
            while read_now(&mut front).is_some() {}
            assert_eq!(wire.signals().between_requests, between, "{bytes:?}");
            front.shutdown().now_or_never();
            assert!(read_now(&mut front).is_none());
            assert!(!wire.signals().between_requests, "no request comes any more: {bytes:?}");
        });
    }
}

#[test]
fn of_what_may_be_a_tunnel_s_only_so_much_is_read_before_the_answer() {
    run(async {
        let (mut client, mut front, wire) = alone(4096);
        let head = b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
        client.write_all(head).await.unwrap();
        assert_eq!(read_now(&mut front).unwrap(), head);
        let mut sent = 0;
        while let Some(Ok(more)) = client.write(&[b'x'; 4096]).now_or_never() {
            sent += more;
            assert!(sent <= MAX_EARLY_BYTES + 4096, "more than is held and one buffer");
            assert_eq!(read_now(&mut front), None);
        }
        assert!(sent >= MAX_EARLY_BYTES);
        wire.answered(1, true);
        let mut received = 0;
        while let Some(bytes) = read_now(&mut front) {
            assert!(bytes.iter().all(|&byte| byte == b'x'));
            received += bytes.len();
        }
        assert_eq!(received, sent);
    });
}

#[test]
fn what_nobody_reads_is_thrown_away_until_the_client_has_ended() {
    run(async {
        let (mut client, server) = tokio::io::duplex(4096);
        let wire = Arc::new(Wire::default());
        let mut front = Front::refused(server, wire.clone(), V::Field);
        assert!(wire.signals().lingering_since.is_none());
        let closing = tokio::task::spawn_local(async move { front.shutdown().await.map(|()| front) });
        settle().await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "our side is shut");
        client.write_all(&vec![b'x'; 100 * 1024]).await.unwrap();
        settle().await;
        assert!(!closing.is_finished() && wire.signals().lingering_since.is_some());
        client.shutdown().await.unwrap();
        settle().await;
        assert!(closing.is_finished());
    });
}

#[test]
fn what_nobody_reads_is_thrown_away_up_to_a_bound() {
    run(async {
        let (mut client, mut front, _) = alone(4096);
        let endless = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n";
        client.write_all(endless).await.unwrap();
        assert_eq!(read_now(&mut front).unwrap(), endless);
        let closing = tokio::task::spawn_local(async move { front.shutdown().await.map(|()| front) });
        let mut sent = 0;
        while !closing.is_finished() {
            client.write_all(&[b'x'; 1024]).await.unwrap();
            sent += 1024;
            settle().await;
        }
        assert_eq!(sent, MAX_DISCARDED_BYTES + 1024);
    });
}

/// After whole requests nothing is waited for.
#[test]
fn nothing_is_thrown_away_after_the_last_request() {
    run(async {
        let (mut client, mut front, wire) = alone(4096);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        while read_now(&mut front).is_some() {}
        assert!(front.shutdown().now_or_never().is_some_and(|shut| shut.is_ok()));
        assert!(wire.signals().lingering_since.is_none());
    });
}

/// Valid streams, to be damaged.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::sample::select(vec![
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /",
        "POST /c HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n2;a\r\n /\r\n0\r\nX: y\r\n\r\n",
        "OPTIONS /d?e=%2F HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "GET https://a/e HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\n\r\n",
        "\r\nPUT /f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ]);
    let bits = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\0",
        ":",
        ",",
        ";",
        "#",
        "0",
        "1",
        "a",
        "/",
        "\u{e9}",
        "chunked",
        "\r\n\r\n",
        "_",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: b\r\n",
        "0\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "Connection: close\r\n",
        "Upgrade: y\r\n",
        " HTTP/1.0",
        "?",
        "\\",
        "\"",
        "%",
        "@",
        "[",
        "*",
    ]);
    let damage = (any::<prop::sample::Index>(), 0..4usize, bits);
    (prop::collection::vec(requests, 1..4), prop::collection::vec(damage, 0..4)).prop_map(
        |(requests, damages)| {
            let mut bytes = requests.concat().into_bytes();
            for (at, remove, insert) in damages {
                let at = at.index(bytes.len() + 1);
                let to = (at + remove).min(bytes.len());
                bytes.splice(at..to, insert.bytes());
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The machine says the same however the bytes are cut.
    #[test]
    fn pieces_do_not_matter(stream in streams(), size in 1..40usize) {
        let whole = feed(std::iter::once(stream.as_slice()));
        prop_assert_eq!(whole, feed(stream.chunks(size)), "{}", stream.escape_ascii());
    }

    /// hyper finds the requests that the machine let through, each once, and no other; and where the machine
    /// refuses a head, it is the stand-in that is seen, in its place.
    #[test]
    fn hyper_finds_the_same_requests(stream in streams(), size in 1..200usize) {
        let machine = feed(std::iter::once(stream.as_slice()));
        let (seen, answers) = seen(stream.chunks(size));
        let calls = seen.len() as u64;
        for (at, call) in seen.iter().enumerate() {
            if let Seen::Refused(violation) = call {
                prop_assert_eq!(at as u64, machine.heads, "a refusal comes after all that passed");
                prop_assert_eq!(Some(*violation), machine.refused);
            }
        }
        let ended_early = stream.windows(5).any(|w| w == b"close") || stream.windows(8).any(|w| w == b"HTTP/1.0");
        let head_refused = machine.refused.is_some() && !machine.in_body;
        if !ended_early {
            // A body that never ends is a call that is still waiting.
            let waiting = u64::from(machine.refused.is_none() && machine.in_body);
            prop_assert_eq!(calls, machine.heads + u64::from(head_refused) - waiting, "{:?} {}", seen, answers);
        }
    }
}

/// What is pushed while hyper writes an answer waits until that is over, however the front is written to.
#[test]
fn nothing_comes_between_the_parts_of_an_answer() {
    for is_vectored in [false, true] {
        let (mut client, server) = tokio::io::duplex(1024);
        let interim = Arc::new(Interim::default());
        let mut front = Front::http1(server, Arc::default(), interim.clone(), BOUNDS);
        interim.begin(1, true);
        front.flush().now_or_never().unwrap().unwrap();
        for part in ["one", "two"] {
            let written = match is_vectored {
                true => front.write_vectored(&[IoSlice::new(part.as_bytes())]).now_or_never(),
                false => front.write(part.as_bytes()).now_or_never(),
            };
            assert_eq!(written.unwrap().unwrap(), part.len());
            let early = http::HeaderMap::from_iter([(http::header::LINK, "a".parse().unwrap())]);
            assert!(interim.push(http::StatusCode::EARLY_HINTS, &early));
        }
        drop(front);
        let mut out = String::new();
        client.read_to_string(&mut out).now_or_never().unwrap().unwrap();
        assert_eq!(out, "onetwo", "vectored: {is_vectored}");
    }
}

/// A stream that notes what is to become of it when it is dropped.
struct Watched(DuplexStream, Rc<RefCell<Vec<bool>>>);

impl Arrivals for Watched {
    fn poll_arrival(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Pending
    }

    fn has_left(&self, _: bool) -> bool {
        false
    }

    fn reset_when_dropped(&self, resets: bool) {
        self.1.borrow_mut().push(resets);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What is dropped before its end is a reset where only the end tells that all was there, and only there.
#[test]
fn where_only_the_end_tells_a_connection_that_breaks_off_is_reset() {
    const HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for (ends_by_closing, upgrades, expected) in
        [(false, false, &[][..]), (true, false, &[true, false]), (false, true, &[true, false])]
    {
        let (mut client, server) = tokio::io::duplex(1024);
        let (wire, notes) = (Arc::new(Wire::default()), Rc::new(RefCell::new(Vec::new())));
        let mut front = Front::http1(Watched(server, notes.clone()), wire.clone(), Arc::default(), BOUNDS);
        if ends_by_closing {
            wire.end_by_closing();
        }
        client.write_all(HEAD.as_bytes()).now_or_never().unwrap().unwrap();
        let mut read = [0; 1024];
        let head = front.read(&mut read).now_or_never().unwrap().unwrap();
        assert_eq!(str::from_utf8(&read[..head]), Ok(HEAD));
        assert!(front.read(&mut read).now_or_never().is_none(), "what follows may be of a tunnel");
        assert!(notes.borrow().is_empty());
        wire.answered(1, upgrades);
        assert!(front.read(&mut read).now_or_never().is_none());
        for _ in 0..2 {
            front.write_all(b"some").now_or_never().unwrap().unwrap();
            assert_eq!(*notes.borrow(), expected[..expected.len() / 2]);
        }
        front.shutdown().now_or_never().unwrap().unwrap();
        assert_eq!(*notes.borrow(), expected, "a proper end is one");
    }
}
