//! Portcullis: an OpenID Connect enforcing reverse proxy.
#![forbid(unsafe_code)]

pub mod clock;
pub mod path;
pub mod secret;
pub mod tag;
pub mod telemetry;
