//! One protected service: everything that was compiled from its configuration, shared by all workers. What is
//! validated for one service is never accepted by another, because nothing in here is shared with another.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use lru::LruCache;
use url::Url;

use super::refresh::Refreshes;
use super::reject::Refusal;
use crate::oidc::Provider;
use crate::path::{self, NormalPath};
use crate::policy::Policy;
use crate::proxy;
use crate::secret::Secret;
use crate::session::revocation::Replays;
use crate::session::{
    Absent, LoginCookies, OwnCookies, Revocations, Sealer, Session, Sessions, TransactionId,
};

/// One service, assembled.
#[derive(Debug)]
pub struct Service {
    /// Its name in records, metrics and challenges.
    pub name: Arc<str>,
    /// The hosts that it answers to, as hosts are compared: lower case, no port.
    pub hosts: Vec<String>,
    /// The first of them for a login: the host of the callback URL.
    pub canonical_host: String,
    /// Scheme, host and port of the callback URL: where browsers find this service.
    pub origin: String,
    /// The rules.
    pub policy: Arc<Policy>,
    /// How targets are read.
    pub path: path::Options,
    /// The login, unless everything is public.
    pub relying_party: Option<RelyingParty>,
    /// The way to the application.
    pub proxy: proxy::Config,
    /// Opens connections to it.
    pub connector: proxy::Connector,
    /// Which claims become headers.
    pub mappings: Vec<proxy::Mapping>,
    /// Our cookies, which the application never sees.
    pub own_cookies: OwnCookies,
    /// Where browsers go that are logged in but not allowed.
    pub failure_redirect: Option<Url>,
    /// Other origins that may open WebSockets and read our refusals.
    pub allowed_origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `Strict-Transport-Security`, if asked for.
    pub hsts: Option<HeaderValue>,
    /// Whether a 403 page tells which tags would be enough.
    pub explain_denials: bool,
}

impl Service {
    /// An absolute URL of this service.
    pub(super) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.origin)
    }

    /// Sessions can't be told from what was ended, or not be kept.
    pub(super) fn store_refusal(&self) -> Refusal {
        let outage = self.relying_party.as_ref().and_then(|party| party.sessions.store_outage());
        Refusal::Store { why: outage.unwrap_or_else(|| Absent::StoreUnavailable.to_string()) }
    }

    /// Where a login starts that returns to `target`.
    pub(super) fn login_url(&self, target: &str) -> String {
        let query: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
        self.url(&format!("{LOGIN_PATH}?return={query}"))
    }

    /// A return target that is safe to redirect to: a path of this origin that can be judged, is not one of
    /// our own endpoints, and is not too long. Everything else becomes `/`.
    pub(super) fn return_target(&self, target: &str) -> String {
        match NormalPath::parse(target, &self.path) {
            Ok(path) if path.as_str().len() <= MAX_RETURN_BYTES && !self.is_own_endpoint(path.path()) => {
                path.as_str().to_owned()
            }
            _ => "/".to_owned(),
        }
    }

    fn is_own_endpoint(&self, path: &str) -> bool {
        RESERVED_PATHS.contains(&path)
            || self.relying_party.as_ref().is_some_and(|party| party.callback_path == path)
    }

    /// Whether a page of this origin may open WebSockets here and read our refusals.
    pub(super) fn allows_origin(&self, origin: &str, authority: &str) -> bool {
        origin.eq_ignore_ascii_case(&self.origin)
            || origin.strip_prefix("https://").is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || self.lists_origin(origin)
    }

    /// Whether the configuration lists this origin.
    pub(super) fn lists_origin(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// The failure page with the parameter that the original appends; none for the failure page itself, where
    /// it would lead in circles.
    pub(super) fn failure_location(&self, target: &NormalPath) -> Option<String> {
        let mut url = self.failure_redirect.clone()?;
        if url.as_str().starts_with(&self.origin) && url.path() == target.path() {
            return None;
        }
        url.query_pairs_mut().append_pair("failure_message", "authorization");
        Some(url.into())
    }
}

/// The OpenID Connect relying party of a service.
#[derive(Debug)]
pub struct RelyingParty {
    /// The identity provider.
    pub provider: Arc<Provider>,
    /// Sessions in cookies.
    pub sessions: Sessions,
    /// Logins in progress, in cookies.
    pub login_cookies: LoginCookies,
    /// Seals `state`, login transactions and the logout form.
    pub sealer: Sealer,
    /// Path of the callback URL.
    pub callback_path: String,
    /// Claims that rules and mappings name, which a session keeps.
    pub needed_claims: BTreeSet<String>,
    /// Transactions whose code was redeemed.
    pub redeemed: Redeemed,
    /// Sessions that are over before their bounds. Deleting a cookie ends a session only in a browser that obeys:
    /// a copy of it, or the answer to a slow request with a new seal, would bring it back.
    pub revocations: Arc<Revocations>,
    /// Sessions that are being refreshed.
    pub refreshes: Refreshes,
    /// Logout tokens that were taken already.
    pub replays: Replays,
    /// Whether the provider may end sessions by a frame in the browser.
    pub front_channel_logout: bool,
    /// The provider's sessions (`sid`) that sessions here came from, for front-channel logouts, which prove nothing:
    /// only what is known can be ended.
    pub provider_sessions: KnownProviderSessions,
}

impl RelyingParty {
    /// The ID token, if it is to be kept: where the provider has a logout that takes it as a hint.
    pub(super) fn kept_id_token(&self, text: Secret<String>) -> Option<Secret<String>> {
        let fits = self.sessions.are_stored() || text.expose().len() <= MAX_HINT_BYTES;
        (fits && self.provider.offers_logout()).then_some(text)
    }
}

/// Login transactions whose code has been sent to the provider. A transaction is one-time although it lives in
/// the browser's cookie: a callback that is sent again must not redeem a code again (RFC 9700 section 4.5).
#[derive(Debug)]
pub struct Redeemed(Mutex<LruCache<TransactionId, ()>>);

impl Redeemed {
    /// Remembers the latest [`MAX_REDEEMED`].
    pub fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_REDEEMED)))
    }

    /// True the first time.
    pub(super) fn first_time(&self, id: &TransactionId) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.put(id.clone(), ()).is_none()
    }
}

impl Default for Redeemed {
    fn default() -> Self {
        Self::new()
    }
}

/// The latest provider sessions that sessions here came from.
#[derive(Debug, Default)]
pub struct KnownProviderSessions(Mutex<Option<LruCache<String, ()>>>);

impl KnownProviderSessions {
    /// Notes the provider session of a session that was just made or opened.
    pub(super) fn note(&self, session: &Session) {
        let Some(sid) = &session.sid else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| LruCache::new(MAX_PROVIDER_SESSIONS)).put(sid.clone(), ());
    }

    /// Whether a session here came from this one.
    pub(super) fn contains(&self, sid: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.contains(sid))
    }
}

/// The one `Origin` of a request, if it has any; several, or one that can't be read, are nobody's.
pub(super) fn origin(headers: &HeaderMap) -> Option<&str> {
    let origin = super::navigation::only(headers, ORIGIN)?;
    Some(origin.and_then(|value| value.to_str().ok()).unwrap_or("unreadable"))
}

/// Starts a login.
pub(super) const LOGIN_PATH: &str = "/aporeto/oidc/login";
/// Ends a session.
pub(super) const LOGOUT_PATH: &str = "/aporeto/oidc/logout";
/// Tells about a session.
pub(super) const SESSION_PATH: &str = "/aporeto/oidc/session";
/// Where the provider tells that sessions are over.
pub(super) const BACKCHANNEL_PATH: &str = "/aporeto/oidc/backchannel-logout";
/// Where the provider tells it by a frame in the browser, if the configuration wants that.
pub(super) const FRONTCHANNEL_PATH: &str = "/aporeto/oidc/frontchannel-logout";
/// Paths that are ours and answer nothing (yet): no application may be asked to serve them.
pub(super) const LATER_PATHS: [&str; 2] = [FRONTCHANNEL_PATH, "/aporeto/oidc/jwks"];
/// The path of the callback unless the callback URL has another.
pub const CALLBACK_PATH: &str = "/aporeto/oidc/callback";
/// Paths that Portcullis answers itself, beside the callback's, on every service that has a login.
pub const RESERVED_PATHS: [&str; 6] = {
    let [frontchannel, jwks] = LATER_PATHS;
    [LOGIN_PATH, LOGOUT_PATH, SESSION_PATH, BACKCHANNEL_PATH, frontchannel, jwks]
};
/// Provider sessions that are remembered: some 20 MiB when full. Only logins can add to them.
const MAX_PROVIDER_SESSIONS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
/// Longest ID token that is kept in a cookie.
const MAX_HINT_BYTES: usize = 2048;
/// Longest return target in bytes.
const MAX_RETURN_BYTES: usize = 2048;
/// Redeemed transactions that are remembered: about 4 MiB when full, and 100 logins a second for 10 minutes.
const MAX_REDEEMED: NonZeroUsize = NonZeroUsize::new(60_000).unwrap();
