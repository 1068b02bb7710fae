//! Portcullis: an OpenID Connect enforcing reverse proxy.
#![forbid(unsafe_code)]

pub mod clock;
pub mod devidp;
pub mod oidc;
pub mod path;
pub mod policy;
pub mod proxy;
pub mod secret;
pub mod session;
pub mod tag;
pub mod telemetry;
pub mod tls;
pub mod watch;
pub mod web;
