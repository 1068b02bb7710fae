//! What every box shares of HTTP: how we call out, and (with the pages and bodies) how we answer.
//!
//! Knows no rule, session or provider: only the leaves are below it.

mod dial;
pub mod outbound;
pub mod reach;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;
