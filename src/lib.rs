//! Portcullis: an OpenID Connect enforcing reverse proxy.
#![forbid(unsafe_code)]

pub mod clock;
pub mod devidp;
pub mod secret;
pub mod web;
