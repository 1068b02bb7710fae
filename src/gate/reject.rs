//! The one place that turns a refusal into a response, and into the words of its record.

use std::time::Duration;

use http::header::SEC_WEBSOCKET_VERSION;
use http::{HeaderValue, Response};

use super::entry::Entry;
use crate::path::PathError;
use crate::policy::{Ambiguous, Denial, Held, Policy, Rule};
use crate::server::Violation;
use crate::session::LargestPart;
use crate::telemetry::DropReason;
use crate::web::Body;
use crate::web::respond::{self, Audience, Because, Need, Reply, StepUp};
use crate::{oidc, proxy};

/// Why a request is not forwarded. Grouped by whose doing it is.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The client broke HTTP or passed a limit before there was a request to judge.
    Malformed(Violation),
    /// Host (or SNI) names no service of this listener.
    Misdirected(&'static str),
    /// The target can't be judged.
    Target(PathError),
    /// The path can be read in two ways, and the rules differ.
    Ambiguous(Ambiguous),
    /// A WebSocket handshake from a page of another origin.
    Origin,
    /// Our own endpoint, and a method that it does not have.
    Method(&'static str),
    /// A body that is too large for our own endpoint.
    BodyTooLarge,
    /// The plain listener for checks shows only what is public.
    OnlyPublic,
    /// A plain request that has to come back over TLS.
    Plain { location: String },
    /// A path that a later version will serve and that the application must never see.
    Reserved,
    /// Nobody is logged in, and this request can't be redirected to a login.
    SignIn { login: String, absent: String },
    /// A stronger or fresher login is needed, and this request can't be redirected to one.
    StepUp { acr_values: Vec<String>, max_age: Option<Duration>, login: String },
    /// The rules say no.
    Denied { drop: DropReason, account: Option<String>, sign_out: Option<String>, why: Why, detail: String },
    /// The rules say no, and the configuration names a page for that.
    DeniedRedirect { drop: DropReason, location: String, why: String },
    /// No rule, and no login that could change that.
    Closed,
    /// A logout that did not come from our own page.
    ForgedLogout { logout: String },
    /// The login cookie did not come back, twice.
    LoginCookieMissing { login: String },
    /// What the login gave does not fit into cookies.
    SessionTooLarge { part: LargestPart },
    /// The provider, or what it answered.
    Provider { error: oidc::Error, login: String },
    /// The session store.
    Store { why: String },
    /// Two different sessions came with one request; a login could not part them.
    TwoSessions { logout: String },
    /// The application.
    Upstream(proxy::Error),
    /// Sealing failed: the system gives no random numbers.
    Internal(String),
}

/// Why the rules say no, for a page that may tell.
#[derive(Debug)]
pub(super) enum Why {
    Untold,
    NoRule,
    Nobody,
    Denied(Vec<String>),
    EmailUnverified,
    Lacking(Vec<Vec<Need>>),
}

impl Refusal {
    /// The answer. Also completes the record.
    pub(super) fn respond(self, entry: &mut Entry) -> Response<Body> {
        self.record(entry);
        let id = entry.id;
        let service = entry.service().map(|service| service.name.clone());
        let reply = |audience| Reply { audience, request_id: id.as_str(), service: service.as_deref() };
        let given = reply(entry.navigation.audience());
        match self {
            // Whoever speaks plain HTTP to this port typed a URL, most likely.
            Self::Malformed(Violation::PlainText) => {
                malformed(&reply(Audience::Person), Violation::PlainText)
            }
            Self::Malformed(violation) => malformed(&given, violation),
            Self::Misdirected(_) => given.misdirected(),
            Self::Target(error) => given.bad_request(&error.to_string()),
            Self::Ambiguous(error) => given.bad_request(&error.to_string()),
            Self::Origin => given.origin_refused(),
            Self::Method(allow) => given.method_not_allowed(allow),
            Self::BodyTooLarge => given.content_too_large(),
            Self::OnlyPublic => given.only_public_here(),
            Self::Plain { location } => given.permanent_redirect(&location),
            Self::Reserved => given.not_found(),
            Self::SignIn { login, .. } => given.unauthorized(&login),
            Self::StepUp { acr_values, max_age, login } => {
                given.step_up(&StepUp { acr_values: &acr_values, max_age }, &login)
            }
            Self::Denied { account, sign_out, why, .. } => given.forbidden(&respond::Refusal {
                account: account.as_deref(),
                sign_out: sign_out.as_deref(),
                because: why.because(),
            }),
            Self::DeniedRedirect { location, .. } => given.found(&location),
            Self::ForgedLogout { logout } => given.logout_refused(&logout),
            // The callback and what follows is only ever seen by a person.
            Self::LoginCookieMissing { login } => reply(Audience::Person).login_cookie_missing(&login),
            Self::SessionTooLarge { part } => given.session_too_large(&part.to_string()),
            Self::Provider { error, login } => provider(&given, &error, &login),
            Self::Store { .. } => given.store_unavailable(STORE_RETRY),
            Self::TwoSessions { logout } => given.two_sessions(&logout),
            Self::Closed => given.closed(),
            Self::Upstream(error) => upstream(&given, &error),
            Self::Internal(_) => given.internal_error(),
        }
    }

    fn record(&self, entry: &mut Entry) {
        use DropReason::{Api, Dial, Format, Limit, Login, Policy};
        let (drop, detail) = match self {
            Self::Malformed(violation) => {
                let limit = matches!(violation.status().as_u16(), 408 | 413 | 414 | 431 | 503);
                (if limit { Limit } else { Format }, violation.to_string())
            }
            Self::Misdirected(why) => (Format, (*why).to_owned()),
            Self::Target(error) => (Format, error.to_string()),
            Self::Ambiguous(error) => (Format, error.to_string()),
            Self::Origin => (Policy, "the Origin of the WebSocket handshake is not allowed".to_owned()),
            Self::Method(_) => (Api, "this endpoint of Portcullis does not have this method".to_owned()),
            Self::BodyTooLarge => (Limit, "the body is too large for this endpoint".to_owned()),
            Self::OnlyPublic => (Policy, "not public, on the public port".to_owned()),
            Self::Plain { .. } => (Format, "plain HTTP; sent to https".to_owned()),
            Self::Reserved => (Api, "a reserved path".to_owned()),
            Self::SignIn { absent, .. } => (Login, absent.clone()),
            Self::StepUp { .. } => (Login, "a stronger or fresher login is needed".to_owned()),
            Self::Denied { drop, detail, .. } => (*drop, detail.clone()),
            Self::Closed => (Api, "no rule names this method and path".to_owned()),
            Self::DeniedRedirect { drop, why, .. } => (*drop, format!("{why}; sent to the failure page")),
            Self::ForgedLogout { .. } => (Policy, "a logout that our page did not send".to_owned()),
            Self::LoginCookieMissing { .. } => {
                (Login, "the login cookie did not come back, twice".to_owned())
            }
            Self::SessionTooLarge { part } => (Login, format!("the session is too large, mostly by {part}")),
            Self::Provider { error, .. } => (Login, error.to_string()),
            Self::Store { why } => (Login, format!("the session store can't be used: {why}")),
            Self::TwoSessions { .. } => (Login, "the request carries two different sessions".to_owned()),
            Self::Upstream(error) => (
                match error.blame() {
                    proxy::Blame::Upstream => Dial,
                    proxy::Blame::Client => Format,
                },
                error.to_string(),
            ),
            Self::Internal(what) => (Limit, what.clone()),
        };
        entry.reject(drop);
        entry.detail = Some(detail);
    }
}

impl Why {
    fn because(&self) -> Option<Because<'_>> {
        match self {
            Self::Untold => None,
            Self::NoRule => Some(Because::NoRule),
            Self::Nobody => Some(Because::Nobody),
            Self::Denied(tags) => Some(Because::Denied(tags)),
            Self::EmailUnverified => Some(Because::EmailUnverified),
            Self::Lacking(clauses) => Some(Because::Lacking(clauses)),
        }
    }
}

/// What a page may tell about a denial where the configuration lets it.
pub(super) fn tell(policy: &Policy, rule: Option<&Rule>, denial: &Denial<'_>, held: &Held) -> Why {
    match (denial, rule) {
        (Denial::NoRule, _) | (_, None) => Why::NoRule,
        (Denial::Nobody, _) => Why::Nobody,
        (Denial::Denied(tags), _) => Why::Denied(tags.to_vec()),
        (Denial::NotAllowed { email_unverified: true }, _) => Why::EmailUnverified,
        (Denial::NotAllowed { .. } | Denial::StepUp, Some(rule)) => {
            let need = |state: crate::policy::TagState| Need { tag: state.tag, held: state.held };
            let clauses = policy.allowed_states(rule, held);
            Why::Lacking(clauses.into_iter().map(|clause| clause.into_iter().map(need).collect()).collect())
        }
    }
}

fn malformed(reply: &Reply<'_>, violation: Violation) -> Response<Body> {
    match violation.status().as_u16() {
        408 => reply.request_timeout(),
        413 => reply.content_too_large(),
        414 => reply.uri_too_long(),
        421 => reply.misdirected(),
        431 => reply.header_fields_too_large(),
        501 => reply.not_implemented(),
        503 => reply.overloaded(OVERLOADED_RETRY),
        _ => reply.bad_request(&violation.to_string()),
    }
}

fn provider(reply: &Reply<'_>, error: &oidc::Error, login: &str) -> Response<Body> {
    // What a login ends with is shown to the person who began it.
    let page = Reply { audience: Audience::Person, ..*reply };
    match error {
        oidc::Error::Browser(_) | oidc::Error::Refused(_) => page.login_refused(login),
        oidc::Error::Denied { error, .. } => page.login_denied(error, login),
        oidc::Error::StepUpNotMet(lacks) => match lacks {
            oidc::StepUpNotMet::Acr { asked, .. } => {
                page.step_up_not_met(&StepUp { acr_values: asked, max_age: None }, login)
            }
            oidc::StepUpNotMet::Age { asked, .. } => {
                let max_age = Some(Duration::from_secs(*asked));
                page.step_up_not_met(&StepUp { acr_values: &[], max_age }, login)
            }
        },
        oidc::Error::Overage { claim } => page.claim_left_out(claim),
        oidc::Error::Unreachable(_)
        | oidc::Error::Unusable(_)
        | oidc::Error::TokenEndpoint(_)
        | oidc::Error::Keys(_)
        | oidc::Error::UserInfo(_)
        | oidc::Error::Paused(_)
        | oidc::Error::Busy
        | oidc::Error::TooSlow
        | oidc::Error::Stopping => {
            reply.provider_unavailable(login, error.retry_after().unwrap_or(oidc::RETRY_AFTER))
        }
    }
}

fn upstream(reply: &Reply<'_>, error: &proxy::Error) -> Response<Body> {
    if let proxy::Error::WebSocketVersion = error {
        // RFC 6455 section 4.4: so that the client can try again with one that there is.
        let mut response = reply.bad_request(&error.to_string());
        let version = HeaderValue::from_static(proxy::WEBSOCKET_VERSION);
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
        return response;
    }
    match error.status().as_u16() {
        408 => reply.request_timeout(),
        431 => reply.header_fields_too_large(),
        504 => reply.gateway_timeout(),
        502 => reply.bad_gateway(),
        501 => reply.not_implemented(),
        503 => reply.overloaded(OVERLOADED_RETRY),
        _ => reply.bad_request(&error.to_string()),
    }
}

/// What `Retry-After` says while the session store can't be used: it is tried every second.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// What `Retry-After` says when a limit is reached.
const OVERLOADED_RETRY: Duration = Duration::from_secs(5);
