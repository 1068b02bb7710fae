//! Informational answers (RFC 9110 section 15.2) on an HTTP/1.1 connection. hyper's server can't send them, so
//! they are written below it, between its bytes.
//!
//! That is sound at one kind of place only: behind the last byte of the answer before and in front of the first
//! byte of the answer to come. hyper flushes its stream only when it has handed over all bytes that it has, so a
//! flush during a call shows such a place; it lasts until hyper writes. An informational answer that finds no such
//! place is dropped: it is a hint, and the final answer is as good without it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};
use tokio::io::AsyncWrite;

/// What the request side gives to the byte side of one connection. Both run in one task; see
/// [`super::wire`] for why there is a mutex nevertheless.
#[derive(Debug, Default)]
pub(in crate::server) struct Interim {
    /// The call whose client may be informed, from 1; 0 if there is none.
    call: AtomicU64,
    waits: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    call: u64,
    bytes: Vec<u8>,
    /// Heads and bytes that were taken in for this call, also those that are written already.
    heads: usize,
    spent: usize,
}

impl Interim {
    /// The `call`th call of the service begins; its client understands informational answers if `accepted`.
    pub(in crate::server) fn begin(&self, call: u64, accepted: bool) {
        self.call.store(if accepted { call } else { 0 }, Ordering::Relaxed);
    }

    /// The final answer is known.
    pub(in crate::server) fn end(&self) {
        self.call.store(0, Ordering::Relaxed);
    }

    /// Whether the client of the current call may be informed.
    pub(in crate::server) fn is_accepted(&self) -> bool {
        self.call.load(Ordering::Relaxed) != 0
    }

    /// Takes in the head of an informational answer to the current call. False: it is none that may be passed on,
    /// or there were too many.
    pub(in crate::server) fn push(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let call = self.call.load(Ordering::Relaxed);
        // 100 is hyper's to send, and 101 is final.
        let is_ours = matches!(status.as_u16(), 102..=199);
        if call == 0 || !is_ours {
            return false;
        }
        let head = encode(status, headers);
        let mut queue = self.lock();
        if queue.call != call {
            *queue = Queue { call, ..Queue::default() };
        }
        if queue.heads == MOST_HEADS || queue.spent + head.len() > MOST_BYTES {
            return false;
        }
        queue.heads += 1;
        queue.spent += head.len();
        queue.bytes.extend_from_slice(&head);
        self.waits.store(true, Ordering::Relaxed);
        true
    }

    /// What waits, if it is for `call`.
    fn take(&self, call: u64) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        (queue.call == call).then(|| {
            self.waits.store(false, Ordering::Relaxed);
            std::mem::take(&mut queue.bytes)
        })
    }

    /// Drops what waits, unless it is for `call`: it has missed its place.
    fn keep_only(&self, call: u64) {
        let mut queue = self.lock();
        if queue.call != call {
            queue.bytes = Vec::new();
            self.waits.store(false, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The byte side: what goes out between hyper's bytes.
#[derive(Debug, Default)]
pub(super) struct Insertion {
    begun: Begun,
    /// The call during which hyper had nothing left to write, if it has written nothing since.
    place: u64,
}

impl Insertion {
    /// hyper flushes: it has handed over all that it has. What is for the current call has its place now, and
    /// what is for another never will.
    pub(super) fn note_flush(&mut self, interim: &Interim) {
        self.place = interim.call.load(Ordering::Relaxed);
        if interim.waits.load(Ordering::Relaxed) {
            interim.keep_only(self.place);
        }
    }

    /// hyper's next bytes are about to be written.
    pub(super) fn note_write(&mut self) {
        self.place = 0;
    }

    /// Whether there may be something to write.
    pub(super) fn is_due(&self, interim: &Interim) -> bool {
        !self.begun.is_empty() || (self.place != 0 && interim.waits.load(Ordering::Relaxed))
    }

    /// Writes what waits and has its place here. Ready when hyper's bytes may follow.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        interim: &Interim,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.begun.poll_write(stream, cx))?;
            let next = if self.is_due(interim) { interim.take(self.place) } else { None };
            match next.filter(|next| !next.is_empty()) {
                Some(next) => self.begun = Begun::new(next),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Bytes of which some may be written: nothing else may be, before they are.
#[derive(Debug, Default)]
pub(super) struct Begun {
    bytes: Vec<u8>,
    written: usize,
}

impl Begun {
    /// Of which none is written.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// Whether there is nothing left of them.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes what is left.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => self.written += more,
            }
        }
        *self = Self::default();
        Poll::Ready(Ok(()))
    }
}

fn encode(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Informational answers to one request. Early hints come once or a few times; `102 Processing` may come every
/// few seconds for as long as a request takes.
const MOST_HEADS: usize = 64;

/// Bytes of all of them.
const MOST_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const EARLY: StatusCode = StatusCode::EARLY_HINTS;

    fn push(interim: &Interim, link: &str) -> bool {
        let headers = HeaderMap::from_iter([(http::header::LINK, link.parse().unwrap())]);
        interim.push(EARLY, &headers)
    }

    #[test]
    fn only_what_is_informational_and_asked_for_is_taken() {
        let interim = Interim::default();
        assert!(!push(&interim, "a"), "no call");
        interim.begin(1, false);
        assert!(!interim.is_accepted() && !push(&interim, "a"), "HTTP/1.0");
        interim.begin(2, true);
        for status in [100, 101, 200, 304] {
            assert!(!interim.push(StatusCode::from_u16(status).unwrap(), &HeaderMap::new()), "{status}");
        }
        assert!(interim.is_accepted() && push(&interim, "a"));
        interim.end();
        assert!(!push(&interim, "b"), "after the final answer");
        let bytes = interim.take(2).unwrap();
        assert_eq!(bytes, b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
    }

    #[test]
    fn each_request_has_its_bounds() {
        let interim = Interim::default();
        interim.begin(1, true);
        assert_eq!((0..1000).filter(|_| push(&interim, "a")).count(), MOST_HEADS);
        assert!(interim.take(1).is_some() && !push(&interim, "a"), "written ones count");
        interim.begin(2, true);
        let long = "a".repeat(MOST_BYTES / 4);
        assert_eq!((0..10).filter(|_| push(&interim, &long)).count(), 3);
        for (call, bytes, taken) in [(3, MOST_BYTES, true), (4, MOST_BYTES + 1, false)] {
            interim.begin(call, true);
            let without = "HTTP/1.1 103 Early Hints\r\nlink: \r\n\r\n".len();
            assert_eq!(push(&interim, &"a".repeat(bytes - without)), taken, "{bytes} bytes");
        }
    }

    /// What goes out if these things happen. `|` stands for bytes of hyper, anything else is pushed.
    fn out(events: &[&str]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut stream, mut client) = duplex(4096);
            let (interim, mut insertion) = (Interim::default(), Insertion::default());
            for event in events {
                match *event {
                    "call 1" => interim.begin(1, true),
                    "call 2" => interim.begin(2, true),
                    "answer" => interim.end(),
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
                    _ => assert!(push(&interim, event)),
                }
            }
            drop(stream);
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text.replace("HTTP/1.1 103 Early Hints\r\nlink: ", "").replace("\r\n", "")
        })
    }

    #[test]
    fn only_between_two_answers() {
        for (events, wanted) in [
            (&["call 1", "flush", "a", "flush", "answer", "|", "flush"][..], "a|"),
            // Together with the final answer, and several at once.
            (&["call 1", "flush", "a", "b", "answer", "|", "flush"], "ab|"),
            (&["call 1", "flush", "answer", "|", "flush", "call 2", "flush", "a", "answer", "|"], "|a|"),
            // The answer before is still with hyper: after it.
            (&["call 1", "flush", "answer", "|", "call 2", "a", "|", "|", "flush", "answer", "|"], "|||a|"),
            (&["call 1", "flush", "call 2", "a", "|", "flush", "answer", "|"], "|a|"),
            // In the middle of what hyper writes there is none.
            (&["call 1", "flush", "|", "a", "|", "flush", "answer", "|"], "||a|"),
            // There was no place before the answer.
            (&["call 1", "a", "answer", "|", "flush"], "|"),
            (&["call 1", "flush", "call 2", "a", "answer", "|", "flush"], "|"),
            (&["call 1", "a", "answer", "|", "call 2", "flush", "b", "flush", "answer", "|"], "|b|"),
            // 100 Continue is hyper's own.
            (&["call 1", "flush", "|", "a", "flush", "answer", "|"], "|a|"),
        ] {
            assert_eq!(out(events), wanted, "{events:?}");
        }
    }

    #[tokio::test]
    async fn what_is_begun_is_finished_first() {
        let (mut stream, mut client) = duplex(10);
        let (interim, mut insertion) = (Interim::default(), Insertion::default());
        interim.begin(1, true);
        insertion.note_flush(&interim);
        assert!(push(&interim, "a"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(insertion.poll_write(&interim, &mut stream, &mut cx).is_pending());
        interim.end();
        let mut seen = Vec::new();
        while insertion.poll_write(&interim, &mut stream, &mut cx).is_pending() {
            insertion.note_write();
            assert!(insertion.is_due(&interim), "the rest comes before anything else");
            let mut part = [0; 10];
            let read = client.read(&mut part).await.unwrap();
            seen.extend_from_slice(&part[..read]);
        }
        drop(stream);
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
        assert!(!insertion.is_due(&interim));
    }
}
