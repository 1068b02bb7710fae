//! `session.redis`, as the operator writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::SecretText;

/// `session.redis`. See [sessions-redis.md](sessions-redis.md).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Redis {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS, or `redis+unix:///PATH`. With
    /// `sentinelMaster` or `cluster` several with commas between them: the Sentinels, or some nodes. In a password,
    /// `%` is written `%25`, `,` `%2C`, `@` `%40`, `:` `%3A`, `/` `%2F`.
    pub url: Option<SecretText>,
    /// The same, as the path of a file that holds it. Read again at every new connection.
    pub url_file: Option<String>,
    /// The URLs are those of Sentinels, which know the master by this name. User, password and database are those
    /// of the master; a Sentinel is told them only if it wants a password.
    pub sentinel_master: Option<String>,
    /// The URLs are those of nodes of a cluster.
    pub cluster: bool,
    /// The CA of Redis: PEM, or the path of a PEM file. By default the system's roots.
    #[schemars(extend("format" = "pem"))]
    pub trusted_certificate_authorities: Option<String>,
    /// The same, as the path of a PEM file.
    pub trusted_certificate_authorities_file: Option<String>,
}
