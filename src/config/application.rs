//! The way to the application: the upstream, its CA, mapped headers, and the failure redirect.

use std::borrow::Cow;
use std::collections::HashMap;

use http::HeaderName;
use url::Url;

use super::host::Host;
use super::problem::Problem;
use super::raw_service::Service as Raw;
use super::resolve::Resolver;
use crate::path::{self, NormalPath};
use crate::policy::Policy;
use crate::proxy::{self, HttpVersion, Mapping, Upstream};
use crate::secret::Source;
use crate::server::Limits;

impl Resolver<'_> {
    /// Where the application is and how long it may take. `mapped_headers` is complete; `own_cookies` is filled
    /// in once all services are known.
    pub fn application(&mut self, at: &str, raw: &Raw, limits: &Limits) -> Option<proxy::Config> {
        let roots = self.pem(
            at,
            ("trustedCertificateAuthorities", raw.trusted_certificate_authorities.as_deref()),
            ("trustedCertificateAuthoritiesFile", raw.trusted_certificate_authorities_file.as_deref()),
        );
        let upstream = self.upstream(at, raw, roots)?;
        if !matches!(upstream, Upstream::Tls { .. }) {
            for key in ["trustedCertificateAuthorities", "trustedCertificateAuthoritiesFile"] {
                let path = format!("{at}.{key}");
                if self.origins.get(&path).is_some() {
                    let condition = "unless the application speaks TLS";
                    let advice = "set exposedServiceIsTLS: true or an https:// or h2:// upstream";
                    self.mistake(&path, Problem::NoEffect { condition, advice });
                }
            }
        }
        let mapped = raw.claims_to_http_header_mappings.iter();
        Some(proxy::Config {
            upstream,
            version: raw.upstream.as_deref().map_or(HttpVersion::Http1, |text| spelled_version(text).0),
            connect_timeout: limits.connect_timeout,
            response_timeout: limits.response_timeout,
            body_idle_timeout: limits.body_idle_timeout,
            idle_timeout: limits.idle_timeout,
            mapped_headers: mapped
                .filter_map(|mapping| mapping.target_http_header.as_ref()?.parse().ok())
                .collect(),
            own_cookies: Vec::new(),
        })
    }

    fn upstream(&mut self, at: &str, raw: &Raw, roots: Option<Source>) -> Option<Upstream> {
        let path = format!("{at}.upstream");
        let Some(text) = &raw.upstream else {
            let Some(port) = raw.port else {
                if !self.origins.is_pruned(&path) {
                    self.missing(
                        &format!("{at}.port"),
                        "the port of the application on 127.0.0.1, or upstream",
                    );
                }
                return None;
            };
            let host = "127.0.0.1".to_owned();
            return Some(if raw.exposed_service_is_tls {
                Upstream::Tls { host, port, roots }
            } else {
                Upstream::Tcp { host, port }
            });
        };
        if raw.port.is_some() {
            self.warn(&format!("{at}.port"), "is not used, because upstream is set; remove it");
        }
        let (_, text) = spelled_version(text);
        if let Some(socket) = text.strip_prefix("unix:") {
            return self.unix(at, raw, &path, socket);
        }
        let url = self.url(&path, &text, UPSTREAM_EXAMPLES)?;
        self.only_authority(&path, &url)?;
        let host = Host::parse(url.host_str()?).ok()?.name().to_owned();
        let port = url.port_or_known_default()?;
        if url.scheme() == "https" {
            return Some(Upstream::Tls { host, port, roots });
        }
        if raw.exposed_service_is_tls {
            self.tls_over_plain(at);
            return None;
        }
        if !is_loopback(&host) {
            self.warn(&path, "plain http to another machine: whoever reaches the application there gets past Portcullis, and can read along; use https:// (or h2://) and close its port to others");
        }
        Some(Upstream::Tcp { host, port })
    }

    fn unix(&mut self, at: &str, raw: &Raw, path: &str, socket: &str) -> Option<Upstream> {
        if raw.exposed_service_is_tls {
            self.tls_over_plain(at);
            return None;
        }
        let socket = socket.strip_prefix("//").unwrap_or(socket);
        if socket.is_empty() {
            let shown = self.shown(path);
            let expected = "the path of a socket";
            self.mistake(path, Problem::BadUrl { shown, expected, example: "unix:/run/app.sock" });
            return None;
        }
        Some(Upstream::Unix(self.path(path, socket)))
    }

    fn tls_over_plain(&mut self, at: &str) {
        let condition = "because upstream is not an https:// or h2:// URL";
        let problem = Problem::NoEffect { condition, advice: "write upstream with https://" };
        self.mistake(&format!("{at}.exposedServiceIsTLS"), problem);
    }

    /// The request has its own path and query.
    fn only_authority(&mut self, path: &str, url: &Url) -> Option<()> {
        if url.path() == "/" && url.query().is_none() && url.fragment().is_none() {
            return Some(());
        }
        let shown = self.shown(path);
        let advice = "write only scheme, host and port: the request's own path is forwarded";
        self.mistake(path, Problem::UrlPart { shown, part: "a path or a query", advice });
        None
    }

    /// The claims that become headers.
    pub fn mappings(&mut self, at: &str, raw: &Raw) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        let mut seen = HashMap::new();
        for (i, mapping) in raw.claims_to_http_header_mappings.iter().enumerate() {
            let path = format!("{at}.claimsToHTTPHeaderMappings[{i}].targetHTTPHeader");
            let (Some(claim), Some(target)) = (&mapping.claim_name, &mapping.target_http_header) else {
                continue;
            };
            let Ok(header) = target.parse::<HeaderName>() else {
                let shown = self.shown(&path);
                self.mistake(&path, Problem::BadHeaderName { shown });
                continue;
            };
            if let Some(refusal) = Mapping::refusal(&header) {
                self.mistake(&path, Problem::HeaderRefused(refusal));
                continue;
            }
            let place = self.place(&path);
            match seen.insert(spelling(&header), place) {
                Some(Some(first)) => self.mistake(&path, Problem::SameHeader { first }),
                _ => mappings.push(Mapping { claim: claim.clone(), header }),
            }
        }
        mappings
    }

    /// `Some(None)`: a 403 page of our own.
    pub fn failure_redirect(&mut self, at: &str, raw: &Raw) -> Option<Option<Url>> {
        let Some(text) = &raw.redirect_url_on_authorization_failure else { return Some(None) };
        let path = format!("{at}.redirectURLOnAuthorizationFailure");
        self.url(&path, text, "https://www.example.com/denied").map(Some)
    }
}

impl Resolver<'_> {
    /// A redirect of those who are not allowed to a page where they may not be allowed either.
    pub fn circular_redirect(
        &mut self,
        at: &str,
        url: &Url,
        hosts: &[Host],
        policy: &Policy,
        options: &path::Options,
    ) {
        let own = url.host_str().is_some_and(|own| hosts.iter().any(|host| host.matches(own)));
        let public = || {
            let path = NormalPath::parse(url.path(), options).ok()?;
            Some(policy.find(&http::Method::GET, &path).ok()?.is_public())
        };
        if own && public() != Some(true) {
            let path = format!("{at}.redirectURLOnAuthorizationFailure");
            self.warn(&path, "leads to this service itself, to a path that is not public: whoever is not allowed there either goes in circles; make it public");
        }
    }
}

const UPSTREAM_EXAMPLES: &str =
    "http://127.0.0.1:8080, https://app.internal, unix:/run/app.sock, or h2c:// or h2:// for HTTP/2 and gRPC";

/// What an upstream speaks, and how the same place is spelled for HTTP/1.1.
pub(super) fn spelled_version(upstream: &str) -> (HttpVersion, Cow<'_, str>) {
    for (prefix, http1) in [("h2c://", "http://"), ("h2://", "https://"), ("h2c+unix:", "unix:")] {
        if let Some(rest) = upstream.strip_prefix(prefix) {
            return (HttpVersion::Http2, Cow::Owned(format!("{http1}{rest}")));
        }
    }
    (HttpVersion::Http1, Cow::Borrowed(upstream))
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Many applications take `X_User` and `X-User` for one header.
fn spelling(header: &HeaderName) -> String {
    header.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
