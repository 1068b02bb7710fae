//! The server on real sockets, with a handler that tells what it was given.

mod balance;
mod balancer;
mod conformance;
mod drain;
mod http1;
mod http2;
mod interim;
mod limits;
mod park;
mod support;
mod turns;
