//! What was written to the application, to be written again: the head of a request whose connection died under it.
//!
//! Keeping the bytes costs a request one copy of some hundred of them; keeping a second request costs it a reference
//! to each field, taken and given back. Knows nothing of when a request may be repeated.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::IoSlice;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::upload::Upload;

/// The bytes that one request without a body was written as.
#[derive(Default)]
pub(super) struct Written {
    keeps: Cell<bool>,
    bytes: RefCell<Vec<u8>>,
    /// How many of them the connection has taken.
    taken: Cell<usize>,
}

/// A longer head is not kept beyond its exchange.
const KEPT_BYTES: usize = 4 * 1024;

/// Fields of a request that is read again: more than any listener takes.
const MOST_FIELDS: usize = 4096;

impl Written {
    /// Begins anew, and keeps what comes or does not.
    pub(super) fn begin(&self, keeps: bool) {
        self.keeps.set(keeps);
        self.taken.set(0);
        let mut bytes = self.bytes.borrow_mut();
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
    }

    /// Notes what is offered to the connection, `first` and then what `rest` has, and what of it was taken.
    pub(super) fn note(&self, slices: &[IoSlice<'_>], taken: usize) {
        if !self.keeps.get() {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        // What was offered before and not taken is offered again.
        bytes.truncate(self.taken.get());
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        self.taken.set(self.taken.get() + taken);
    }

    /// The request. `None`: not all of it was offered, or it was not kept.
    pub(super) fn request(&self) -> Option<Request<Upload>> {
        let bytes = self.bytes.borrow();
        let mut room = 128;
        loop {
            let mut fields = vec![httparse::EMPTY_HEADER; room];
            let mut parsed = httparse::Request::new(&mut fields);
            match parsed.parse(&bytes) {
                Ok(httparse::Status::Complete(length)) if length == bytes.len() => return repeat(&parsed),
                Err(httparse::Error::TooManyHeaders) if room < MOST_FIELDS => room *= 2,
                _ => return None,
            }
        }
    }
}

/// Shows none of the bytes: there are cookies and credentials among them.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("keeps", &self.keeps).finish_non_exhaustive()
    }
}

fn repeat(parsed: &httparse::Request<'_, '_>) -> Option<Request<Upload>> {
    let target = Bytes::copy_from_slice(parsed.path?.as_bytes());
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let mut request = Request::new(Upload::empty());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from(PathAndQuery::from_maybe_shared(target).ok()?);
    *request.headers_mut() = headers;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a%2Fb?c HTTP/1.1\r\nhost: app\r\nx: 1\r\nx: \xff2\r\n\r\n";

    #[test]
    fn a_request_is_read_as_it_was_written_however_it_was_taken() {
        for taken in [HEAD.len(), 1, 7] {
            let written = Written::default();
            written.begin(true);
            let mut rest = HEAD;
            while !rest.is_empty() {
                let (first, second) = rest.split_at(rest.len() / 2);
                let taken = taken.min(rest.len());
                written.note(&[IoSlice::new(first), IoSlice::new(second)], taken);
                rest = &rest[taken..];
            }
            let request = written.request().unwrap();
            assert_eq!(
                (request.method().as_str(), request.uri().to_string()),
                ("GET", "/a%2Fb?c".to_owned())
            );
            let values: Vec<_> = request.headers().get_all("x").iter().map(HeaderValue::as_bytes).collect();
            assert_eq!((values, request.headers().len()), (vec![&b"1"[..], b"\xff2"], 3));
        }
    }

    #[test]
    fn what_was_offered_counts_although_not_all_was_taken() {
        let written = Written::default();
        written.begin(true);
        written.note(&[IoSlice::new(HEAD)], 3);
        assert!(written.request().is_some());
        written.note(&[IoSlice::new(&HEAD[3..9])], 6);
        assert!(written.request().is_none(), "the rest was never offered again");
        written.begin(false);
        written.note(&[IoSlice::new(HEAD)], HEAD.len());
        assert!(written.request().is_none(), "it was not to be kept");
    }

    #[test]
    fn many_fields_are_read_and_a_large_head_is_not_kept_for_ever() {
        let fields: String = (0..1000).map(|number| format!("x-{number}: y\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let written = Written::default();
        written.begin(true);
        written.note(&[IoSlice::new(head.as_bytes())], head.len());
        assert_eq!(written.request().unwrap().headers().len(), 1000);
        written.begin(true);
        assert!(written.bytes.borrow().capacity() <= KEPT_BYTES);
    }
}
