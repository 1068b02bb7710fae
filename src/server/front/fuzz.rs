//! The strict front, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "see crate::fuzzing"
)]

use tokio::time::Instant;

use super::Violation;
use super::chunked::ChunkParser;
use super::frames::{FrameWatch, Watched};
use super::framing::{Framing, Then};
use super::head::{BodyKind, Bounds, Head, HeadParser};
use super::stream_interim::StreamInterim;

const BOUNDS: Bounds = Bounds { head_bytes: 2048, fields: 20, target_bytes: 512, scheme: "https" };

/// What came of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: Vec<u8>,
    heads: u64,
    refused: Option<Violation>,
    in_body: bool,
}

/// The bytes as all that a client sends on a connection that speaks HTTP/1. An upgrade is always declined.
pub fn http1_front(bytes: &[u8]) {
    let outcome = outcome(bytes, usize::MAX);
    for size in [1, 2, 7] {
        assert_eq!(outcome, self::outcome(bytes, size), "in pieces of {size}");
    }
    assert!(bytes.starts_with(&outcome.passed), "the bytes were changed");
    check_messages(&outcome);
    check_chunked(bytes);
}

fn outcome(bytes: &[u8], size: usize) -> Outcome {
    let mut framing = Framing::new(BOUNDS);
    let (mut held, mut passed, mut refused) = (Vec::new(), Vec::new(), None);
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        loop {
            let progress = framing.advance(&held);
            passed.extend(held.drain(..progress.pass));
            match progress.then {
                Then::AwaitUpgrade => {
                    framing.decline_upgrade();
                    continue;
                }
                Then::RefuseHead(violation) | Then::RefuseBody(violation) => refused = Some(violation),
                Then::Continue | Then::Hold => {
                    assert!(held.len() <= BOUNDS.head_bytes + 4, "held without bound")
                }
            }
            break;
        }
        if refused.is_some() {
            break;
        }
    }
    Outcome { passed, heads: framing.heads(), refused, in_body: framing.in_body() }
}

/// What was passed on is, to the parser behind the front, the same messages with the same ends.
fn check_messages(outcome: &Outcome) {
    let mut rest = outcome.passed.as_slice();
    let mut heads = 0;
    while !rest.is_empty() {
        heads += 1;
        let (head, chunked, length) = read_by_hyper(rest);
        rest = &rest[head..];
        let taken = match chunked {
            true => chunked_end(rest),
            false => usize::try_from(length).ok().filter(|length| *length <= rest.len()),
        };
        match taken {
            Some(taken) => rest = &rest[taken..],
            // The body that did not come to its end, and so the last.
            None => {
                assert!(outcome.in_body || outcome.refused.is_some(), "the front saw an end that is none");
                break;
            }
        }
    }
    assert_eq!(heads, outcome.heads);
}

/// A head as hyper's parser reads it: its bytes, whether its body is chunked, and else how long that is.
fn read_by_hyper(bytes: &[u8]) -> (usize, bool, u64) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(bytes).expect("a head that was passed on") {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => panic!("part of a head was passed on"),
    };
    let lines = bytes[..head].strip_prefix(b"\r\n").unwrap_or(&bytes[..head]);
    let ends = |lines: &[u8]| lines.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines.windows(2).filter(|pair| pair == b"\r\n").count(), ends(lines), "a bare line feed");
    assert_eq!(request.headers.len() + 2, ends(lines), "a line that is no field");
    let all = |name: &str| -> Vec<&[u8]> {
        request
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
            .collect()
    };
    assert!(all("host").len() <= 1 && (request.version == Some(0) || all("host").len() == 1));
    let (encodings, lengths) = (all("transfer-encoding"), all("content-length"));
    assert!(encodings.len() + lengths.len() <= 1, "two ways to find the end");
    assert!(encodings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked")));
    assert!(encodings.is_empty() || request.version == Some(1));
    let length = lengths.first().map_or(0, |length| std::str::from_utf8(length).unwrap().parse().unwrap());
    (head, !encodings.is_empty(), length)
}

/// Where a chunked body ends, by another reading; `None` if it does not.
fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| -> Option<(&[u8], usize)> {
        let end = bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&bytes[from..from + end], from + end + 2))
    };
    let mut at = 0;
    loop {
        let (size, after) = line(at)?;
        let digits = size.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at = after;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        bytes.get(at..)?.strip_prefix(b"\r\n")?;
        at += 2;
    }
    loop {
        let (field, after) = line(at)?;
        at = after;
        if field.is_empty() {
            return Some(at);
        }
    }
}

/// The bytes as a body alone, and as a head alone: neither is touched by what comes after.
fn check_chunked(bytes: &[u8]) {
    let more = [bytes, b"\r\n0\r\n\r\nGET /canary HTTP/1.1\r\n"].concat();
    if let Ok((taken, true)) = ChunkParser::default().advance(bytes) {
        assert_eq!(ChunkParser::default().advance(&more), Ok((taken, true)));
        assert_eq!(chunked_end(bytes), Some(taken), "the end of a chunked body");
    }
    if let Ok(Some(head)) = HeadParser::default().advance(bytes, &BOUNDS) {
        assert_eq!(HeadParser::default().advance(&more, &BOUNDS), Ok(Some(head)));
        let Head { len, body, .. } = head;
        let (by_hyper, chunked, length) = read_by_hyper(bytes);
        assert_eq!(len, by_hyper);
        assert_eq!(body, if chunked { BodyKind::Chunked } else { BodyKind::Length(length) });
    }
}

/// What is known of an HTTP/2 connection after some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    unfinished: bool,
    abusive: bool,
    /// How many streams were opened, and the last of them.
    opened: (u64, u32),
    /// Whether the client never made its table smaller.
    is_fit: bool,
}

/// The bytes as all that a client sends on a connection that speaks HTTP/2, its preface left out.
pub fn http2_front(bytes: &[u8]) {
    let now = Instant::now();
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes].concat();
    let expected = reference(&bytes[24..]);
    for size in [usize::MAX, 1, 7] {
        let (mut watch, streams) = (FrameWatch::new(now), StreamInterim::default());
        let mut known = Known { unfinished: true, ..Known::default() };
        for piece in bytes.chunks(size) {
            let Watched { unfinished, abusive } = watch.advance(piece, now, &streams);
            known.unfinished = unfinished;
            known.abusive |= abusive;
        }
        (known.opened, known.is_fit) = (streams.opened(), streams.is_accepted());
        assert_eq!(known, expected, "in pieces of {size}");
    }
}

/// The same with all the bytes at hand, at one moment.
fn reference(mut bytes: &[u8]) -> Known {
    const BURST: u32 = 1000;
    let (mut in_block, mut resets, mut control, mut table) = (false, BURST, BURST, 4096);
    let mut known = Known { is_fit: true, ..Known::default() };
    loop {
        let Some((header, rest)) = bytes.split_at_checked(9) else {
            return Known { unfinished: in_block || !bytes.is_empty(), ..known };
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
        let length = number(&header[..3]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let purse = if kind == 3 { &mut resets } else { &mut control };
        match kind {
            0 if length == 0 && flags & 1 == 0 => known.abusive |= !spend(purse),
            0 | 1 | 8 | 9 => *purse = (*purse + 1).min(BURST),
            _ => known.abusive |= !spend(purse),
        }
        if kind == 1 || kind == 9 {
            in_block = flags & 4 == 0;
        }
        let stream = number(&header[5..]) & 0x7fff_ffff;
        if kind == 1 && stream > known.opened.1 {
            known.opened = (known.opened.0 + 1, stream);
        }
        if kind == 4 {
            for setting in
                rest[..length.min(rest.len())].chunks_exact(6).filter(|setting| setting[..2] == [0, 1])
            {
                let before = std::mem::replace(&mut table, number(&setting[2..]));
                known.is_fit &= table >= before;
            }
        }
        match rest.get(length..) {
            Some(rest) => bytes = rest,
            None => return Known { unfinished: in_block || kind != 0, ..known },
        }
    }
}

fn spend(purse: &mut u32) -> bool {
    let has = *purse > 0;
    *purse = purse.saturating_sub(1);
    has
}
