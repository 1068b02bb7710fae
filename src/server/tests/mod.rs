//! The server on real sockets, with a handler that tells what it was given.

mod balancer;
mod drain;
mod http1;
mod http2;
mod interim;
mod limits;
mod park;
mod support;
