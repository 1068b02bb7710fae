//! Logout: by the person (RP-Initiated Logout 1.0), and by the provider, server to server (Back-Channel Logout 1.0) or
//! by a frame in the browser (Front-Channel Logout 1.0).
//!
//! Owns who may end which session, and what the browser is told. Ending a session is an entry among the revocations;
//! whatever else must end with it follows from there.

use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};

use super::admit::Arrived;
use super::callers::Known;
use super::entry::Entry;
use super::login::{open, seal};
use super::navigation::only;
use super::reject::Refusal;
use super::service::{LOGOUT_PATH, RelyingParty, Service};
use super::{LocalService, Worker};
use crate::clock::UnixTime;
use crate::oidc::{EndSession, LogoutToken, LogoutTokenError};
use crate::session::revocation::{Entry as Ending, LedgerError};
use crate::session::{Absent, MAX_CLOCK_DIFFERENCE, Purpose, Session, Why};
use crate::telemetry::{Event, Level};
use crate::web::Body;

/// What the logout form carries, sealed: it proves that our page was read by this session's browser.
#[derive(Serialize, Deserialize)]
struct FormToken {
    session: String,
    made: UnixTime,
}

impl Worker {
    /// A page with one form: a GET from anywhere must not end a session.
    pub(super) async fn logout_page(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let known = match self.caller(arrived, party, request.headers()).await {
            Ok(known) => {
                entry.subject = Some(known.subject.clone());
                Some(known)
            }
            // There is something to end, although nobody can tell whose it is.
            Err(Absent::Ambiguous) => None,
            Err(Absent::StoreUnavailable) => return Err(arrived.local.service.store_refusal()),
            // Also where the provider sends browsers after its own logout, with or without our state: there is
            // nothing left to do then, whatever the state says.
            Err(absent) => {
                if is_over(absent) && party.sessions.check_store().is_err() {
                    return Err(arrived.local.service.store_refusal());
                }
                entry.cookies.extend(party.sessions.clear(request.headers()));
                let query = arrived.target.query().unwrap_or_default();
                let at_provider =
                    party.provider.offers_logout() && sole_value(query.as_bytes(), "state").is_some();
                return Ok(self.reply(arrived, entry).signed_out(at_provider));
            }
        };
        let session = known.as_ref().map(|known| known.session.id.to_string()).unwrap_or_default();
        let token = seal(party, Purpose::Logout, &FormToken { session, made: self.clock.now() })?;
        let way_out = known.and_then(|known| way_out(&arrived.local.service, party, Some(&known.session)));
        Ok(self.reply(arrived, entry).logout_form(LOGOUT_PATH, &token, way_out.as_deref()))
    }

    /// Ends the session of this browser, here and at the provider.
    pub(super) async fn logout(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &mut Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let body = std::mem::take(request.body_mut());
        let headers = request.headers();
        let known = self.caller(arrived, party, headers).await;
        if let Err(Absent::StoreUnavailable) = known {
            return Err(service.store_refusal());
        }
        // It was idle for too long, say, or this is a second click, whose answer is the one that the browser follows.
        let was_over = known.as_ref().is_err_and(|absent| is_over(*absent));
        let known = known.ok();
        if let Some(known) = &known {
            entry.subject = Some(known.subject.clone());
        }
        let session = known.as_ref().map(|known| known.session.id.to_string());
        // Also without a session: a POST from another site carries no cookie, and must not be told that
        // something was ended.
        let ours =
            from_our_page(headers) || self.has_form_token(party, headers, body, session.as_deref()).await;
        if !ours {
            return Err(Refusal::ForgedLogout { logout: service.url(LOGOUT_PATH) });
        }
        let cleared = party.sessions.clear(headers);
        let Some(known) = known else {
            // Of what has ended here, the others may not know yet; and as long as they don't, its cookie is worth something.
            if was_over && party.sessions.check_store().is_err() {
                return Err(service.store_refusal());
            }
            entry.cookies.extend(cleared);
            let way_out = was_over.then(|| way_out(service, party, None)).flatten();
            return Ok(self.sent_away(arrived, entry, way_out));
        };
        // From here on all is done, also if the client goes away.
        let all = known.session.replaced.iter().chain([&known.session.id]).copied();
        let ended = party.revocations.end_each(all, Why::Logout);
        let event = Event::new("logout", Level::Info).service(&service.name).request(entry.id);
        let event = event.subject(&known.session.subject).session(&known.session.id);
        self.journal.log().event(event);
        let way_out = tokio::task::spawn_local(take_leave(arrived.local.clone(), known));
        let (ended, way_out) = tokio::join!(ended, way_out);
        if ended == Err(LedgerError::NotShared) {
            // With its cookies, the browser can try again.
            return Err(service.store_refusal());
        }
        entry.cookies.extend(cleared);
        Ok(self.sent_away(arrived, entry, way_out.ok().flatten()))
    }

    /// Here it is done; the browser goes on to the provider, if that has a logout.
    fn sent_away(&self, arrived: &Arrived<'_>, entry: &Entry, way_out: Option<String>) -> Response<Body> {
        let reply = self.reply(arrived, entry);
        match way_out {
            Some(location) => reply.log_out_at(&location),
            None => reply.logged_out(),
        }
    }

    /// The provider says that one of its sessions, or all of a person's, are over.
    pub(super) async fn back_channel_logout(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &mut Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let body = std::mem::take(request.body_mut());
        let token = match self.form(request.headers(), body, MAX_LOGOUT_FORM_BYTES).await {
            Ok(form) => sole_value(&form, "logout_token"),
            Err(Unread::TooLarge) => return Err(Refusal::BodyTooLarge),
            Err(Unread::NoForm) => None,
        };
        let Some(token) = token else {
            return Ok(self.refuse_logout_token(arrived, entry, "it has no form with one logout_token"));
        };
        let token = match party.provider.verify_logout_token(&token).await {
            Ok(token) => token,
            Err(LogoutTokenError::Refused(why)) => {
                return Ok(self.refuse_logout_token(arrived, entry, &why.to_string()));
            }
            Err(LogoutTokenError::Unavailable(error)) => {
                return Err(Refusal::Provider { error, login: arrived.local.service.login_url("/") });
            }
        };
        if !party.replays.first_time(&token.jti, token.expires_at) {
            return Ok(self.refuse_logout_token(
                arrived,
                entry,
                "a logout token with this jti was taken already",
            ));
        }
        entry.subject = token.subject.as_deref().map(Into::into);
        if self.end_at_providers_word(arrived, party, entry, &token).await == Err(LedgerError::NotShared) {
            // The provider may send it again.
            party.replays.forget(&token.jti);
            return Err(arrived.local.service.store_refusal());
        }
        Ok(self.reply(arrived, entry).acknowledged())
    }

    async fn end_at_providers_word(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        entry: &Entry,
        token: &LogoutToken,
    ) -> Result<(), LedgerError> {
        let issuer = party.provider.issuer();
        // A token that comes again, at another replica or after a restart, must not end what began after it was made.
        let made = token.issued_at.plus(MAX_CLOCK_DIFFERENCE);
        let (revocations, why) = (&party.revocations, Why::BackChannel);
        let (ended, which) = match (&token.sid, token.subject.as_deref()) {
            (Some(sid), subject) => (
                revocations.end_provider_session(issuer, (sid, subject), made, why),
                "the session of this sid",
            ),
            (None, Some(subject)) => {
                let all = Ending::Subject { issuer, subject };
                (revocations.end_until(all, made, why), "all sessions of this subject")
            }
            // A verified logout token has one of both.
            (None, None) => return Ok(()),
        };
        let event = Event::new("backchannel-logout", Level::Info).request(entry.id).message(which);
        let event = event.service(&arrived.local.service.name);
        self.journal.log().event(match &entry.subject {
            Some(subject) => event.subject(subject),
            None => event,
        });
        ended.await
    }

    fn refuse_logout_token(&self, arrived: &Arrived<'_>, entry: &mut Entry, why: &str) -> Response<Body> {
        entry.reject(crate::telemetry::DropReason::Token);
        entry.detail = Some(format!("the logout token is refused: {why}"));
        self.reply(arrived, entry).logout_token_refused()
    }

    /// The provider says so by a frame in the browser: no proof of anything, so only exact names of what is known here
    /// count, and everything else is ignored.
    pub(super) async fn front_channel_logout(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let query = arrived.target.query().unwrap_or_default().as_bytes();
        let (issuer, sid) = (sole_value(query, "iss"), sole_value(query, "sid"));
        match (issuer, sid) {
            (Some(issuer), Some(sid))
                if issuer == party.provider.issuer() && party.provider_sessions.contains(&sid) =>
            {
                let ending = Ending::ProviderSession { issuer: &issuer, sid: &sid };
                let ended = party.revocations.end(ending, Why::FrontChannel);
                let event = Event::new("frontchannel-logout", Level::Info).request(entry.id);
                self.journal.log().event(event.service(&arrived.local.service.name));
                if ended.await == Err(LedgerError::NotShared) {
                    return Err(arrived.local.service.store_refusal());
                }
            }
            _ => entry.detail = Some("ignored: not this issuer and a session of this service".to_owned()),
        }
        Ok(self.reply(arrived, entry).acknowledged_in_frame(&party.provider.origin()))
    }

    async fn has_form_token(
        &self,
        party: &RelyingParty,
        headers: &HeaderMap,
        body: Body,
        session: Option<&str>,
    ) -> bool {
        let Ok(form) = self.form(headers, body, MAX_FORM_BYTES).await else { return false };
        let Some(token) = sole_value(&form, "token") else { return false };
        open::<FormToken>(party, Purpose::Logout, &token).is_some_and(|token| {
            session.is_none_or(|session| token.session == session)
                && self.clock.now().since(token.made) <= FORM_TOKEN_LIFETIME
        })
    }

    /// The bytes of a form.
    async fn form(&self, headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Unread> {
        let is_form = headers.get(CONTENT_TYPE).is_some_and(|value| {
            let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        let read = tokio::time::timeout(self.limits.body_idle_timeout, Limited::new(body, most).collect());
        match read.await {
            Ok(Ok(body)) if is_form => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
            _ => Err(Unread::NoForm),
        }
    }
}

/// Why there is no form.
enum Unread {
    TooLarge,
    NoForm,
}

/// What follows from the end of a session: its record goes, and its refresh token goes back to the provider. Returns the
/// address of the provider's own logout.
async fn take_leave(local: Rc<LocalService>, known: Rc<Known>) -> Option<String> {
    let party = local.service.relying_party.as_ref()?;
    let session = newest(party, &known.session).await;
    if let Some(grant) = &session.grant {
        party.provider.revoke(grant.refresh_token.clone());
    }
    party.sessions.remove(&session).await;
    way_out(&local.service, party, Some(&session))
}

/// The session with its newest tokens, which the browser, this worker or this process may not have got yet.
async fn newest(party: &RelyingParty, session: &Session) -> Session {
    let known = party.refreshes.known(session);
    let stored = match &session.ticket {
        Some(ticket) => party.sessions.load(ticket).await.ok(),
        None => None,
    };
    let newer = known.as_deref().into_iter().chain(&stored);
    newer.chain([session]).max_by_key(|session| session.revision).unwrap_or(session).clone()
}

/// The address of the provider's own logout for this session, and the way back from there.
fn way_out(service: &Service, party: &RelyingParty, session: Option<&Session>) -> Option<String> {
    let mut state = [0; 16];
    rand::fill(&mut state).ok()?;
    let hint = session.and_then(|session| session.id_token.as_ref()).map(|text| text.expose().as_str());
    let request = EndSession {
        id_token_hint: hint,
        logout_hint: session.filter(|_| hint.is_none()).map(|session| session.subject.as_str()),
        post_logout_redirect_uri: &service.url(LOGOUT_PATH),
        state: &URL_SAFE_NO_PAD.encode(state),
    };
    party.provider.end_session(request).map(String::from)
}

/// Whether the browser brought a session that is over here; the provider's own may be alive.
fn is_over(absent: Absent) -> bool {
    use Absent::{IdleTimeout, LoggedOut, MaxLifetime, NotInStore, TokenExpired};
    matches!(absent, IdleTimeout | LoggedOut(_) | MaxLifetime | NotInStore | TokenExpired)
}

/// The value of a name that is there once.
fn sole_value(form: &[u8], name: &str) -> Option<String> {
    let mut values = url::form_urlencoded::parse(form).filter(|(found, _)| found == name);
    let (_, value) = values.next()?;
    (values.next().is_none() && !value.is_empty()).then(|| value.into_owned())
}

/// The browser's word, which no script can forge, that a page of this very origin sent the request.
fn from_our_page(headers: &HeaderMap) -> bool {
    matches!(only(headers, "sec-fetch-site"), Some(Some(value)) if value == "same-origin")
}

/// Most bytes of our logout form.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// Most bytes of a provider's logout request. Logout tokens have about 1 KB.
const MAX_LOGOUT_FORM_BYTES: usize = 64 * 1024;
/// How long a logout page may stay open.
const FORM_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
