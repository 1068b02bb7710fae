//! The strict front: what stands between the bytes of a client and the HTTP parsers of hyper.
//!
//! hyper is a good parser and a tolerant one: it takes several equal `Content-Length` fields, both framing
//! fields at once, `gzip, chunked`, bare line feeds. Each tolerance is a way in which two parsers on one path
//! can disagree about where a request ends, so the front refuses them (RFC 9112 sections 2.2, 5, 6 and 7.1).
//! It holds a head back until all of it is accepted, so that hyper never sees the beginning of a bad one.
//!
//! It knows bytes and boundaries only: no rules, no sessions, no answers. A refusal becomes an answer because
//! the front hands hyper one minimal request in place of the bad one, and the service marks it with the
//! [`Violation`]; the connection closes after the answer.

mod chunked;
mod frames;
mod framing;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod head;
mod interim;
mod io;
mod stream_interim;
mod syntax;
mod violation;
mod wire;

pub(super) use head::{Bounds, MAX_METHOD_BYTES, content_length};
pub(super) use interim::Interim;
pub(super) use io::{Arrivals, Front};
pub(super) use stream_interim::StreamInterim;
pub(super) use syntax::{is_host, is_imitation, is_target};
pub use violation::Violation;
pub(super) use wire::{Signals, Wire};

/// What hyper reads in place of a refused head. It never reaches a rule or the application: the service
/// knows it by its number on the connection.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n";
