//! Bytes of bodies that are on their way through the process, and how many there may be.
//!
//! A body is read ahead of its reader: into the buffers of the other connection, of each stream of it, of TLS. For one
//! exchange that is little. Who opens many, and takes nothing of what comes (or sends to an application that takes
//! nothing), could fill the memory with it. So all bytes of all bodies are counted for as long as anybody holds them,
//! and when there are many, a body has to wait with its next piece until the last one has gone. That keeps every
//! exchange moving at the pace of its reader, and no reader waits for another.
//!
//! The pieces are small then, too: whoever reads from a connection makes ever larger buffers for as long as they are
//! filled, and keeps them, however little is in them later. So reads are the smaller the more bodies there are, also
//! before much is held: most of what flows into a crowd of readers that take nothing flows before that shows.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Bytes of all bodies that may be held before each body is limited to one piece. As much again, and more, lies where
/// nobody counts it: in the buffers that the pieces were cut from, and ahead of the readers of connections.
const PLENTY: usize = 8 * 1024 * 1024;

/// What a read of each connection gives at most, all bodies together, as long as it is [`SMALL_READ`] for each. A few
/// bodies are read as fast as can be.
const AT_ONCE: usize = 4 * 1024 * 1024;

/// What one read gives in any case. One byte less than the buffer that hyper begins with, which it makes larger once it
/// is filled.
const SMALL_READ: usize = 8 * 1024 - 1;

/// What a piece counts beside its bytes: what keeps it.
const PIECE_OVERHEAD: usize = 128;

/// Of the whole process, as its memory is.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bodies of more than one piece, each until the last of its bytes has gone.
static BODIES: AtomicUsize = AtomicUsize::new(0);

/// How much one read may give now.
fn share() -> usize {
    if HELD.load(Relaxed) > PLENTY {
        return SMALL_READ;
    }
    match BODIES.load(Relaxed) {
        0 | 1 => AT_ONCE,
        bodies => (AT_ONCE / bodies).max(SMALL_READ),
    }
}

/// Reads from a connection that carries bodies.
pub fn poll_read<S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let share = share();
    if buf.remaining() <= share {
        return stream.poll_read(cx, buf);
    }
    Pin::new(&mut stream.take(share as u64)).poll_read(cx, buf)
}

/// The bytes of one body.
#[derive(Debug, Default)]
pub(super) struct Transit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Default for Shared {
    fn default() -> Self {
        BODIES.fetch_add(1, Relaxed);
        Self { held: AtomicUsize::new(0), waiting: Mutex::default() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        BODIES.fetch_sub(1, Relaxed);
    }
}

impl Transit {
    /// Whether the body has to wait. If so, the task is woken when it need not any more.
    pub(super) fn must_wait(&self, cx: &Context<'_>) -> bool {
        if !self.is_over() {
            return false;
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = Some(cx.waker().clone());
        drop(waiting);
        // The last piece may have gone meanwhile.
        self.is_over()
    }

    /// Whether the body would have to wait now.
    pub(super) fn is_over(&self) -> bool {
        HELD.load(SeqCst) > PLENTY && self.0.held.load(SeqCst) > 0
    }

    /// The same bytes, counted until the last one who holds them lets go.
    pub(super) fn carry(&self, bytes: Bytes) -> Bytes {
        let size = bytes.len() + PIECE_OVERHEAD;
        HELD.fetch_add(size, SeqCst);
        self.0.held.fetch_add(size, SeqCst);
        Bytes::from_owner(Piece { bytes, size, of: self.0.clone() })
    }
}

struct Piece {
    bytes: Bytes,
    size: usize,
    of: Arc<Shared>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        HELD.fetch_sub(self.size, SeqCst);
        if self.of.held.fetch_sub(self.size, SeqCst) > self.size {
            return;
        }
        let waiting = self.of.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Bodies that are under way, as many as are asked for, until they are dropped.
#[cfg(test)]
pub(crate) fn crowd(bodies: usize) -> Vec<impl Sized> {
    std::iter::repeat_with(Transit::default).take(bodies).collect()
}

/// Holds so much that every body is limited to one piece, until it is dropped.
#[cfg(test)]
pub(crate) fn pressure() -> Bytes {
    Transit::default().carry(Bytes::from(vec![0; PLENTY]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    /// The more bodies there are, the less one read gives, and none is left without.
    #[test]
    fn reads_are_shared_out() {
        let read = |room: usize| {
            let mut source: &[u8] = &[b'x'; 64 * 1024];
            let (mut space, cx) = (vec![0; room], &mut Context::from_waker(Waker::noop()));
            let mut buf = ReadBuf::new(&mut space);
            assert!(poll_read(Pin::new(&mut source), cx, &mut buf).is_ready());
            assert!(buf.filled().iter().all(|byte| *byte == b'x'));
            buf.filled().len()
        };
        let many = crowd(AT_ONCE / (32 * 1024));
        // Other tests have bodies too.
        let share = read(64 * 1024);
        assert!((SMALL_READ..=32 * 1024).contains(&share), "{share}");
        let more = crowd(AT_ONCE / 1024);
        assert_eq!(read(64 * 1024), SMALL_READ);
        assert_eq!(read(SMALL_READ - 1), SMALL_READ - 1);
        drop((many, more));
    }

    #[test]
    fn when_much_is_held_a_body_has_one_piece_at_a_time() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let body = Transit::default();
        let piece = body.carry(Bytes::from_static(b"piece"));
        let other = Transit::default();
        let much = other.carry(Bytes::from(vec![0; PLENTY]));
        assert!(body.must_wait(&cx));
        let part = piece.slice(1..3);
        drop(piece);
        assert_eq!(part, "ie");
        assert!(body.must_wait(&cx) && !woken.0.load(SeqCst), "a part of it is still held");
        drop(part);
        assert!(woken.0.load(SeqCst));
        assert!(!body.must_wait(&cx), "it may have one piece, whatever others hold");
        assert!(other.must_wait(&cx));
        drop(much);
        assert!(!other.must_wait(&cx));
    }
}
