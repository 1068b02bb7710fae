//! Informational answers (RFC 9110 section 15.2) on an HTTP/2 connection. hyper's server can't send them, so they are
//! written below it, between its frames, each as a HEADERS frame of its own (RFC 9113 section 8.1).
//!
//! Three things have to be known for that. **Where a frame may stand:** h2 flushes its stream only when it has handed
//! over whole frames, and header blocks to their end, so a flush shows such a place; it lasts until h2 writes. **What
//! the frame may say:** its fields are literals that no table of HPACK knows or learns (RFC 7541 section 6.2.2), so the
//! two sides' tables stay what they are. Only a client that makes its table smaller expects to be told first (section
//! 4.2), and gets no informational answers. **Which stream it is for:** nobody says to which stream a call belongs. But
//! each stream that a client opens becomes one call at most, in the same order; as long as there are as many of the
//! ones as of the others, none was left out and they are pairs. Where one was, there are no informational answers any
//! more. They are hints, and the final answer is as good without them.
//!
//! One thing is not known: that h2 resets a stream by itself, for a body that breaks the protocol. An answer may then come
//! behind the reset, which a client takes for one that crossed it (section 5.1).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};
use tokio::io::AsyncWrite;

use super::interim::Begun;

/// What the request side gives to the byte side of one connection, and what that sees of the client. Both run on one
/// thread; see [`super::wire`] for why there are atomics nevertheless.
#[derive(Debug)]
pub(in crate::server) struct StreamInterim {
    /// Streams that the client has opened.
    opened: AtomicU64,
    /// The latest of them, by their number modulo [`RECENT`].
    recent: [AtomicU32; RECENT],
    newest: AtomicU32,
    /// Calls that have begun.
    calls: AtomicU64,
    /// The size of the table that the client says it has for our fields.
    table_bytes: AtomicU32,
    /// It made that smaller.
    is_unfit: AtomicBool,
    waits: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    call: u64,
    frame: Vec<u8>,
    /// The final answer is with hyper, and may be written at any time.
    is_answered: bool,
}

impl Default for StreamInterim {
    fn default() -> Self {
        Self {
            opened: AtomicU64::new(0),
            recent: [const { AtomicU32::new(0) }; RECENT],
            newest: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            table_bytes: AtomicU32::new(DEFAULT_TABLE_BYTES),
            is_unfit: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            queue: Mutex::default(),
        }
    }
}

impl StreamInterim {
    /// The client has sent a HEADERS frame on this stream. Only the first one of a stream opens it (RFC 9113 section
    /// 5.1.1: the numbers rise).
    pub(super) fn saw_headers(&self, stream: u32) {
        if stream > self.newest.load(Relaxed) {
            self.newest.store(stream, Relaxed);
            let number = self.opened.load(Relaxed) + 1;
            self.opened.store(number, Relaxed);
            if let Some(slot) = self.recent.get(slot_of(number)) {
                slot.store(stream, Relaxed);
            }
        }
    }

    /// The client has said how large its table for our fields is (`SETTINGS_HEADER_TABLE_SIZE`).
    pub(super) fn saw_table(&self, bytes: u32) {
        if bytes < self.table_bytes.load(Relaxed) {
            self.is_unfit.store(true, Relaxed);
        }
        self.table_bytes.store(bytes, Relaxed);
    }

    /// The `call`th call of the service begins, from 1.
    pub(in crate::server) fn begin(&self, call: u64) {
        self.calls.store(call, Relaxed);
    }

    /// The final answer to the call goes to hyper.
    pub(in crate::server) fn end(&self, call: u64) {
        if self.waits.load(Relaxed) {
            for waiting in self.lock().waiting.iter_mut().filter(|waiting| waiting.call == call) {
                waiting.is_answered = true;
            }
        }
    }

    /// There will be no answer to the call: its stream is gone.
    pub(in crate::server) fn forget(&self, call: u64) {
        self.keep(|waiting| waiting.call != call);
    }

    /// Whether clients of this connection may be informed.
    pub(in crate::server) fn is_accepted(&self) -> bool {
        !self.is_unfit.load(Relaxed)
    }

    /// Takes in an informational answer to the call. False: it is none that may be passed on, its stream is not known,
    /// or too many wait.
    pub(in crate::server) fn push(&self, call: u64, status: StatusCode, headers: &HeaderMap) -> bool {
        // There is no 101 (RFC 9113 section 8.6).
        let is_ours = matches!(status.as_u16(), 100 | 102..=199);
        let Some(stream) = self.stream_of(call).filter(|_| is_ours) else { return false };
        let Some(frame) = encode(stream, status, headers) else { return false };
        let mut queue = self.lock();
        if queue.waiting.len() == MOST_WAITING || queue.bytes + frame.len() > MOST_BYTES {
            return false;
        }
        queue.bytes += frame.len();
        queue.waiting.push(Waiting { call, frame, is_answered: false });
        self.waits.store(true, Relaxed);
        true
    }

    /// How many streams were opened, and the last of them.
    #[cfg(any(test, fuzzing))]
    pub(super) fn opened(&self) -> (u64, u32) {
        (self.opened.load(Relaxed), self.newest.load(Relaxed))
    }

    fn stream_of(&self, call: u64) -> Option<u32> {
        let opened = self.opened.load(Relaxed);
        let are_pairs = opened == self.calls.load(Relaxed);
        let age = opened.checked_sub(call).filter(|_| are_pairs && self.is_accepted())?;
        let slot = self.recent.get(slot_of(call)).filter(|_| age < RECENT as u64)?;
        Some(slot.load(Relaxed)).filter(|stream| *stream != 0)
    }

    fn take(&self) -> Vec<u8> {
        self.waits.store(false, Relaxed);
        let queue = std::mem::take(&mut *self.lock());
        queue.waiting.into_iter().flat_map(|waiting| waiting.frame).collect()
    }

    fn keep(&self, which: impl Fn(&Waiting) -> bool) {
        if self.waits.load(Relaxed) {
            let mut queue = self.lock();
            queue.waiting.retain(which);
            queue.bytes = queue.waiting.iter().map(|waiting| waiting.frame.len()).sum();
            self.waits.store(!queue.waiting.is_empty(), Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot_of(number: u64) -> usize {
    (number % RECENT as u64) as usize
}

/// The byte side: what goes out between h2's frames.
#[derive(Debug, Default)]
pub(super) struct StreamInsertion {
    begun: Begun,
    /// h2 has handed over whole frames, and nothing since.
    between_frames: bool,
}

impl StreamInsertion {
    /// h2 flushes. What waits for an answered call may be behind that answer now, and is dropped.
    pub(super) fn note_flush(&mut self, interim: &StreamInterim) {
        if !self.between_frames {
            self.between_frames = true;
            // Nor is anything for a client whose smaller table h2 may have taken note of among these bytes.
            let is_accepted = interim.is_accepted();
            interim.keep(|waiting| is_accepted && !waiting.is_answered);
        }
    }

    /// h2's next bytes are about to be written.
    pub(super) fn note_write(&mut self) {
        self.between_frames = false;
    }

    /// Whether there may be something to write.
    pub(super) fn is_due(&self, interim: &StreamInterim) -> bool {
        !self.begun.is_empty() || (self.between_frames && interim.waits.load(Relaxed))
    }

    /// Writes what waits, if this is a place for it. Ready when h2's bytes may follow.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        interim: &StreamInterim,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.begun.poll_write(stream, cx))?;
            if !self.is_due(interim) {
                return Poll::Ready(Ok(()));
            }
            self.begun = Begun::new(interim.take());
        }
    }
}

/// A HEADERS frame. `None`: it does not fit into one.
fn encode(stream: u32, status: StatusCode, headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.push(LITERAL | STATUS);
    push_string(&mut frame, status.as_str().as_bytes());
    for (name, value) in headers {
        frame.push(LITERAL);
        push_string(&mut frame, name.as_str().as_bytes());
        push_string(&mut frame, value.as_bytes());
    }
    let length =
        u32::try_from(frame.len() - FRAME_HEADER_BYTES).ok().filter(|length| *length <= MOST_IN_FRAME)?;
    let [_, a, b, c] = length.to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    for (slot, byte) in frame.iter_mut().zip([a, b, c, HEADERS, END_HEADERS, d, e, f, g]) {
        *slot = byte;
    }
    Some(frame)
}

/// A string as it is, behind its length (RFC 7541 sections 5.1 and 5.2).
fn push_string(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX: usize = 127;
    match text.len().checked_sub(PREFIX) {
        None => block.push(text.len() as u8),
        Some(mut rest) => {
            block.push(PREFIX as u8);
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text);
}

/// Streams whose numbers are remembered: more than are open at once, by default.
const RECENT: usize = 128;

/// Informational answers of one connection that wait at a time, and their bytes.
const MOST_WAITING: usize = 64;
const MOST_BYTES: usize = 32 * 1024;

/// RFC 9113 section 6.5.2, of both settings: what nobody has to announce.
const DEFAULT_TABLE_BYTES: u32 = 4096;
const MOST_IN_FRAME: u32 = 16_384;

const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;

/// A field that no table learns (RFC 7541 section 6.2.2), and the name `:status` (appendix A).
const LITERAL: u8 = 0;
const STATUS: u8 = 8;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const EARLY: StatusCode = StatusCode::EARLY_HINTS;

    fn push(interim: &StreamInterim, call: u64, link: &str) -> bool {
        let headers = HeaderMap::from_iter([(http::header::LINK, link.parse().unwrap())]);
        interim.push(call, EARLY, &headers)
    }

    /// Streams that were opened, and so many calls.
    fn with(streams: &[u32], calls: u64) -> StreamInterim {
        let interim = StreamInterim::default();
        streams.iter().for_each(|stream| interim.saw_headers(*stream));
        interim.begin(calls);
        interim
    }

    #[test]
    fn a_frame_is_literals_on_its_stream() {
        let long = "v".repeat(300);
        let headers = HeaderMap::from_iter([
            (http::header::LINK, "</a>".parse().unwrap()),
            (http::HeaderName::from_static("x"), long.parse().unwrap()),
        ]);
        let frame = encode(0x0102_0305, EARLY, &headers).unwrap();
        let block = [
            &b"\x08\x03103\x00\x04link\x04</a>\x00\x01x"[..],
            // 300 is 127, then 173 by sevens: 45 and a carry, then 1.
            b"\x7f\xad\x01",
            long.as_bytes(),
        ]
        .concat();
        let head = [0, 1, (block.len() - 256) as u8, 1, 4, 1, 2, 3, 5];
        assert_eq!(frame, [&head[..], &block].concat());
        for (bytes, length) in
            [(126, &b"\x7e"[..]), (127, b"\x7f\x00"), (254, b"\x7f\x7f"), (255, b"\x7f\x80\x01")]
        {
            let mut block = Vec::new();
            push_string(&mut block, &vec![b'v'; bytes]);
            assert_eq!(block[..length.len()], *length, "{bytes}");
            assert_eq!(block.len(), length.len() + bytes);
        }
        let fits = |bytes: usize| {
            encode(
                1,
                EARLY,
                &HeaderMap::from_iter([(http::header::LINK, "v".repeat(bytes).parse().unwrap())]),
            )
        };
        // Beside it: the status, the name, and four bytes of lengths.
        let most = MOST_IN_FRAME as usize - 5 - 6 - 3;
        assert_eq!(fits(most).unwrap()[..3], [0, 0x40, 0]);
        assert!(fits(most + 1).is_none());
    }

    #[test]
    fn calls_and_streams_are_pairs_or_nobody_is_told() {
        // Trailers open nothing.
        let interim = with(&[1, 5, 5, 1, 9], 3);
        assert_eq!([1, 2, 3].map(|call| interim.stream_of(call)), [Some(1), Some(5), Some(9)]);
        assert_eq!(interim.stream_of(4), None);
        // One that hyper has not called for yet, or never will.
        assert_eq!(with(&[1, 3], 1).stream_of(1), None);
        // No more than are remembered.
        let streams: Vec<u32> = (0..200).map(|number| 2 * number + 1).collect();
        let interim = with(&streams, 200);
        assert_eq!([72, 73, 200].map(|call| interim.stream_of(call)), [None, Some(145), Some(399)]);
        for (sizes, is_fit) in
            [(&[][..], true), (&[65_536], true), (&[4096], true), (&[4095], false), (&[65_536, 4096], false)]
        {
            let interim = with(&[1], 1);
            sizes.iter().for_each(|size| interim.saw_table(*size));
            assert_eq!((interim.is_accepted(), push(&interim, 1, "a")), (is_fit, is_fit), "{sizes:?}");
        }
    }

    #[test]
    fn only_what_is_informational_is_taken_and_not_too_much() {
        let interim = with(&[1, 3], 2);
        for status in [101, 200, 304] {
            assert!(!interim.push(1, StatusCode::from_u16(status).unwrap(), &HeaderMap::new()), "{status}");
        }
        assert_eq!((0..1000).filter(|at| push(&interim, 1 + at % 2, "a")).count(), MOST_WAITING);
        interim.take();
        let frame =
            encode(1, EARLY, &HeaderMap::from_iter([(http::header::LINK, "a".parse().unwrap())])).unwrap();
        let long = MOST_BYTES / 4 - frame.len() - 1;
        assert_eq!((0..10).filter(|_| push(&interim, 1, &"a".repeat(long))).count(), 4);
        interim.forget(1);
        assert!(push(&interim, 2, "a"), "what is dropped takes no room");
    }

    /// What goes out if these things happen. `|` stands for bytes of h2, `a1` is pushed for call 1.
    fn out(events: &[&str]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut stream, mut client) = duplex(4096);
            let (interim, mut insertion) = (with(&[1, 3], 2), StreamInsertion::default());
            for event in events {
                let call = event.bytes().last().map_or(0, |digit| u64::from(digit.wrapping_sub(b'0')));
                match *event {
                    "flush" | "|" => {
                        if *event == "flush" {
                            insertion.note_flush(&interim);
                        }
                        let insert = |cx: &mut Context<'_>| insertion.poll_write(&interim, &mut stream, cx);
                        std::future::poll_fn(insert).await.unwrap();
                        if *event == "|" {
                            insertion.note_write();
                            stream.write_all(b"|").await.unwrap();
                        }
                    }
                    "answer 1" | "answer 2" => interim.end(call),
                    "gone 1" | "gone 2" => interim.forget(call),
                    link => assert!(push(&interim, call, &link[..1])),
                }
            }
            drop(stream);
            let mut text = Vec::new();
            client.read_to_end(&mut text).await.unwrap();
            let frame = |at: usize| text.get(at..at + 9).is_some_and(|head| head[3..5] == [1, 4]);
            let (mut seen, mut at) = (String::new(), 0);
            while at < text.len() {
                if frame(at) {
                    let length = usize::from(text[at + 2]);
                    seen += &format!("{}{}", char::from(text[at + 8 + length]), text[at + 8].div_ceil(2));
                    at += 9 + length;
                } else {
                    seen.push(char::from(text[at]));
                    at += 1;
                }
            }
            seen
        })
    }

    #[test]
    fn only_between_frames_and_before_the_answer() {
        for (events, wanted) in [
            (&["|", "flush", "a1", "flush", "answer 1", "|", "flush"][..], "|a1|"),
            // Together with the answer, which h2 has not begun to write: in front of it.
            (&["|", "flush", "a1", "b2", "answer 1", "|", "flush"], "|a1b2|"),
            (&["|", "flush", "a1", "answer 1", "flush", "|"], "|a1|"),
            // In the middle of what h2 writes there is no place.
            (&["|", "flush", "|", "a1", "|", "flush", "answer 1", "|"], "|||a1|"),
            (&["a1", "|", "|", "flush"], "||a1"),
            // The answer may have been among what was written.
            (&["|", "flush", "|", "a1", "b2", "answer 1", "|", "flush", "|"], "|||b2|"),
            // Its stream is gone.
            (&["|", "a1", "b2", "gone 1", "flush"], "|b2"),
            (&["|", "a1", "gone 1", "flush", "|"], "||"),
        ] {
            assert_eq!(out(events), wanted, "{events:?}");
        }
    }

    #[tokio::test]
    async fn what_is_begun_is_finished_first() {
        let (mut stream, mut client) = duplex(10);
        let (interim, mut insertion) = (with(&[1], 1), StreamInsertion::default());
        insertion.note_flush(&interim);
        assert!(push(&interim, 1, "a"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(insertion.poll_write(&interim, &mut stream, &mut cx).is_pending());
        interim.forget(1);
        let mut seen = Vec::new();
        while insertion.poll_write(&interim, &mut stream, &mut cx).is_pending() {
            insertion.note_write();
            let mut part = [0; 10];
            let read = client.read(&mut part).await.unwrap();
            seen.extend_from_slice(&part[..read]);
        }
        drop(stream);
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"\0\0\x0d\x01\x04\0\0\0\x01\x08\x03103\0\x04link\x01a");
        assert!(!insertion.is_due(&interim));
    }
}
