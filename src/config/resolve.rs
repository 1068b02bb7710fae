//! Judges the file as a whole and assembles the [`Config`]. This module holds what all parts of that share, and
//! the sections that belong to no service; `service`, `provider`, `application`, `rules` and `listeners` do the
//! rest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::env::Environment;
use super::error::{Mistake, Place, Shown, Warning};
use super::origins::{Origin, Origins};
use super::problem::Problem;
use super::raw;
use super::{Admin, AdminListen, Config};
use crate::secret::{self, Secret, Source};
use crate::{server, session};

/// Collects what is wrong while the configuration is assembled.
pub(super) struct Resolver<'a> {
    pub origins: &'a Origins,
    environment: &'a Environment,
    /// For each file, where its relative paths count from.
    directories: Vec<Option<PathBuf>>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Warning>,
}

/// What every part of the file needs to know of the rest.
pub(super) struct Shared<'r> {
    pub session: &'r raw::Session,
    pub limits: &'r server::Limits,
    pub state_directory: Option<&'r Path>,
    pub specs: &'r [super::raw_spec::HttpResourceSpec],
}

impl<'a> Resolver<'a> {
    pub fn new(
        origins: &'a Origins,
        environment: &'a Environment,
        directories: Vec<Option<PathBuf>>,
    ) -> Self {
        Self { origins, environment, directories, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// The configuration, and everything wrong with it. It is of use only if nothing is.
    pub fn resolve(mut self, mut file: raw::File) -> (Option<Config>, Vec<Mistake>) {
        let state_directory = self.state_directory(file.state_directory.as_deref());
        let limits = limits(&file.limits);
        let session_keys = self.session_keys(&file.session, state_directory.as_deref());
        let admin = self.admin(&file.admin);
        self.session(&file.session);
        let redis = self.redis(&file.session);
        let shared = Shared {
            session: &file.session,
            limits: &limits,
            state_directory: state_directory.as_deref(),
            specs: &file.http_resource_specs,
        };
        let services = self.services(&file.services, &shared);
        self.listeners(&file, admin.as_ref());
        let (mut services, Some(admin)) = (services, admin) else { return (None, self.mistakes) };
        if !self.mistakes.is_empty() || services.len() != file.services.len() {
            return (None, self.mistakes);
        }
        let own_cookies = match super::cookies::name_cookies(&mut services, &file.session.cookie_name) {
            Ok(names) => names,
            Err((index, error)) => {
                let path = format!("services[{index}].name");
                let shown = self.shown(&path);
                self.mistake(&path, Problem::CookieName { shown, error });
                return (None, self.mistakes);
            }
        };
        file.state_directory = state_directory.as_ref().map(|path| path.display().to_string());
        let effective = effective(&file, &services);
        let config = Config {
            services,
            session_keys,
            redis,
            own_cookies,
            admin,
            log_format: file.log.format,
            limits,
            state_directory,
            warnings: self.warnings,
            effective,
        };
        (Some(config), self.mistakes)
    }

    fn state_directory(&mut self, named: Option<&str>) -> Option<PathBuf> {
        if let Some(named) = named {
            return Some(self.path("stateDirectory", named));
        }
        // systemd separates several directories by colons; the first is the main one.
        let inherited = self.environment.get("STATE_DIRECTORY").ok().flatten()?;
        let first = inherited.split(':').next().filter(|first| !first.is_empty())?;
        Some(PathBuf::from(first))
    }

    fn session(&mut self, session: &raw::Session) {
        if let Err(error) = session::CookieName::parse(&session.cookie_name) {
            let shown = self.shown("session.cookieName");
            self.mistake("session.cookieName", Problem::CookieName { shown, error });
        }
    }

    fn session_keys(&mut self, session: &raw::Session, state: Option<&Path>) -> session::KeySource {
        if let Some(named) = &session.key_file {
            return session::KeySource::File(self.file("session.keyFile", named, false).unwrap_or_default());
        }
        if let Some(state) = state {
            return session::KeySource::State(state.to_owned());
        }
        self.warn("stateDirectory", "is not set, and neither is session.keyFile: the session key lives in memory, and a restart logs everybody out; set one of them");
        session::KeySource::Ephemeral
    }

    fn admin(&mut self, admin: &raw::Admin) -> Option<Admin> {
        let token_file = admin
            .token_file
            .as_ref()
            .map(|named| self.file("admin.tokenFile", named, false).unwrap_or_default());
        let listen = match admin.listen.strip_prefix("unix:") {
            Some(path) => Some(AdminListen::Unix(self.path("admin.listen", path))),
            None => self.socket("admin.listen", &admin.listen).map(AdminListen::Tcp),
        };
        if let (Some(AdminListen::Tcp(address)), None) = (&listen, &token_file)
            && !address.ip().is_loopback()
            && !self.origins.is_pruned("admin.tokenFile")
        {
            self.mistake("admin.listen", Problem::AdminWithoutToken);
        }
        let probes = match &admin.probes {
            Some(text) => Some(self.socket("admin.probes", text)?),
            None => None,
        };
        Some(Admin { listen: listen?, token_file, probes })
    }

    /// `ADDRESS:PORT`.
    fn socket(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        let parsed = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        let parsed = parsed.filter(|address: &SocketAddr| address.port() != 0);
        if parsed.is_none() {
            let shown = self.shown(path);
            let expected = "an address and a port; write it like 127.0.0.1:9901 or [::1]:9901";
            self.mistake(path, Problem::BadListen { shown, expected });
        }
        parsed
    }

    /// Reports a mistake about the value at `path`, unless one about it has been reported already.
    pub fn mistake(&mut self, path: &str, problem: Problem) {
        if self.origins.is_pruned(path) {
            return;
        }
        if let Some((place, key)) = self.about(path) {
            self.mistakes.push(Mistake { place, key, problem });
        }
    }

    /// Reports that `path` is missing.
    pub fn missing(&mut self, path: &str, what: &str) {
        self.mistake(path, Problem::Missing { what: what.to_owned() });
    }

    /// Tells the operator of something that works.
    pub fn warn(&mut self, path: &str, text: &str) {
        let (place, key) = match self.about(path) {
            Some((place, key)) => (self.origins.get(path).map(|_| place), key),
            None => (None, path.to_owned()),
        };
        self.warnings.push(Warning { place, key, text: text.to_owned() });
    }

    /// Where `path` is, or would be, and what the operator's file calls it.
    fn about(&self, path: &str) -> Option<(Place, String)> {
        let (Origin { place, key, .. }, outer) = self.origins.around(path)?;
        let below = path.get(outer.len()..).unwrap_or_default();
        let below = if key.is_empty() { below.trim_start_matches('.') } else { below };
        Some((place.clone(), format!("{key}{below}")))
    }

    /// Whether the file itself has something at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.origins.get(path).is_some() || self.origins.is_pruned(path)
    }

    /// The place of a value, or of what is around it.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.about(path).map(|(place, _)| place)
    }

    /// The value at `path`, as a message may quote it.
    pub fn shown(&self, path: &str) -> Shown {
        self.origins.get(path).and_then(|origin| origin.shown.clone()).unwrap_or_else(Shown::secret)
    }

    /// A path of the file system that the file names: relative ones count from the file's own directory.
    pub fn path(&self, path: &str, named: &str) -> PathBuf {
        let order = self.origins.get(path).map_or(0, |origin| origin.place.order);
        match self.directories.get(order) {
            Some(Some(directory)) => directory.join(named),
            _ => PathBuf::from(named),
        }
    }

    /// A file that the file names. It must be there, readable and not empty.
    pub fn file(&mut self, path: &str, named: &str, pem: bool) -> Option<PathBuf> {
        let file = self.path(path, named);
        let shown = self.shown(path);
        let problem = match secret::read_file(&file) {
            Ok(text) if text.expose().is_empty() => Problem::FileEmpty { shown },
            Ok(text) if pem && !text.expose().contains(PEM_BLOCK) => Problem::NotPem { shown },
            Ok(_) => return Some(file),
            Err(error) => Problem::FileUnreadable { shown, cause: cause(&error) },
        };
        self.mistake(path, problem);
        None
    }

    /// A PEM text that may be written in the file, or be in a file of its own, by `key` or by `keyFile`.
    pub fn pem(
        &mut self,
        service: &str,
        (key, inline): (&'static str, Option<&str>),
        (file_key, named): (&'static str, Option<&str>),
    ) -> Option<Source> {
        let (path, file_path) = (format!("{service}.{key}"), format!("{service}.{file_key}"));
        match (inline, named) {
            (Some(_), Some(_)) => {
                self.mistake(&file_path, Problem::Exclusive { this: file_key, other: key });
                None
            }
            (None, Some(named)) => self.file(&file_path, named, true).map(Source::File),
            (Some(text), None) if text.contains(PEM_BLOCK) => {
                Some(Source::Inline(Secret::new(text.to_owned())))
            }
            (Some(named), None) => self.pem_file(&path, named),
            (None, None) => None,
        }
    }

    /// A text without PEM in it must be the path of a PEM file. If it isn't, it may be a mangled key: not shown.
    fn pem_file(&mut self, path: &str, named: &str) -> Option<Source> {
        let file = self.path(path, named);
        let shown = self.shown(path);
        let problem = match secret::read_file(&file) {
            Ok(text) if text.expose().contains(PEM_BLOCK) => return Some(Source::File(file)),
            Ok(_) => Problem::NotPem { shown },
            Err(error) => Problem::NeitherPemNorFile { shown, cause: cause(&error) },
        };
        self.mistake(path, problem);
        None
    }
}

/// How a PEM text is known.
const PEM_BLOCK: &str = "-----BEGIN ";

/// Why a file can't be read, without its name, which may be the expansion of a variable.
fn cause(error: &secret::SourceError) -> String {
    match error {
        secret::SourceError::Unreadable { cause, .. } => cause.to_string(),
        secret::SourceError::TooLarge { .. } => "it is larger than 1 MiB".to_owned(),
    }
}

/// The limits, whose ranges the schema has already seen to.
fn limits(raw: &raw::Limits) -> server::Limits {
    let bytes = |size: super::unit::Size| usize::try_from(size.0).unwrap_or(usize::MAX);
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    server::Limits {
        header_timeout: raw.header_timeout.0,
        handshake_timeout: raw.handshake_timeout.0,
        header_bytes: bytes(raw.header_bytes),
        header_fields: count(raw.header_fields),
        target_bytes: bytes(raw.target_bytes),
        h2_streams: raw.h2_streams,
        connections: count(raw.connections),
        connect_timeout: raw.connect_timeout.0,
        response_timeout: raw.response_timeout.0,
        body_idle_timeout: raw.body_idle_timeout.0,
        idle_timeout: raw.idle_timeout.0,
        shutdown_delay: raw.shutdown_delay.0,
        drain: raw.drain.0,
        workers: raw.workers.map_or_else(|| server::Limits::default().workers, count),
    }
}

/// The file with what was worked out filled in.
fn effective(file: &raw::File, services: &[super::Service]) -> serde_json::Value {
    let mut file = file.clone();
    for (raw, service) in file.services.iter_mut().zip(services) {
        raw.hosts = service.hosts.iter().map(ToString::to_string).collect();
        if let super::Authorization::Oidc(provider) = &service.authorization {
            raw.oidc_scopes.clone_from(&provider.scopes);
            raw.oidc_callback_url = Some(provider.redirect_uri.to_string());
        }
        if raw.upstream.is_none() {
            raw.upstream = raw.port.map(|port| {
                let scheme = if raw.exposed_service_is_tls { "https" } else { "http" };
                format!("{scheme}://{}:{port}", IpAddr::from(Ipv4Addr::LOCALHOST))
            });
        }
    }
    let mut value = serde_json::to_value(&file).unwrap_or_default();
    without_nulls(&mut value);
    value
}

fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, below| !below.is_null());
            map.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
