//! One HTTP/1 request head, judged line by line as it arrives. Pure: it sees bytes and says a verdict, and the
//! verdict does not depend on how the bytes were cut into pieces.

use super::Violation;
use super::syntax::{find_control, is_host, is_imitation, is_target, is_token};

/// What a head may have at most.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Bounds {
    /// Bytes of the whole head, its final empty line included.
    pub(in crate::server) head_bytes: usize,
    /// Header fields.
    pub(in crate::server) fields: usize,
    /// Bytes of the request target.
    pub(in crate::server) target_bytes: usize,
    /// The scheme that an absolute-form target must have: `https` on TLS, else `http`.
    pub(in crate::server) scheme: &'static str,
}

/// How the body of an accepted head is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    Length(u64),
    Chunked,
}

/// A head that is complete and accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its bytes, the final empty line included.
    pub(super) len: usize,
    pub(super) body: BodyKind,
    /// Whether it asks to leave HTTP after the answer.
    pub(super) upgrade: bool,
}

/// The parser. Called with all the bytes of the head so far, each time more of them.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    /// Up to here no control character ends a line.
    scanned: usize,
    line_start: usize,
    stage: Stage,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    #[default]
    Start,
    /// One empty line was skipped (RFC 9112 section 2.2 asks for that much tolerance).
    AfterEmptyLine,
    Fields,
}

/// What the lines said so far. Ranges are offsets into the head.
#[derive(Debug, Default)]
struct Facts {
    http10: bool,
    fields: usize,
    authority: Option<(usize, usize)>,
    host: Option<(usize, usize)>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    keep_alive: bool,
    /// The method is one whose requests have bodies.
    has_body: bool,
}

impl HeadParser {
    /// Goes on with `head`, which begins with the bytes of the calls before. `None`: more is needed.
    pub(super) fn advance(&mut self, head: &[u8], bounds: &Bounds) -> Result<Option<Head>, Violation> {
        if self.line_start == 0
            && let Some(&first) = head.first()
            && first != b'\r'
            && !is_token(first)
        {
            return Err(Violation::RequestLine);
        }
        loop {
            let at = self.scanned + find_control(head.get(self.scanned..).unwrap_or_default());
            self.scanned = at;
            self.check_size(at, bounds)?;
            match (head.get(at), head.get(at + 1)) {
                (None, _) | (Some(b'\r'), None) => return Ok(None),
                (Some(b'\t'), _) if self.stage == Stage::Fields => self.scanned = at + 1,
                (Some(b'\r'), Some(b'\n')) => {
                    let line = head.get(self.line_start..at).unwrap_or_default();
                    let start = self.line_start;
                    self.line_start = at + 2;
                    self.scanned = at + 2;
                    if self.line(line, start, bounds)? {
                        return self.finish(head, bounds).map(Some);
                    }
                }
                (Some(b'\r' | b'\n'), _) => return Err(Violation::LineEnding),
                _ => return Err(Violation::Control),
            }
        }
    }

    /// Judges the sizes at the position up to which the bytes are known. Positions and not lengths of what
    /// has arrived, so that the verdict is the same however it arrives.
    fn check_size(&self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        let line_bytes = MAX_METHOD_BYTES + bounds.target_bytes + " HTTP/1.1 ".len();
        let in_request_line = self.stage != Stage::Fields;
        if in_request_line && line_bytes < bounds.head_bytes && at - self.line_start > line_bytes {
            return Err(Violation::TargetTooLong);
        }
        if at > bounds.head_bytes { Err(Violation::HeadTooLarge) } else { Ok(()) }
    }

    /// Takes one line without its CR LF. True: it was the empty line that ends the head.
    fn line(&mut self, line: &[u8], start: usize, bounds: &Bounds) -> Result<bool, Violation> {
        match self.stage {
            Stage::Start if line.is_empty() => self.stage = Stage::AfterEmptyLine,
            Stage::Start | Stage::AfterEmptyLine => {
                self.request_line(line, start, bounds)?;
                self.stage = Stage::Fields;
            }
            Stage::Fields if line.is_empty() => return Ok(true),
            Stage::Fields => {
                self.facts.fields += 1;
                if self.facts.fields > bounds.fields {
                    return Err(Violation::TooManyFields);
                }
                self.facts.field(line, start)?;
            }
        }
        Ok(false)
    }

    fn request_line(&mut self, line: &[u8], start: usize, bounds: &Bounds) -> Result<(), Violation> {
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), version, None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Violation::RequestLine);
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(Violation::RequestLine);
        }
        if method.len() > MAX_METHOD_BYTES {
            return Err(Violation::MethodTooLong);
        }
        self.facts.http10 = match version {
            Some(b"HTTP/1.1") => false,
            Some(b"HTTP/1.0") => true,
            Some(other) if other.starts_with(b"HTTP/") => return Err(Violation::Version),
            _ => return Err(Violation::RequestLine),
        };
        if method == b"CONNECT" {
            return Err(Violation::Connect);
        }
        self.facts.has_body = matches!(method, b"POST" | b"PUT" | b"PATCH");
        if target.len() > bounds.target_bytes {
            return Err(Violation::TargetTooLong);
        }
        self.facts.authority = authority_of(target, bounds.scheme)?.map(|(from, to)| {
            let target_start = start + method.len() + 1;
            (target_start + from, target_start + to)
        });
        Ok(())
    }

    /// The checks that need the whole head.
    fn finish(&mut self, head: &[u8], bounds: &Bounds) -> Result<Head, Violation> {
        let facts = &self.facts;
        let len = self.scanned;
        if len > bounds.head_bytes {
            return Err(Violation::HeadTooLarge);
        }
        let text = |range: Option<(usize, usize)>| range.and_then(|(from, to)| head.get(from..to));
        match (text(facts.authority), text(facts.host)) {
            (None, None) if !facts.http10 => return Err(Violation::HostMissing),
            // RFC 9112 section 3.2.2: the authority of the target would replace Host. Both must agree instead.
            (Some(_), None) => return Err(Violation::HostMissing),
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                return Err(Violation::HostDiffers);
            }
            _ => {}
        }
        if facts.chunked && facts.content_length.is_some() {
            return Err(Violation::LengthAndEncoding);
        }
        if facts.chunked && facts.http10 {
            return Err(Violation::TransferEncoding);
        }
        if facts.http10 && facts.keep_alive {
            return Err(Violation::KeepAliveHttp10);
        }
        // Once such a body ended with the connection; what follows would be lost, or taken for a request.
        if facts.http10 && facts.has_body && facts.content_length.is_none() {
            return Err(Violation::ContentLength);
        }
        let body = match facts.chunked {
            true => BodyKind::Chunked,
            false => BodyKind::Length(facts.content_length.unwrap_or(0)),
        };
        Ok(Head { len, body, upgrade: facts.upgrade && !facts.http10 })
    }
}

impl Facts {
    /// Takes one header field line that begins at `start` in the head.
    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Violation> {
        let (name, value) = split_field(line)?;
        let value_start = start + name.len() + 1;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let (from, to) = trimmed(value);
                if self.host.is_some() {
                    return Err(Violation::HostRepeated);
                }
                if !value.get(from..to).is_some_and(is_host) {
                    return Err(Violation::HostInvalid);
                }
                self.host = Some((value_start + from, value_start + to));
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.keep_alive |= value.split(|&byte| byte == b',').any(|word| {
                    let (from, to) = trimmed(word);
                    word.get(from..to).is_some_and(|word| word.eq_ignore_ascii_case(b"keep-alive"))
                });
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(value).ok_or(Violation::ContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Violation::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let coding = value.strip_prefix(b" ").unwrap_or(value);
                if self.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::TransferEncoding);
                }
                self.chunked = true;
            }
            14 | 17 if is_imitation(name) => return Err(Violation::Imitation),
            _ => {}
        }
        Ok(())
    }
}

/// Cuts a field line into its name, checked, and the bytes after the colon.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::Folding);
    }
    let colon = line.iter().position(|&byte| !is_token(byte)).filter(|&at| at > 0 && at <= MAX_NAME_BYTES);
    match colon.and_then(|at| line.split_at_checked(at)) {
        Some((name, [b':', value @ ..])) => Ok((name, value)),
        _ => Err(Violation::Field),
    }
}

/// Where in `value` its text is, without the white space around it.
fn trimmed(value: &[u8]) -> (usize, usize) {
    let is_text = |&byte: &u8| byte != b' ' && byte != b'\t';
    let from = value.iter().position(is_text).unwrap_or(value.len());
    (from, value.iter().rposition(is_text).map_or(from, |last| last + 1))
}

/// Only plain digits after at most one space, no leading zeros, and small enough for a signed 64-bit
/// integer: what every parser on the way reads as the same number.
pub(in crate::server) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b" ").unwrap_or(value);
    let well_formed = digits.iter().all(u8::is_ascii_digit) && (digits == b"0" || !digits.starts_with(b"0"));
    let number = std::str::from_utf8(digits).ok().filter(|_| well_formed)?.parse::<u64>().ok()?;
    i64::try_from(number).is_ok().then_some(number)
}

/// The range of the authority in an absolute-form target; `None` for origin-form. Asterisk-form and
/// authority-form are refused: no rule can be about them.
fn authority_of(target: &[u8], scheme: &str) -> Result<Option<(usize, usize)>, Violation> {
    let (authority, path) = if target.starts_with(b"/") {
        (None, target)
    } else {
        let begin = scheme.len() + "://".len();
        let (prefix, rest) = target.split_at_checked(begin).ok_or(Violation::Target)?;
        let scheme_is_ours =
            prefix.strip_suffix(b"://").is_some_and(|s| s.eq_ignore_ascii_case(scheme.as_bytes()));
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(Violation::Target)?;
        if !scheme_is_ours || !is_host(authority) {
            return Err(Violation::Target);
        }
        (Some((begin, begin + end)), path)
    };
    let mut in_query = false;
    for &byte in path {
        if !is_target(byte, in_query) {
            return Err(Violation::Target);
        }
        in_query |= byte == b'?';
    }
    Ok(authority)
}

/// Longest method that is passed on; longer ones get 501.
pub(in crate::server) const MAX_METHOD_BYTES: usize = 32;

/// Longest field name. The parser behind would take 64 KiB, with a debug assertion above it.
const MAX_NAME_BYTES: usize = 1024;
