//! The configuration: reads the operator's file and assembles what every box below needs. Owns the form of the
//! file, its schema and its reference; may not know how anything is done with the result. No box sees the whole.
//!
//! The way of a file: text (`files`) -> a tree with places (`document`) -> expanded and typed along the schema
//! (`shape`) -> the mirror of the file (`raw`) -> judged as a whole and turned into each box's own `Config`
//! (`resolve`). Every step collects mistakes instead of stopping at one, and what an earlier step has reported,
//! a later one doesn't report again.

mod application;
mod certificate;
mod cookies;
mod document;
mod env;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod later;
mod listeners;
mod origins;
mod problem;
mod provider;
mod raw;
mod raw_redis;
mod raw_service;
mod raw_spec;
mod redis;
mod reference;
mod resolve;
mod rules;
mod schema;
mod service;
mod shape;
mod typed;
mod unit;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::policy::Policy;
use crate::{oidc, path, policy, proxy, server, session, tls};

pub use env::Environment;
pub use error::{Mistake, Mistakes, Place, Shown, Warning};
pub use host::{Host, HostError};
pub use problem::Problem;
pub use raw::LogFormat;
pub use reference::reference;
pub use schema::schema;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A YAML file, or a directory of `*.yaml` files.
    Path(PathBuf),
    /// The built-in default, filled from the environment.
    BuiltIn,
    /// Text made by a command.
    Text {
        /// What messages call it.
        name: String,
        /// The YAML.
        text: String,
    },
}

/// A whole valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one.
    pub services: Vec<Service>,
    /// Where the session keys come from. One ring for the process: what it seals is bound to the service.
    pub session_keys: session::KeySource,
    /// The store of the sessions of all services; `None`: they live in the browsers' cookies.
    pub redis: Option<session::redis::Config>,
    /// The session cookies and login cookies of all services. A browser sends them to every port of a host, so
    /// no application may get any of them.
    pub own_cookies: Vec<session::CookieName>,
    /// The operator's listeners.
    pub admin: Admin,
    /// The form of the log.
    pub log_format: LogFormat,
    /// Bounds on what clients and applications may take.
    pub limits: server::Limits,
    /// A directory that survives restarts. Need not exist yet.
    pub state_directory: Option<PathBuf>,
    /// What works, and the operator should know of.
    pub warnings: Vec<Warning>,
    /// The file with every default filled in, secrets redacted.
    effective: serde_json::Value,
}

/// One protected application.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name in records, metrics and cookies; unique.
    pub name: Arc<str>,
    /// How users prove who they are.
    pub authorization: Authorization,
    /// The hosts of this service; at least one. No other service on the same port has any of them.
    pub hosts: Vec<Host>,
    /// The host at which logins happen: that of the callback.
    pub canonical_host: Host,
    /// Scheme and authority at which users see the service, without a slash at the end.
    pub base_url: String,
    /// The path of the callback, matched exactly. Reserved even if there is no login.
    pub callback_path: String,
    /// The address of all listeners of this service; `None`: all, both families.
    pub listen_address: Option<IpAddr>,
    /// The port that users see.
    pub exposed_port: u16,
    /// The certificate of `exposed_port`; `None`: plain, behind `trusted_proxies`.
    pub tls: Option<tls::Certificate>,
    /// A plain listener for public endpoints only. This service's alone.
    pub public_application_port: Option<u16>,
    /// A plain listener that redirects to `base_url`. May be shared with other services.
    pub http_redirect_port: Option<u16>,
    /// The peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `Some`: the load balancers whose connections to `exposed_port` and `http_redirect_port` begin with a PROXY
    /// protocol header; at least one network. The same for all services of a port.
    pub proxy_protocol_subnets: Option<Vec<IpNet>>,
    /// The way to the application.
    pub upstream: proxy::Config,
    /// Claims that the application gets as headers.
    pub mappings: Vec<proxy::Mapping>,
    /// How targets are parsed.
    pub path: path::Options,
    /// The rules as the file has them, of all specs that apply.
    pub rules: policy::Config,
    /// The same, compiled.
    pub policy: Arc<Policy>,
    /// Where browsers go that are logged in and not allowed.
    pub redirect_on_failure: Option<Url>,
    /// Further origins, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// The max-age of Strict-Transport-Security.
    pub hsts: Option<Duration>,
    /// Whether the provider may end sessions by a frame in the browser.
    pub front_channel_logout: bool,
    /// The session and its cookie.
    pub session: session::Config,
    /// The cookies of logins in progress, before the dot and the id.
    pub login_cookie: session::CookieName,
}

/// How users of a service prove who they are.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// Login at a provider.
    Oidc(Box<oidc::Config>),
    /// Every endpoint is public.
    None,
}

/// The operator's listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Everything.
    pub listen: AdminListen,
    /// The file of the bearer token. Present if `listen` is beyond loopback.
    pub token_file: Option<PathBuf>,
    /// Health and metrics only.
    pub probes: Option<SocketAddr>,
}

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

pub use crate::gate::{CALLBACK_PATH, RESERVED_PATHS};

impl Config {
    /// The effective configuration for the operator: every default filled in, secrets redacted.
    pub fn redacted(&self) -> &serde_json::Value {
        &self.effective
    }

    /// The same as YAML.
    pub fn redacted_yaml(&self) -> String {
        serde_yaml::to_string(&self.effective).unwrap_or_default()
    }
}

/// Reads a configuration, or finds everything that is wrong with it. Nothing is started, made or changed;
/// files that the configuration names are only looked at.
pub fn load(source: &Source, environment: &Environment) -> Result<Config, Mistakes> {
    let (texts, mut mistakes) = files::read(source);
    let mut readable = mistakes.is_empty();
    let mut shape = shape::Shape::new(environment);
    for (order, text) in texts.iter().enumerate() {
        let before = mistakes.len();
        match document::parse(&text.name, order, &text.text, &mut mistakes) {
            Some(root) if document::is_nothing(&root) => {
                mistakes.push(Mistake { place: root.place, key: String::new(), problem: Problem::EmptyFile });
            }
            Some(root) => {
                shape.add(&root);
                continue;
            }
            None if mistakes.len() == before => {
                let place = Place::start_of(&text.name, order);
                mistakes.push(Mistake { place, key: String::new(), problem: Problem::EmptyFile });
            }
            None => {}
        }
        readable = false;
    }
    // What is in a file that can't be read would seem to be missing: only the rest is checked, by itself.
    let (value, origins, found) = shape.finish(readable);
    mistakes.extend(found);
    if readable {
        match serde_yaml::from_value::<raw::File>(value) {
            Ok(file) => {
                let directories = texts.into_iter().map(|text| text.directory).collect();
                let resolver = resolve::Resolver::new(&origins, environment, directories);
                let (config, found) = resolver.resolve(file);
                mistakes.extend(found);
                if let (Some(config), true) = (config, mistakes.is_empty()) {
                    return Ok(config);
                }
            }
            // Can only be the parser's own mistake, whose text might show a value.
            Err(_) => mistakes.push(internal(source)),
        }
    }
    Err(Mistakes::new(mistakes).unwrap_or_else(|| Mistakes::one(internal(source))))
}

/// The message for what can't happen.
fn internal(source: &Source) -> Mistake {
    let file: Arc<str> = match source {
        Source::Path(path) => path.to_string_lossy().into(),
        Source::BuiltIn => "config/portcullis.yaml (built in)".into(),
        Source::Text { name, .. } => name.as_str().into(),
    };
    Mistake { place: Place::start_of(&file, 0), key: String::new(), problem: Problem::Internal }
}
