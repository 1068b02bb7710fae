//! The message boundaries of one HTTP/1 connection: heads, bodies, what comes next. Pure: bytes in, and how
//! many of them may be passed on. The parser behind sees the same boundaries or nothing.

use super::Violation;
use super::chunked::ChunkParser;
use super::head::{BodyKind, Bounds, Head, HeadParser};

/// The state machine.
#[derive(Debug)]
pub(super) struct Framing {
    bounds: Bounds,
    state: State,
    /// Request heads that were passed on.
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head(HeadParser),
    Length { left: u64, upgrade: bool },
    Chunked { parser: Box<ChunkParser>, upgrade: bool },
    AwaitUpgrade,
    Refused,
}

/// What becomes of the bytes that [`Framing::advance`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes at the front that may be passed on.
    pub(super) pass: usize,
    /// About the rest.
    pub(super) then: Then,
}

/// About the bytes after those that may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// There are none.
    Continue,
    /// They are the beginning of a head: to be held, and shown again with what follows.
    Hold,
    /// The head before asked for an upgrade: to be held until it is answered.
    AwaitUpgrade,
    /// They are a bad head. Nothing of it, and nothing after it, is passed on.
    RefuseHead(Violation),
    /// The body that is under way is bad. Nothing more is passed on.
    RefuseBody(Violation),
}

impl Framing {
    /// The state at the begin of a connection.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: State::Head(HeadParser::default()), heads: 0 }
    }

    /// Request heads that were passed on so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head is what comes next.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether a body is under way.
    pub(super) fn in_body(&self) -> bool {
        matches!(self.state, State::Length { .. } | State::Chunked { .. })
    }

    /// Goes on with `bytes`. After [`Then::Hold`], the next call must begin with the held bytes again.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Progress {
        let mut pass = 0;
        loop {
            let rest = bytes.get(pass..).unwrap_or_default();
            if rest.is_empty() && !matches!(self.state, State::AwaitUpgrade) {
                return Progress { pass, then: Then::Continue };
            }
            let (taken, then) = match &mut self.state {
                State::Head(parser) => match parser.advance(rest, &self.bounds) {
                    Ok(Some(head)) => (self.accept(head), None),
                    Ok(None) => (0, Some(Then::Hold)),
                    Err(violation) => (0, Some(self.refuse(Then::RefuseHead(violation)))),
                },
                State::Length { left, upgrade } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::after(*upgrade);
                    }
                    (taken, None)
                }
                State::Chunked { parser, upgrade } => match parser.advance(rest) {
                    Ok((taken, false)) => (taken, None),
                    Ok((taken, true)) => {
                        self.state = State::after(*upgrade);
                        (taken, None)
                    }
                    Err((taken, violation)) => (taken, Some(self.refuse(Then::RefuseBody(violation)))),
                },
                State::AwaitUpgrade => (0, Some(Then::AwaitUpgrade)),
                State::Refused => (0, Some(Then::Continue)),
            };
            pass += taken;
            if let Some(then) = then {
                return Progress { pass, then };
            }
        }
    }

    /// The upgrade was declined: what follows is an ordinary request.
    pub(super) fn decline_upgrade(&mut self) {
        if matches!(self.state, State::AwaitUpgrade) {
            self.state = State::after(false);
        }
    }

    fn accept(&mut self, head: Head) -> usize {
        self.heads += 1;
        self.state = match head.body {
            BodyKind::Length(0) => State::after(head.upgrade),
            BodyKind::Length(left) => State::Length { left, upgrade: head.upgrade },
            BodyKind::Chunked => State::Chunked { parser: Box::default(), upgrade: head.upgrade },
        };
        head.len
    }

    fn refuse(&mut self, then: Then) -> Then {
        self.state = State::Refused;
        then
    }
}

impl State {
    fn after(upgrade: bool) -> Self {
        if upgrade { State::AwaitUpgrade } else { State::Head(HeadParser::default()) }
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
pub(super) mod tests;
