//! H2-01, H2-03, H2-04: frames that cost more than they should.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::frames::*;
use crate::wire::{self, Crowd, PATIENCE};
use crate::{Outcome, Plan};

/// Bytes of a flood that are made and sent at once.
const BATCH: usize = 32 * 1024;

/// What a flood must come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The connection is ended before the flood is through.
    Cut,
    /// It may go through: it costs its sender as much as anybody.
    Any,
}

/// Sends up to `plan.count` of what `make` makes on one connection after the other, until that many were sent in all or
/// `plan.seconds` are over.
async fn flood(plan: Plan, end: End, what: &str, first: Vec<u8>, make: impl Fn(usize) -> Vec<u8>) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"h2"));
    let (begun, mut wrong, mut sent, mut connections) = (Instant::now(), Vec::new(), 0, 0);
    let mut last = String::new();
    while sent < plan.count && begun.elapsed() < Duration::from_secs_f64(plan.seconds) {
        let (stream, _member) = match crowd.connect(plan.port, &config).await {
            Ok(connected) => connected,
            Err(error) => {
                wrong.push(error);
                break;
            }
        };
        connections += 1;
        let since = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (here, goal) = (std::cell::Cell::new(0), plan.count);
        let writing = async {
            let _ = writer.write_all(&[preface(&[]), first.clone()].concat()).await;
            while here.get() < goal {
                let mut some = Vec::new();
                while some.len() < BATCH && here.get() < goal {
                    some.extend(make(here.get()));
                    here.set(here.get() + 1);
                }
                if writer.write_all(&some).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            if end == End::Cut {
                std::future::pending::<()>().await
            }
        };
        let (back, ended) = tokio::select! {
            back = Back::read(&mut reader, PATIENCE, |_| false) => { let ended = back.ended; (back, ended) }
            () = writing => (Back::default(), false),
        };
        if end == End::Cut && !ended {
            wrong.push(format!("the connection lived for {:.1?}: {back:?}", since.elapsed()));
            break;
        }
        last = format!(
            "the last lived {:.2?}, {} answers, GOAWAY {:?}",
            since.elapsed(),
            back.heads,
            back.goaway
        );
        sent += here.get();
    }
    let words = format!("{sent} {what} on {connections} connections in {:.1?}; {last}", begun.elapsed());
    Outcome { connections: crowd.most(), wrong, words, at_rest: None }
}

/// The number of the stream of a request, from 0.
fn stream(number: usize) -> u32 {
    u32::try_from(number).unwrap() * 2 + 1
}

/// H2-01.
pub async fn rapid_reset(plan: Plan) -> Outcome {
    let block = request("GET", "/public/");
    let make = |number: usize| {
        let reset = frame(RST_STREAM, 0, stream(number), &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block), reset].concat()
    };
    flood(plan, End::Cut, "requests and resets", Vec::new(), make).await
}

/// H2-01, its relative: what makes the server reset. In turns a window that overflows, a window of zero, data after
/// the end, a request that is malformed, and a priority on itself.
pub async fn made_you_reset(plan: Plan) -> Outcome {
    let block = request("GET", "/public/");
    let make = |number: usize| {
        let at = stream(number);
        let head = frame(HEADERS, END_HEADERS | END_STREAM, at, &block);
        let open = || frame(HEADERS, END_HEADERS, at, &request("POST", "/public/sink"));
        match number % 5 {
            0 => [head, frame(WINDOW_UPDATE, 0, at, &0x7fff_ffffu32.to_be_bytes())].concat(),
            1 => [open(), frame(DATA, END_STREAM, at, b"x"), frame(DATA, 0, at, b"x")].concat(),
            2 => frame(HEADERS, END_HEADERS | END_STREAM, at, &literals(0, &[("Upper", "case")])),
            3 => {
                let mut priority = at.to_be_bytes().to_vec();
                priority.push(0);
                [open(), frame(PRIORITY, 0, at, &priority)].concat()
            }
            _ => [open(), frame(WINDOW_UPDATE, 0, at, &0u32.to_be_bytes())].concat(),
        }
    };
    flood(plan, End::Cut, "requests to be reset", Vec::new(), make).await
}

/// H2-03: a header block that never ends.
pub async fn continuation(plan: Plan) -> Outcome {
    let first = frame(HEADERS, 0, 1, &request("GET", "/public/"));
    let empty = frame(CONTINUATION, 0, 1, b"");
    let field = frame(CONTINUATION, 0, 1, &literals(0, &[("a", "b")]));
    let make = |number: usize| if number.is_multiple_of(2) { empty.clone() } else { field.clone() };
    flood(plan, End::Cut, "CONTINUATION frames", first, make).await
}

/// H2-03: a field of 4,000 bytes that is put into the table once and named by one byte each time after.
pub async fn hpack(plan: Plan) -> Outcome {
    let large = "x".repeat(3900);
    let first = [request("GET", "/public/"), literals(64, &[("bomb", &large)])].concat();
    let bomb = [request("GET", "/public/"), vec![0xbe; 16_000]].concat();
    let make = |number: usize| match number {
        0 => frame(HEADERS, END_HEADERS | END_STREAM, 1, &first),
        _ => frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &bomb),
    };
    flood(plan, End::Cut, "header blocks of 16,000 references to 3,900 bytes", Vec::new(), make).await
}

/// H2-03: header lists of 1 MiB.
pub async fn header_list(plan: Plan) -> Outcome {
    let value = "x".repeat(16_000);
    let part = literals(0, &[("a", &value)]);
    let parts = 64;
    let make = |number: usize| {
        let at = stream(number / (parts + 1));
        match number % (parts + 1) {
            0 => frame(HEADERS, END_STREAM, at, &request("GET", "/public/")),
            last if last == parts => frame(CONTINUATION, END_HEADERS, at, &part),
            _ => frame(CONTINUATION, 0, at, &part),
        }
    };
    flood(plan, End::Cut, "parts of header lists of 1 MiB", Vec::new(), make).await
}

/// H2-04: each kind of frame in turn, on connections of its own.
pub async fn control_frames(plan: Plan) -> Outcome {
    let kinds: [(&str, Vec<u8>, Vec<u8>); 6] = [
        ("PING", Vec::new(), frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, b"")),
        ("SETTINGS of a table", Vec::new(), [table(0), table(4096)].concat()),
        ("PRIORITY", Vec::new(), frame(PRIORITY, 0, 1, b"\0\0\0\0\0")),
        (
            "empty DATA",
            frame(HEADERS, END_HEADERS, 1, &request("POST", "/public/sink")),
            frame(DATA, 0, 1, b""),
        ),
        ("unknown frames", Vec::new(), frame(0xbe, 0, 0, b"")),
    ];
    let mut all = Outcome::default();
    let shares = kinds.len();
    for (what, first, one) in kinds {
        let plan = Plan { count: plan.count / shares, seconds: plan.seconds / shares as f64, ..plan.clone() };
        let outcome = flood(plan, End::Cut, what, first, |_| one.clone()).await;
        all.connections = all.connections.max(outcome.connections);
        all.wrong.extend(outcome.wrong.into_iter().map(|wrong| format!("{what}: {wrong}")));
        all.words = [all.words, outcome.words].join(if what == "PING" { "" } else { "; " });
    }
    all
}

/// SETTINGS with a size for the table of HPACK.
fn table(size: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&1u16.to_be_bytes()[..], &size.to_be_bytes()].concat())
}

/// H2-04: windows that are opened by one byte each time, with a PING for each.
pub async fn window_updates(plan: Plan) -> Outcome {
    let one = [frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()), frame(PING, 0, 0, b"12345678")].concat();
    flood(plan, End::Any, "WINDOW_UPDATE and PING frames", Vec::new(), |_| one.clone()).await
}
