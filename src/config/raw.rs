//! The mirror of the file: every section and key as the operator writes it, with its description and its
//! default. The schema and the reference are made from these types. Knows nothing of what the values mean
//! together: that is `resolve`'s.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::raw_redis::Redis;
use super::raw_service::Service;
use super::raw_spec::HttpResourceSpec;
use super::unit::{Size, TimeSpan};
use crate::secret::Secret;

/// The configuration of Portcullis: one YAML file, or a directory of `*.yaml` files that are read in the order
/// of their names.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(title = "Portcullis configuration")]
pub struct File {
    /// The applications to protect. In a directory the lists of all files are appended.
    #[schemars(extend("x-needed" = true))]
    pub services: Vec<Service>,
    /// The rules: sets of endpoints that services select by tags. In a directory the lists of all files are
    /// appended.
    pub http_resource_specs: Vec<HttpResourceSpec>,
    /// How long a login lasts, and how its cookie is sealed. Holds for all services; nothing of one service's
    /// session is ever accepted by another.
    pub session: Session,
    /// Where the operator looks at the running proxy. Never on the port of the traffic.
    pub admin: Admin,
    /// The log on standard output: one line per request, and one per event.
    pub log: Log,
    /// Bounds on what clients and the application may take. None can be turned off.
    pub limits: Limits,
    /// A directory that survives restarts, for the session key, for what was logged out, and for the own CA; made if
    /// missing, and for one process at a time. The default is `$STATE_DIRECTORY`, which systemd sets. Without one,
    /// all that lives in memory, and a restart logs everybody out.
    pub state_directory: Option<String>,
}

/// `session`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Session {
    /// Where sessions live.
    pub store: Store,
    /// Redis, if `store` is `redis`.
    pub redis: Option<Redis>,
    /// A file of session keys, one a line: base64 of 32 bytes; lines that begin with `#` are comments. The first
    /// key seals, all of them open: to change the key, put the new one on top. By default one key is made and
    /// kept in `stateDirectory`.
    pub key_file: Option<String>,
    /// The session cookie. Another name must begin with `__Host-`. If two services share a host, each appends
    /// `-` and its own name, because cookies know no ports.
    pub cookie_name: String,
    /// A session that is not used for so long is over. Bytes of a WebSocket, a download or another stream are use.
    #[schemars(extend("x-minimum" = "1s"))]
    pub idle_timeout: TimeSpan,
    /// A session is over so long after the login, used or not.
    #[schemars(extend("x-minimum" = "1s"))]
    pub max_lifetime: TimeSpan,
    /// How long before its tokens expire a session with a refresh token (scope `offline_access`) is refreshed, at
    /// most half of their lifetime. Its tags are then made anew.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub refresh_before: TimeSpan,
    /// A session without a refresh token also ends with its ID token.
    pub bound_to_token: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            store: Store::Cookie,
            redis: None,
            key_file: None,
            cookie_name: "__Host-portcullis".to_owned(),
            idle_timeout: TimeSpan::seconds(3_600),
            max_lifetime: TimeSpan::seconds(12 * 3_600),
            refresh_before: TimeSpan::seconds(60),
            bound_to_token: false,
        }
    }
}

/// `session.store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// Sealed in the browser's cookie: no memory, no other server.
    Cookie,
    /// In Redis 7.0 or later, named by `redis`: the cookie holds a ticket. Replicas share sessions, refreshes and
    /// logouts; they need the same `keyFile`.
    Redis,
}

/// `admin`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Admin {
    /// `ADDRESS:PORT` or `unix:/path`. Serves `/healthz`, `/readyz`, `/metrics`, `/config` and `/sessions/end`.
    /// Another address than loopback needs `tokenFile`.
    pub listen: String,
    /// A file with the bearer token that `/config` and `/sessions/end` then need.
    pub token_file: Option<String>,
    /// A second `ADDRESS:PORT`, for example `0.0.0.0:9902`, that serves only `/healthz`, `/readyz` and
    /// `/metrics`, for kubelet and Prometheus.
    pub probes: Option<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9901".to_owned(), token_file: None, probes: None }
    }
}

/// `log`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable text on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// Readable text.
    Text,
}

/// `limits`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Limits {
    /// For the whole head of a request to arrive. Then 408.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub header_timeout: TimeSpan,
    /// For the TLS handshake, and a PROXY protocol header before it.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub handshake_timeout: TimeSpan,
    /// All header fields of a request together. Then 431.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub header_bytes: Size,
    /// How many header fields a request may have. Then 431.
    #[schemars(range(min = 1, max = 1000))]
    pub header_fields: u32,
    /// Path and query of a request. Then 414.
    #[schemars(extend("x-minimum" = "64B", "x-maximum" = "60KiB"))]
    pub target_bytes: Size,
    /// Concurrent requests on one HTTP/2 connection, open WebSockets among them.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_streams: u32,
    /// Open connections from clients, all listeners together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// For a connection to the application. Then 504.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub connect_timeout: TimeSpan,
    /// For the head of the application's answer. Then 504. Calls of gRPC have their own (`grpc-timeout`).
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1d"))]
    pub response_timeout: TimeSpan,
    /// Without a byte in a body, in either direction. Event streams and gRPC may be silent.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1d"))]
    pub body_idle_timeout: TimeSpan,
    /// Without a request on a connection. A load balancer in front should have a shorter one.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1d"))]
    pub idle_timeout: TimeSpan,
    /// After SIGTERM: not ready, but still accepting.
    #[schemars(extend("x-maximum" = "1h"))]
    pub shutdown_delay: TimeSpan,
    /// After that: for requests in flight to finish.
    #[schemars(extend("x-maximum" = "1d"))]
    pub drain: TimeSpan,
    /// Threads that serve requests. By default one per CPU that the process may use.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: TimeSpan::seconds(10),
            handshake_timeout: TimeSpan::seconds(5),
            header_bytes: Size(64 * 1024),
            header_fields: 100,
            target_bytes: Size(16 * 1024),
            h2_streams: 100,
            connections: 10_000,
            connect_timeout: TimeSpan::seconds(3),
            response_timeout: TimeSpan::seconds(60),
            body_idle_timeout: TimeSpan::seconds(60),
            idle_timeout: TimeSpan::seconds(75),
            shutdown_delay: TimeSpan::seconds(5),
            drain: TimeSpan::seconds(25),
            workers: None,
        }
    }
}

/// The value of a key that bears a secret. Debug and Serialize show `[redacted]`.
#[derive(Clone)]
pub struct SecretText(pub Secret<String>);

/// What stands for a secret wherever the configuration is shown.
pub const REDACTED: &str = "[redacted]";

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Secret::new(text)))
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// The value of a key that original files have and that means nothing here.
#[derive(Clone, Debug)]
pub struct Ignored;

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

impl JsonSchema for Ignored {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ignored".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-ignored": true })
    }
}
