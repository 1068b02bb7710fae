//! What the tests stand on. Knows the product only from outside: its command line, its sockets and its log.

pub mod app;
pub mod client;
pub mod exchange;
pub mod expect;
pub mod frames;
pub mod grpc;
pub mod idp;
pub mod inside;
pub mod origin;
pub mod ports;
pub mod proxy;
pub mod redis;
pub mod secrets;
pub mod stage;

use std::future::Future;
use std::time::Duration;

/// Longest wait for anything that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, and fails with `what` when it takes longer than [`PATIENCE`].
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
