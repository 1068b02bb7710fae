//! The reserved paths of a service with a login. They match exactly, never by prefix.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::Worker;
use super::admit::Arrived;
use super::entry::Entry;
use super::login::{Wanted, open, seal};
use super::navigation::{Navigation, only};
use super::reject::Refusal;
use super::service::{LOGIN_PATH, LOGOUT_PATH, RelyingParty, SESSION_PATH};
use crate::clock::UnixTime;
use crate::session::{Absent, Purpose, Why, revocation};
use crate::telemetry::{DropReason, Event, Level};
use crate::web::Body;
use crate::web::respond::SessionState;

/// One of our own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Callback,
    Login,
    Logout,
    Session,
}

impl Endpoint {
    fn allow(self) -> &'static str {
        match self {
            Self::Callback | Self::Login | Self::Session => "GET",
            Self::Logout => "GET, POST",
        }
    }
}

impl RelyingParty {
    /// The endpoint at exactly this path.
    pub(super) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        match path {
            _ if path == self.callback_path => Some(Endpoint::Callback),
            LOGIN_PATH => Some(Endpoint::Login),
            LOGOUT_PATH => Some(Endpoint::Logout),
            SESSION_PATH => Some(Endpoint::Session),
            _ => None,
        }
    }
}

/// What the logout form carries, sealed: it proves that our page was read by this session's browser.
#[derive(Serialize, Deserialize)]
struct LogoutToken {
    session: String,
    made: UnixTime,
}

impl Worker {
    /// Serves one of our own endpoints.
    pub(super) async fn endpoint(
        &self,
        endpoint: Endpoint,
        party: &RelyingParty,
        arrived: &Arrived<'_>,
        request: Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let method = request.method();
        entry.navigation = match endpoint {
            // Made for scripts; a page would be no answer to them.
            Endpoint::Session => Navigation::Program,
            _ => Navigation::of_endpoint(method, request.headers()),
        };
        let known = method == Method::GET || (endpoint == Endpoint::Logout && method == Method::POST);
        if !known {
            return Err(Refusal::Method(endpoint.allow()));
        }
        match endpoint {
            Endpoint::Callback => self.callback(arrived, party, &request, entry).await,
            Endpoint::Login => self.login(arrived, party, &request, entry).await,
            Endpoint::Session => self.session(arrived, party, &request, entry),
            Endpoint::Logout if method == Method::GET => self.logout_page(arrived, party, &request, entry),
            Endpoint::Logout => self.logout(arrived, party, request, entry).await,
        }
    }

    /// Starts a login that returns to `?return=`.
    async fn login(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let query = arrived.target.query().unwrap_or_default();
        let wanted = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "return");
        let target = service.return_target(wanted.as_ref().map_or("/", |(_, value)| value));
        if entry.navigation != Navigation::Page {
            let absent = "a login needs a navigation".to_owned();
            return Err(Refusal::SignIn { login: service.login_url(&target), absent });
        }
        if arrived.host.name != service.canonical_host {
            entry.reject(DropReason::Login);
            return Ok(self.reply(arrived, entry).found(&service.login_url(&target)));
        }
        let wanted = Wanted::returning_to(service, target, 1, self.clock.now());
        self.redirect_to_provider(arrived, party, request.headers(), wanted, entry).await
    }

    /// Tells about the session and never extends it.
    fn session(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        match self.caller(arrived, party, request.headers()) {
            Ok(known) => {
                entry.subject = Some(known.subject.clone());
                Ok(self.reply(arrived, entry).session(&SessionState {
                    session: &known.session.id.to_string(),
                    subject: &known.session.subject,
                    issuer: &known.session.issuer,
                    expires_at: party.sessions.expires_at(&known.session),
                    idle_expires_at: party.sessions.idle_expires_at(&known.session),
                }))
            }
            Err(absent) => Err(Refusal::SignIn { login: service.login_url("/"), absent: absent.to_string() }),
        }
    }

    /// A page with one form: a GET from anywhere must not end a session.
    fn logout_page(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let session = match self.caller(arrived, party, request.headers()) {
            Ok(known) => {
                entry.subject = Some(known.subject.clone());
                known.session.id.to_string()
            }
            // There is something to end, although nobody can tell whose it is.
            Err(Absent::Ambiguous) => String::new(),
            Err(_) => {
                entry.cookies.extend(party.sessions.clear(request.headers()));
                return Ok(self.reply(arrived, entry).signed_out());
            }
        };
        let token = seal(party, Purpose::Logout, &LogoutToken { session, made: self.clock.now() })?;
        Ok(self.reply(arrived, entry).logout_form(LOGOUT_PATH, &token))
    }

    /// Ends the session of this browser.
    async fn logout(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let (parts, body) = request.into_parts();
        let known = self.caller(arrived, party, &parts.headers).ok();
        if let Some(known) = &known {
            entry.subject = Some(known.subject.clone());
        }
        let session = known.as_ref().map(|known| known.session.id.to_string());
        // Also without a session: a POST from another site carries no cookie, and must not be told that
        // something was ended.
        let ours = from_our_page(&parts.headers)
            || self.has_logout_token(party, &parts.headers, body, session.as_deref()).await;
        if !ours {
            return Err(Refusal::ForgedLogout { logout: service.url(LOGOUT_PATH) });
        }
        if let Some(known) = &known {
            let session = &known.session;
            party.revocations.end(revocation::Entry::Session(session.id), Why::Logout).await;
            let event = Event::new("logout", Level::Info).service(&service.name).request(entry.id);
            self.journal.log().event(event.subject(&session.subject).session(&session.id));
        }
        entry.cookies.extend(party.sessions.clear(&parts.headers));
        Ok(self.reply(arrived, entry).logged_out())
    }

    async fn has_logout_token(
        &self,
        party: &RelyingParty,
        headers: &HeaderMap,
        body: Incoming,
        session: Option<&str>,
    ) -> bool {
        let form = headers.get(CONTENT_TYPE).is_some_and(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.trim_start().starts_with("application/x-www-form-urlencoded"))
        });
        if !form {
            return false;
        }
        let read =
            tokio::time::timeout(self.limits.body_idle_timeout, Limited::new(body, MAX_FORM_BYTES).collect());
        let Ok(Ok(body)) = read.await else { return false };
        let body = body.to_bytes();
        let mut tokens = url::form_urlencoded::parse(&body).filter(|(name, _)| name == "token");
        let (Some((_, token)), None) = (tokens.next(), tokens.next()) else { return false };
        open::<LogoutToken>(party, Purpose::Logout, &token).is_some_and(|token| {
            session.is_none_or(|session| token.session == session)
                && self.clock.now().since(token.made) <= LOGOUT_TOKEN_LIFETIME
        })
    }
}

/// The browser's word, which no script can forge, that a page of this very origin sent the request.
fn from_our_page(headers: &HeaderMap) -> bool {
    matches!(only(headers, "sec-fetch-site"), Some(Some(value)) if value == "same-origin")
}

/// Most bytes of the logout form.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// How long a logout page may stay open.
const LOGOUT_TOKEN_LIFETIME: std::time::Duration = std::time::Duration::from_secs(3600);
