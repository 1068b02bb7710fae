//! The development identity provider and the demo app behind `try` and `dev-idp`.
//!
//! An OpenID provider small enough to read, yet correct (code flow with PKCE, nonce, `iss` in the answer,
//! `prompt`, `max_age`, `acr_values`, refresh tokens that rotate, revocation, logout), where signing in is a
//! click on a name. It signs with a key made at its start, serves on loopback only, and keeps everything in
//! memory, bounded.
//!
//! Nothing that `run` does leads here: the gate knows the provider only as an issuer's address.

mod answer;
mod authorize;
mod client;
mod demo;
mod grants;
mod idp;
mod key;
mod memory;
mod parameters;
mod serve;
mod setup;
mod token;
mod user;

pub use client::{Client, RedirectUris};
pub use demo::DemoApp;
pub use idp::DevIdp;
pub use key::KeyError;
pub use serve::ServeError;
pub use setup::{App, DEFAULT_USER_TAG, Setup, callback_url, may_use};
pub use user::{User, demo_users};

#[cfg(test)]
mod tests;
