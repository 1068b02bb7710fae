//! What tests/attack/floods.py starts beside the proxy: who attacks it, who uses it meanwhile, and the application
//! behind it. Each is a process of its own, so that what it takes of the processors is its own.
//!
//! ```text
//! flood app PORT HTTP2-PORT         the application
//! flood users JSON                  people who are logged in; a line for each request
//! flood logins JSON                 people who log in, all at once; one line at the end
//! flood attack NAME JSON            one attack; one line at the end
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool of the tests: what it does not expect ends it, and that is a failure"
)]

mod app;
mod browser;
mod frames;
mod heads;
mod http2;
mod http2_windows;
mod requests;
mod stalls;
mod tls;
mod users;
mod websockets;
mod wire;

use serde::{Deserialize, Serialize};

/// What an attack is told.
#[derive(Clone, Debug, Deserialize)]
pub struct Plan {
    /// Where the proxy listens with TLS.
    pub port: u16,
    /// Where the provider listens.
    #[serde(default)]
    pub provider: u16,
    /// How many of whatever the attack counts.
    #[serde(default)]
    pub count: usize,
    /// How long it goes on, where it would do so forever.
    #[serde(default)]
    pub seconds: f64,
    /// The limits that the proxy runs with, in seconds.
    #[serde(default)]
    pub header_timeout: f64,
    /// See [`Self::header_timeout`].
    #[serde(default)]
    pub handshake_timeout: f64,
    /// See [`Self::header_timeout`].
    #[serde(default)]
    pub body_idle_timeout: f64,
}

/// What came of an attack.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// The most connections that were open at once.
    pub connections: usize,
    /// What the proxy should not have done.
    pub wrong: Vec<String>,
    /// For the table.
    pub words: String,
    /// From when to when (seconds of Unix time) it was at rest, if that is the attack: others may not feel it then.
    /// Before and after, connections are opened and closed, all at once.
    pub at_rest: Option<(f64, f64)>,
}

/// The host of the service.
pub const HOST: &str = "app.localhost";

/// The host of the service that people use meanwhile, on the same port.
pub const USERS_HOST: &str = "users.localhost";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let plan = |text: &str| serde_json::from_str::<Plan>(text).unwrap();
    runtime.block_on(async {
        match arguments[..] {
            ["app", port, http2] => app::serve(port.parse().unwrap(), http2.parse().unwrap()).await,
            ["users", text] => users::go_on(plan(text)).await,
            ["logins", text] => users::log_in_at_once(plan(text)).await,
            ["attack", name, text] => {
                let outcome = attack(name, plan(text)).await;
                println!("{}", serde_json::to_string(&outcome).unwrap());
            }
            _ => panic_with("flood app PORT HTTP2-PORT | users JSON | logins JSON | attack NAME JSON"),
        }
    });
}

async fn attack(name: &str, plan: Plan) -> Outcome {
    match name {
        "slow-heads" => stalls::slow_heads(plan).await,
        "byte-a-second" => stalls::byte_a_second(plan).await,
        "slow-bodies" => stalls::slow_bodies(plan).await,
        "stalled-bodies" => stalls::stalled_bodies(plan).await,
        "slow-readers" => stalls::slow_readers(plan).await,
        "silent" => stalls::silent(plan).await,
        "stalled-hellos" => tls::stalled_hellos(plan).await,
        "split-hellos" => tls::split_hellos(plan).await,
        "hellos" => tls::hellos(plan).await,
        "key-updates" => tls::key_updates(plan).await,
        "idle" => stalls::idle(plan).await,
        "large-heads" => heads::large(plan).await,
        "cookies" => heads::cookies(plan).await,
        "chunk-extensions" => heads::chunk_extensions(plan).await,
        "endless-uploads" => requests::endless_uploads(plan).await,
        "unread-uploads" => requests::unread_uploads(plan).await,
        "pipelined" => requests::pipelined(plan).await,
        "pipelined-unread" => requests::pipelined_unread(plan).await,
        "anonymous" => requests::anonymous(plan).await,
        "logout-garbage" => requests::logout_garbage(plan).await,
        "forged-key-ids" => requests::forged_key_ids(plan).await,
        "rapid-reset" => http2::rapid_reset(plan).await,
        "made-you-reset" => http2::made_you_reset(plan).await,
        "continuation" => http2::continuation(plan).await,
        "hpack" => http2::hpack(plan).await,
        "header-list" => http2::header_list(plan).await,
        "control-frames" => http2::control_frames(plan).await,
        "window-updates" => http2::window_updates(plan).await,
        "zero-window" => http2_windows::zero_window(plan).await,
        "unread-streams" => http2_windows::unread(plan).await,
        "unread-upload-streams" => http2_windows::uploads(plan).await,
        "websockets-idle" => websockets::idle(plan).await,
        "websockets-tiny" => websockets::tiny(plan).await,
        "websockets-unread" => websockets::unread(plan).await,
        _ => panic_with(name),
    }
}

#[allow(clippy::panic, reason = "wrong usage")]
fn panic_with(what: &str) -> ! {
    panic!("{what}")
}
