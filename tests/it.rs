//! Integration tests: the finished binary on real sockets, between a browser that is scripted, an identity
//! provider that misbehaves on demand, and an application that writes down every byte that it gets.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that meets something unexpected has failed, and says where"
)]

mod support;

/// The tests, by topic.
mod it {
    mod admin;
    mod architecture;
    mod balancer;
    mod claims;
    mod commands;
    mod config_errors;
    mod cuts;
    mod early_answers;
    mod endurance;
    mod expiry;
    mod forwarding;
    mod framing;
    mod grpc;
    mod hosts;
    mod interim;
    mod keygen;
    mod limits;
    mod login;
    mod logout;
    mod malformed_http2;
    mod matrix;
    mod memory;
    mod original;
    mod outcomes;
    mod own_answers;
    mod paths;
    mod provider_floods;
    mod provider_tls;
    mod refresh;
    mod reload;
    mod replicas;
    mod revocation;
    mod rp_answers;
    mod rp_basic;
    mod rp_config;
    mod rp_tokens;
    mod secrecy;
    mod session;
    mod shutdown;
    mod streams;
    mod tunnels;
}
