//! One service: its name, hosts, callback, listeners and certificate. The provider, the application and the rules
//! are in `provider`, `application` and `rules`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use url::Url;

use super::error::Place;
use super::host::Host;
use super::problem::Problem;
use super::provider::Callback;
use super::raw_service::{AuthorizationType, CorsPreflight, EncodedSlashes, Mode, Service as Raw, TlsType};
use super::resolve::{Resolver, Shared};
use super::{Authorization, CALLBACK_PATH, Service};
use crate::session::CookieName;
use crate::{path, policy, session};

/// Most characters of a service's name: it is part of cookie names and of every record.
const MAX_NAME: usize = 64;

/// What a service has when it is put together from its parts.
type Named = HashMap<String, Place>;

impl Resolver<'_> {
    /// All services that are whole. Each mistake of the others has been reported.
    pub fn services(&mut self, raw: &[Raw], shared: &Shared<'_>) -> Vec<Service> {
        if raw.is_empty() && !self.origins.is_incomplete("services") {
            self.mistake("services", Problem::Empty { by_variable: false });
        }
        let mut names = Named::new();
        let mut used = vec![false; shared.specs.len()];
        let services = raw
            .iter()
            .enumerate()
            .map(|(i, raw)| self.service(i, raw, shared, &mut names, &mut used))
            .collect::<Vec<_>>();
        self.unused_specs(shared.specs, &used);
        services.into_iter().flatten().collect()
    }

    fn service(
        &mut self,
        index: usize,
        raw: &Raw,
        shared: &Shared<'_>,
        names: &mut Named,
        used: &mut [bool],
    ) -> Option<Service> {
        let at = format!("services[{index}]");
        let name = self.name(&at, raw.name.as_deref(), names);
        let callback = self.callback(&at, raw);
        let hosts = self.hosts(&at, raw, callback.as_ref());
        let tls = self.certificate(&at, raw, &hosts, shared.state_directory);
        let listen_address = self.listen_address(&at, raw);
        let trusted_proxies = self.trusted_proxies(&at, raw);
        let proxy_protocol_subnets = self.proxy_protocol(&at, raw);
        let upstream = self.application(&at, raw, shared.limits);
        let mappings = self.mappings(&at, raw);
        let redirect_on_failure = self.failure_redirect(&at, raw);
        let allowed_origins = self.allowed_origins(&at, raw);
        let callback_path =
            callback.as_ref().map_or(CALLBACK_PATH, |callback| callback.url.path()).to_owned();
        let rules = self.rules(index, raw, shared.specs, used, &callback_path);
        let policy = self.compile(index, raw, shared.specs, &rules);
        self.relaxations(&at, raw);
        if let (Some(Some(url)), Some(policy)) = (&redirect_on_failure, &policy) {
            self.circular_redirect(&at, url, &hosts, policy, &rules.config.path);
        }
        let authorization = self.authorization(&at, raw, callback.as_ref(), policy.as_deref(), &mappings);
        let (canonical_host, base_url) = canonical(raw, callback.as_ref(), &hosts)?;
        Some(Service {
            name: name?,
            authorization: authorization?,
            canonical_host,
            base_url,
            callback_path,
            listen_address: listen_address?,
            exposed_port: raw.exposed_port?,
            tls: tls?,
            hosts,
            public_application_port: raw.public_application_port,
            http_redirect_port: raw.http_redirect_port,
            trusted_proxies,
            proxy_protocol_subnets,
            upstream: upstream?,
            mappings,
            path: rules.config.path,
            rules: rules.config,
            policy: policy?,
            redirect_on_failure: redirect_on_failure?,
            allowed_origins,
            hsts: raw.hsts.map(|age| age.0),
            front_channel_logout: raw.oidc_front_channel_logout,
            session: session::Config {
                cookie_name: CookieName::parse(&shared.session.cookie_name).ok()?,
                idle_timeout: shared.session.idle_timeout.0,
                max_lifetime: shared.session.max_lifetime.0,
                bound_to_token: shared.session.bound_to_token,
                refresh_before: shared.session.refresh_before.0,
            },
            login_cookie: CookieName::parse(CookieName::LOGIN).ok()?,
        })
    }

    fn name(&mut self, at: &str, name: Option<&str>, names: &mut Named) -> Option<Arc<str>> {
        let path = format!("{at}.name");
        let name = name?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
        if name.len() > MAX_NAME || !name.chars().all(allowed) || name.trim() != name {
            let shown = self.shown(&path);
            self.mistake(&path, Problem::BadServiceName { shown, most: MAX_NAME });
            return None;
        }
        if let Some(first) = names.get(name) {
            let first = first.clone();
            self.mistake(&path, Problem::SameName { first });
            return None;
        }
        if let Some(place) = self.place(&path) {
            names.insert(name.to_owned(), place);
        }
        Some(name.into())
    }

    /// The hosts, each once. Empty if something is wrong with all of them.
    fn hosts(&mut self, at: &str, raw: &Raw, callback: Option<&Callback>) -> Vec<Host> {
        let path = format!("{at}.hosts");
        let mut hosts = Vec::new();
        let mut whole = !self.origins.is_incomplete(&path);
        for (i, text) in raw.hosts.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match Host::parse(text) {
                Ok(host) if hosts.contains(&host) => {}
                Ok(host) => hosts.push(host),
                Err(error) => {
                    whole = false;
                    let shown = self.shown(&path);
                    self.mistake(&path, Problem::BadHost { shown, error });
                }
            }
        }
        if !whole {
            return hosts;
        }
        match callback {
            Some(callback) if hosts.is_empty() => hosts.push(callback.host.clone()),
            Some(callback) if !hosts.contains(&callback.host) => {
                self.mistake(&path, Problem::CallbackHostMissing);
            }
            None if hosts.is_empty() && raw.authorization_type == AuthorizationType::None => {
                self.missing(&path, "the host names of the application");
            }
            _ => {}
        }
        hosts
    }

    fn listen_address(&mut self, at: &str, raw: &Raw) -> Option<Option<IpAddr>> {
        let path = format!("{at}.listenAddress");
        let Some(text) = &raw.listen_address else { return Some(None) };
        match bare(text).parse() {
            Ok(address) => Some(Some(address)),
            Err(_) => {
                let shown = self.shown(&path);
                self.mistake(&path, Problem::BadAddress { shown, network: false });
                None
            }
        }
    }

    fn trusted_proxies(&mut self, at: &str, raw: &Raw) -> Vec<IpNet> {
        self.networks(&format!("{at}.trustedProxies"), &raw.trusted_proxies, "trusts every peer: anyone who reaches the port can pretend to be any client, and with TLSType None to have come by https; name the networks of the load balancers")
    }

    /// The load balancers that send PROXY headers, if there are any.
    fn proxy_protocol(&mut self, at: &str, raw: &Raw) -> Option<Vec<IpNet>> {
        let path = format!("{at}.proxyProtocolSubnets");
        let subnets = self.networks(&path, &raw.proxy_protocol_subnets, "believes every peer: anyone who reaches the port can pretend to be any client; name the networks of the load balancers");
        let is_given = !raw.proxy_protocol_subnets.is_empty();
        if raw.proxy_protocol_enabled && !is_given && !self.origins.is_incomplete(&path) {
            self.mistake(&format!("{at}.proxyProtocolEnabled"), Problem::ProxyProtocolWithoutSubnets);
        }
        if !raw.proxy_protocol_enabled && is_given {
            let (condition, advice) = ("without proxyProtocolEnabled", "set proxyProtocolEnabled: true");
            self.mistake(&path, Problem::NoEffect { condition, advice });
        }
        raw.proxy_protocol_enabled.then_some(subnets)
    }

    /// Addresses and networks. `all` is the warning about one that has everybody in it.
    fn networks(&mut self, path: &str, texts: &[String], all: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match network(text) {
                Some(network) => {
                    if network.prefix_len() == 0 {
                        self.warn(&path, all);
                    }
                    networks.push(network);
                }
                None => {
                    let shown = self.shown(&path);
                    self.mistake(&path, Problem::BadAddress { shown, network: true });
                }
            }
        }
        networks
    }

    /// Further origins in the form in which browsers send them.
    fn allowed_origins(&mut self, at: &str, raw: &Raw) -> Vec<String> {
        let mut origins = Vec::new();
        for (i, text) in raw.allowed_origins.iter().enumerate() {
            let path = format!("{at}.allowedOrigins[{i}]");
            let url = Url::parse(text).ok().filter(|url| {
                let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
                matches!(url.scheme(), "https" | "http")
                    && bare
                    && url.username().is_empty()
                    && url.password().is_none()
            });
            match url {
                Some(url) => origins.push(url.origin().ascii_serialization()),
                None => {
                    let shown = self.shown(&path);
                    let expected = "an origin";
                    self.mistake(
                        &path,
                        Problem::BadUrl { shown, expected, example: "https://other.example.com" },
                    );
                }
            }
        }
        origins
    }

    /// Switches that make the service less strict.
    fn relaxations(&mut self, at: &str, raw: &Raw) {
        if raw.mode == Mode::Observe {
            self.warn(&format!("{at}.mode"), "observe: whoever is logged in is let through, whatever the rules say; refusals are only recorded");
        }
        if raw.tls_type == TlsType::None {
            self.warn(&format!("{at}.TLSType"), "exposedPort is plain HTTP: only trustedProxies may reach it, and the network between must be safe");
        }
        if raw.cors_preflight == CorsPreflight::Forward {
            self.warn(
                &format!("{at}.corsPreflight"),
                "forward: CORS preflights reach the application without a login",
            );
        }
    }
}

/// The host and the base URL at which users see the service.
fn canonical(raw: &Raw, callback: Option<&Callback>, hosts: &[Host]) -> Option<(Host, String)> {
    if let Some(callback) = callback {
        return Some((callback.host.clone(), callback.url.origin().ascii_serialization()));
    }
    let host = hosts.first()?.clone();
    let base = match raw.exposed_port? {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    };
    Some((host, base))
}

/// An address without the brackets that IPv6 has in URLs.
fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text)
}

/// A network, or an address as a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| bare(text).parse::<IpAddr>().map(IpNet::from));
    network.ok().map(|network| network.trunc())
}

/// How targets of this service are parsed.
pub(super) fn path_options(raw: &Raw) -> path::Options {
    path::Options {
        merge_slashes: raw.merge_slashes,
        encoded_slashes: match raw.encoded_slashes {
            EncodedSlashes::Refuse => path::EncodedSlashes::Refuse,
            EncodedSlashes::Keep => path::EncodedSlashes::Keep,
        },
    }
}

/// How strict the policy of this service is.
pub(super) fn policy_modes(raw: &Raw) -> (policy::Mode, policy::CorsPreflight) {
    let mode = match raw.mode {
        Mode::Enforce => policy::Mode::Enforce,
        Mode::Observe => policy::Mode::Observe,
    };
    let preflight = match raw.cors_preflight {
        CorsPreflight::Enforce => policy::CorsPreflight::Enforce,
        CorsPreflight::Forward => policy::CorsPreflight::Forward,
    };
    (mode, preflight)
}

impl Resolver<'_> {
    /// Who users are, once everything that bears on it is known.
    fn authorization(
        &mut self,
        at: &str,
        raw: &Raw,
        callback: Option<&Callback>,
        policy: Option<&policy::Policy>,
        mappings: &[crate::proxy::Mapping],
    ) -> Option<Authorization> {
        match raw.authorization_type {
            AuthorizationType::None => {
                self.without_login(at);
                Some(Authorization::None)
            }
            AuthorizationType::Oidc => {
                let mut needed = policy.map(|policy| policy.needed_claims().clone()).unwrap_or_default();
                needed.extend(mappings.iter().map(|mapping| mapping.claim.clone()));
                let provider = self.provider(at, raw, callback, needed)?;
                Some(Authorization::Oidc(Box::new(provider)))
            }
        }
    }

    /// Keys that mean something only with a login. They protect nothing that isn't public anyway.
    fn without_login(&mut self, at: &str) {
        let given = |key: &&str| self.origins.get(&format!("{at}.{key}")).is_some();
        let idle: Vec<&str> = super::provider::keys_of_login().filter(given).collect();
        if !idle.is_empty() {
            let text = format!("None: there is no login, so these keys have no effect: {}", idle.join(", "));
            self.warn(&format!("{at}.authorizationType"), &text);
        }
    }
}
