//! What the application says before its answer: informational answers (RFC 9110 section 15.2), overheard on the
//! stream that hyper reads.
//!
//! hyper would tell them to a callback, which costs every request some 800 instructions (measured with callgrind:
//! an `Arc`, a map of extensions, a box), although hardly any application sends one. Looking at the first bytes
//! of an answer costs next to nothing. What is heard here changes nothing about what hyper reads, nor about where
//! an answer ends: that is hyper's to say.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bell::Bell;
use super::written::Written;

/// Is told of each informational answer, in order.
pub(super) type Heard<'a> = dyn Fn(StatusCode, HeaderMap) + 'a;

/// Listens for informational answers on one connection.
#[derive(Debug, Default)]
pub(super) struct Ear {
    listens: Cell<bool>,
    has_news: Cell<bool>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The beginning of a head that has not ended.
    held: Vec<u8>,
    news: Vec<(StatusCode, HeaderMap)>,
}

impl Ear {
    /// Listens from now on, or does not. To be called before each request.
    pub(super) fn listen(&self, wanted: bool) {
        if self.listens.replace(wanted) || self.has_news.replace(false) {
            *self.state.borrow_mut() = State::default();
        }
    }

    /// Tells what was heard since.
    pub(super) fn tell(&self, inform: Option<&Heard<'_>>) {
        if self.has_news.replace(false)
            && let Some(inform) = inform
        {
            let news = std::mem::take(&mut self.state.borrow_mut().news);
            news.into_iter().for_each(|(status, headers)| inform(status, headers));
        }
    }

    /// Looks at bytes that were just read, while it listens.
    fn hear(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        if state.held.is_empty() && bytes.get(FIRST_DIGIT).is_some_and(|digit| *digit != b'1') {
            // By far the most: the final answer, and at once.
            self.listens.set(false);
            return;
        }
        let room = MAX_HELD_BYTES - state.held.len();
        state.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        loop {
            let (length, head) = match parse(&state.held) {
                Parsed::Informational(length, head) => (length, head),
                Parsed::Partial if state.held.len() < MAX_HELD_BYTES => break,
                Parsed::Partial | Parsed::Other => {
                    self.listens.set(false);
                    state.held = Vec::new();
                    break;
                }
            };
            state.held.drain(..length);
            if let Some(head) = head
                && state.news.len() < MOST_NEWS
            {
                state.news.push(head);
                self.has_news.set(true);
            }
        }
    }
}

enum Parsed {
    /// So many bytes; without a head if it is hyper's own business or can't be repeated.
    Informational(usize, Option<(StatusCode, HeaderMap)>),
    Partial,
    /// A final answer, or none.
    Other,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(bytes);
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    match (parsed, status) {
        // 101 is final too.
        (_, Some(status)) if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS => {
            Parsed::Other
        }
        (Ok(httparse::Status::Complete(length)), Some(status)) => {
            let head = (status != StatusCode::CONTINUE).then(|| headers(answer.headers)).flatten();
            Parsed::Informational(length, head.map(|headers| (status, headers)))
        }
        (Ok(httparse::Status::Partial), _) => Parsed::Partial,
        _ => Parsed::Other,
    }
}

fn headers(fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(headers)
}

/// A stream to the application with an [`Ear`] on what is read from it, and a memory of what is written to it.
#[derive(Debug)]
pub(super) struct Overheard<T> {
    inner: T,
    ear: Rc<Ear>,
    written: Rc<Written>,
    bell: Arc<Bell>,
    /// How often the bell had rung when there was nothing to read. hyper looks again whenever it is polled, and until the
    /// bell rings there is still nothing.
    dry_at: Option<u64>,
}

impl<T> Overheard<T> {
    /// Puts an ear on `inner`, which is read with the waker of `bell` and no other.
    pub(super) fn new(inner: T, bell: Arc<Bell>) -> (Self, Rc<Ear>, Rc<Written>) {
        let (ear, written) = (Rc::new(Ear::default()), Rc::new(Written::default()));
        (Self { inner, ear: ear.clone(), written: written.clone(), bell, dry_at: None }, ear, written)
    }

    /// The stream alone.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Overheard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rings = this.bell.rings();
        if this.dry_at == Some(rings) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.dry_at = read.is_pending().then_some(rings);
        if this.ear.listens.get()
            && let Some(fresh) = buf.filled().get(before..)
            && !fresh.is_empty()
        {
            this.ear.hear(fresh);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Overheard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.written.note(&[io::IoSlice::new(bytes)], taken(&written));
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.written.note(slices, taken(&written));
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// How much of what was offered a write took.
fn taken(written: &Poll<io::Result<usize>>) -> usize {
    if let Poll::Ready(Ok(taken)) = written { *taken } else { 0 }
}

/// Where the first digit of the status is: behind `HTTP/1.1 `.
const FIRST_DIGIT: usize = 9;

/// Bytes of informational answers that are looked at before they end. Of longer ones nothing is passed on.
const MAX_HELD_BYTES: usize = 16 * 1024;

/// Header fields of one.
const MOST_FIELDS: usize = 64;

/// Informational answers that are kept between two looks; the rest of such a flood is dropped.
const MOST_NEWS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLINK: </b.css>\r\n\r\n";
    const LATE: &str = "HTTP/1.1 200 OK\r\nLink: </never>\r\n\r\n";

    /// What is heard of `bytes` in pieces of this size: statuses and links.
    fn heard(bytes: &str, piece: usize) -> Vec<String> {
        let ear = Ear::default();
        ear.listen(true);
        let told = RefCell::new(Vec::new());
        for piece in bytes.as_bytes().chunks(piece) {
            if ear.listens.get() {
                ear.hear(piece);
            }
            ear.tell(Some(&|status, headers| {
                let links: Vec<&str> =
                    headers.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
                told.borrow_mut().push(format!("{} {}", status.as_u16(), links.join(" ")));
            }));
        }
        told.into_inner()
    }

    #[test]
    fn informational_answers_are_heard_however_they_arrive() {
        let early = "103 </a.css> </b.css>";
        for (bytes, wanted) in [
            (LATE.to_owned(), &[][..]),
            (format!("{EARLY}{LATE}"), &[early]),
            (format!("{EARLY}HTTP/1.1 102 Processing\r\n\r\n{EARLY}{LATE}{EARLY}"), &[early, "102 ", early]),
            (format!("HTTP/1.1 100 Continue\r\n\r\n{EARLY}{LATE}"), &[early]),
            (format!("HTTP/1.0 103 \r\n\r\n{LATE}"), &["103 "]),
            (format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{EARLY}"), &[]),
            (format!("HTTP/1.1 103 Early Hints\r\nno colon\r\n\r\n{EARLY}"), &[]),
            (format!("nonsense\r\n\r\n{EARLY}"), &[]),
            (format!("HTTP/1.1 103 X\r\nLink: {}\r\n\r\n{EARLY}", "x".repeat(MAX_HELD_BYTES)), &[]),
            (format!("HTTP/1.1 103 X\r\n{}\r\n{EARLY}", "A: b\r\n".repeat(MOST_FIELDS + 1)), &[]),
        ] {
            for piece in [usize::MAX, 1, 7] {
                assert_eq!(heard(&bytes, piece), wanted, "{bytes:.80} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_flood_is_bounded() {
        let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(500);
        assert_eq!(heard(&flood, usize::MAX).len(), MOST_NEWS);
    }

    #[test]
    fn every_request_begins_anew() {
        let ear = Ear::default();
        ear.listen(true);
        ear.hear(EARLY.as_bytes());
        ear.hear(b"HTTP/1.1 1");
        ear.listen(true);
        ear.hear(LATE.as_bytes());
        ear.tell(Some(&|status, _| panic!("{status}")));
        assert!(!ear.listens.get());
    }
}
