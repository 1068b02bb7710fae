//! What Portcullis itself says over HTTP: the body type of every message, every answer that does not come
//! from the application, and the client for calls to the identity provider.
//!
//! Knows nothing of rules, sessions or the provider: callers hand in plain values.

pub mod body;
pub mod challenge;
mod deadline;
mod dial;
mod fail;
pub mod lifeline;
pub mod outbound;
pub mod page;
mod problem;
pub mod reach;
mod refuse;
pub mod respond;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod trailers;
pub mod transit;
pub mod trust;

pub use body::Body;
