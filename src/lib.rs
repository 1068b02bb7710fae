//! Portcullis: an OpenID Connect enforcing reverse proxy.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod devidp;
pub mod explain;
pub mod gate;
pub mod oidc;
pub mod path;
pub mod policy;
pub mod proxy;
pub mod run;
pub mod secret;
pub mod server;
pub mod session;
pub mod tag;
pub mod telemetry;
pub mod tls;
pub mod trial;
pub mod watch;
pub mod web;
