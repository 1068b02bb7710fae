//! The limits of the process and their defaults. What stays inside the server and what the configuration
//! hands to other boxes stand side by side here, because users meet them as one section of the file.

use std::time::Duration;

/// The `limits` section. Times are spans, sizes are bytes, the rest are counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a request head may take from its first byte to its last; on a new connection, also how long
    /// the first byte may take.
    pub header_timeout: Duration,
    /// How long a TLS handshake, and a PROXY header before it, may take, from the TCP connection on.
    pub handshake_timeout: Duration,
    /// Bytes of a request head; on HTTP/2, of its header list as RFC 9113 section 6.5.2 counts.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Streams at once on an HTTP/2 connection.
    pub h2_streams: u32,
    /// Connections of clients at once, over all listeners. More wait in the backlog of the system.
    pub connections: usize,
    /// How long connecting to the application may take.
    pub connect_timeout: Duration,
    /// How long the head of an answer of the application may take.
    pub response_timeout: Duration,
    /// How long a body may stand still, in either direction; also a client that takes nothing of an answer.
    pub body_idle_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long the process goes on accepting after it stopped being ready.
    pub shutdown_delay: Duration,
    /// How long requests under way may take once the process no longer accepts.
    pub drain: Duration,
    /// Worker threads.
    pub workers: usize,
}

impl Limits {
    /// The largest `header_bytes`, `header_fields` and `target_bytes` that the parsers behind can hold.
    pub const MOST_HEADER_BYTES: usize = 1024 * 1024;
    /// See [`Self::MOST_HEADER_BYTES`].
    pub const MOST_HEADER_FIELDS: usize = 1000;
    /// See [`Self::MOST_HEADER_BYTES`]. The `http` crate keeps offsets into a target in 16 bits.
    pub const MOST_TARGET_BYTES: usize = 60 * 1024;

    /// These limits, with those sizes that the parsers behind could not hold cut to what they can.
    pub(super) fn within_reach(self) -> Self {
        Self {
            header_bytes: self.header_bytes.min(Self::MOST_HEADER_BYTES),
            header_fields: self.header_fields.min(Self::MOST_HEADER_FIELDS),
            target_bytes: self.target_bytes.min(Self::MOST_TARGET_BYTES),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            header_bytes: 64 * 1024,
            header_fields: 100,
            target_bytes: 16 * 1024,
            h2_streams: 100,
            connections: 10_000,
            connect_timeout: Duration::from_secs(3),
            response_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            shutdown_delay: Duration::from_secs(5),
            drain: Duration::from_secs(25),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
