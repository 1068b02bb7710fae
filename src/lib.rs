//! Portcullis: an OpenID Connect enforcing reverse proxy.
#![forbid(unsafe_code)]

pub mod clock;
pub mod secret;
pub mod server;
