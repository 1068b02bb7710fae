//! What strangers' bytes are held to: one function for each place that they reach.
//!
//! Owns the list of the targets, for `cargo fuzz` and for the test that replays their seeds (see `fuzz/README.md`).
//! Each lives in a file `fuzz` of the box that it is about, since it sees what nobody else may. A target panics if an
//! invariant does not hold, whatever the bytes; that nothing else panics is the least of what it shows. No build has
//! this module but those for fuzzing and for tests.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target that meets something unexpected has found something, and says where"
)]

mod pages;
#[cfg(test)]
mod replay;
mod target;

pub use crate::config::fuzz::configuration;
pub use crate::gate::fuzz::{authority, forwarded, login_transaction};
pub use crate::oidc::fuzz::{callback_query, discovery, jwks, jws, logout_token, token_answer, userinfo};
pub use crate::proxy::fuzz::websocket;
pub use crate::server::fuzz::{http1_front, http2_front, proxy_protocol};
pub use crate::session::fuzz::{cookies, sealed};
pub use pages::pages;
pub use target::request_target;

/// A target: takes any bytes, and returns if all is well.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file in `fuzz/fuzz_targets` and of its directory in `fuzz/seeds`.
pub const TARGETS: [(&str, Target); 19] = [
    ("authority", authority),
    ("callback_query", callback_query),
    ("configuration", configuration),
    ("cookies", cookies),
    ("discovery", discovery),
    ("forwarded", forwarded),
    ("http1_front", http1_front),
    ("http2_front", http2_front),
    ("jwks", jwks),
    ("jws", jws),
    ("login_transaction", login_transaction),
    ("logout_token", logout_token),
    ("pages", pages),
    ("proxy_protocol", proxy_protocol),
    ("request_target", request_target),
    ("sealed", sealed),
    ("token_answer", token_answer),
    ("userinfo", userinfo),
    ("websocket", websocket),
];

/// Whether `text` can stand in a line of a log or on a terminal: no character that steers either.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
}
