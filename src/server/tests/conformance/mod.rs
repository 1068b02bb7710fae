//! HTTP/2 by the letter of RFC 9113 and RFC 7541: the cases of h2spec as raw frames. `make conformance` runs the tool
//! itself.

mod compression;
mod frames;
mod streams;
mod windows;

use super::http2::{Back, GET, Raw, block, frame, get};
use super::support::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;
const WHOLE: u8 = END_STREAM | END_HEADERS;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// What must become of it. As in h2spec, the end of the connection does for any error, and a connection error for
/// one of a stream. PROTOCOL_ERROR does for a more specific code: h2 says no more of some errors.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// Stream 1 is answered with 200.
    Fine,
    /// A connection error (RFC 9113 section 5.4.1).
    Connection(u32),
    /// A stream error (section 5.4.2).
    Stream(u32),
}
use Verdict::{Connection, Fine, Stream};

/// What is sent after the preface and the settings, and what must become of it.
type Case<'a> = (&'a str, Vec<Vec<u8>>, Verdict);

fn connection(code: u32, back: &Back) -> bool {
    [Back::GoAway(code), Back::GoAway(PROTOCOL_ERROR), Back::End].contains(back)
}

async fn judge(server: &Server, cases: &[Case<'_>]) {
    for (what, frames, verdict) in cases {
        let mut raw = Raw::connect(server).await;
        raw.send(&frames.concat()).await;
        let back = loop {
            match (raw.back().await, verdict) {
                // An answer may be out before the mistake arrives.
                (Back::Headers(_), Connection(_) | Stream(_)) => {}
                (back, _) => break back,
            }
        };
        let good = match verdict {
            Fine => back == Back::Headers(200),
            Connection(code) => connection(*code, &back),
            Stream(code) => back == Back::Reset(*code) || connection(*code, &back),
        };
        assert!(good, "{what}: {back:?}");
    }
}

/// A request for `/p`, which is answered at once.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get(&[]))
}

/// The head of an upload to `path` on stream 1.
fn upload(path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "POST"), GET[1], GET[2], (":path", path)]))
}

/// A request that is not answered by itself.
fn held(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&[GET[0], GET[1], GET[2], (":path", "/hold")]))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// The fields of [`GET`], with these bytes before or after.
fn with(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, &get(&[]), after].concat()
}
