//! The login as this side sees it: sealing what a browser carries to the provider and back, and what to do when
//! it comes back with something else.

use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use serde::{Deserialize, Serialize};

use super::Worker;
use super::admit::Arrived;
use super::entry::Entry;
use super::navigation::Navigation;
use super::reject::Refusal;
use super::service::{RelyingParty, Service};
use crate::clock::{Millis, UnixTime};
use crate::oidc::{self, Begin, CallbackError, CallbackParameters, Identity, Transaction};
use crate::path::NormalPath;
use crate::policy::{Caller, Decision};
use crate::session::{
    Absent, Grant, MOST_REPLACED, NewSession, Purpose, Session, SessionError, SessionId, TransactionId, Why,
};
use crate::telemetry::{DropReason, Event, Level, LoginResult};
use crate::web::Body;

/// A login to start.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Path and query to return to.
    pub(super) target: String,
    /// 1, or 2 when the first came back without its cookie.
    pub(super) attempt: u8,
    /// Authentication context classes to ask for.
    pub(super) acr_values: Vec<String>,
    /// Oldest authentication that will do.
    pub(super) max_age: Option<Duration>,
    /// The login that was not known when it came back, after which this one is begun: its id, if `state` tells.
    pub(super) in_place_of: Option<String>,
}

impl Wanted {
    /// A login that returns to `target`, as strong and fresh as its rule will want it: once is enough then.
    pub(super) fn returning_to(service: &Service, target: String, attempt: u8, now: UnixTime) -> Self {
        let path = NormalPath::parse(&target, &service.path).ok();
        let ruling = path.and_then(|path| service.policy.find(&Method::GET, &path).ok()).unwrap_or_default();
        let (acr_values, max_age) = match service.policy.decide(ruling, Caller::Anonymous, now) {
            Decision::Login(wishes) => (wishes.acr_values.to_vec(), wishes.max_age),
            _ => (Vec::new(), None),
        };
        Self { target, attempt, acr_values, max_age, in_place_of: None }
    }
}

/// The `state` parameter, sealed: what a callback can be answered with even if its cookie is gone.
#[derive(Serialize, Deserialize)]
struct State {
    id: String,
    attempt: u8,
    /// Left out when it would make the URL too long.
    target: Option<String>,
}

/// A login that ended well.
struct Finished<'a> {
    identity: &'a Identity,
    replaced: Vec<SessionId>,
    born: Millis,
    /// Where its browser wanted to go.
    target: &'a str,
}

/// What the login cookie holds, sealed.
#[derive(Serialize, Deserialize)]
struct Pending {
    id: String,
    begun: UnixTime,
    target: String,
    transaction: Transaction,
    /// See [`Wanted::in_place_of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_place_of: Option<String>,
}

impl Pending {
    fn is_fresh(&self, now: UnixTime) -> bool {
        now.since(self.begun) <= crate::session::LOGIN_LIFETIME && self.begun <= now.plus(MAX_CLOCK_STEP)
    }
}

impl Worker {
    /// 302 to the provider, with the transaction in a sealed cookie of this browser.
    pub(super) async fn redirect_to_provider(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
        wanted: Wanted,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        // A login that could not be kept would end where it began.
        if party.sessions.check_store().is_err() {
            return Err(service.store_refusal());
        }
        let id =
            TransactionId::new(self.clock.now()).map_err(|error| Refusal::Internal(error.to_string()))?;
        let carried = (wanted.target.len() <= MAX_STATE_TARGET_BYTES).then(|| wanted.target.clone());
        let state = State { id: id.as_str().to_owned(), attempt: wanted.attempt, target: carried };
        let state = seal(party, Purpose::State, &state)?;
        let begin = Begin { state, acr_values: wanted.acr_values, max_age: wanted.max_age };
        let login = service.login_url(&wanted.target);
        let (location, transaction) = match party.provider.begin(begin).await {
            Ok(begun) => begun,
            Err(error) => return Err(self.provider_failed(arrived, error, login, entry)),
        };
        let begun = self.clock.now();
        let cookie = |target: &str| {
            let pending = Pending {
                id: id.as_str().to_owned(),
                begun,
                target: target.to_owned(),
                transaction: transaction.clone(),
                in_place_of: wanted.in_place_of.clone(),
            };
            let sealed = seal(party, Purpose::Login, &pending)?;
            party.login_cookies.set(&id, &sealed).map_err(|error| Refusal::Internal(error.to_string()))
        };
        // A target of many characters that JSON escapes may not fit. Then the login ends at the start page.
        let cookie = cookie(&wanted.target).or_else(|_| cookie("/"))?;
        entry.reject(DropReason::Login);
        let mut response = self.reply(arrived, entry).found(location.as_str());
        let fields = response.headers_mut();
        for old in party.login_cookies.evict(headers) {
            fields.append(SET_COOKIE, party.login_cookies.clear(&old));
        }
        fields.append(SET_COOKIE, cookie);
        Ok(response)
    }

    /// The provider sent the browser back (OpenID Connect Core section 3.1.2.5).
    pub(super) async fn callback(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let again = service.login_url("/");
        let parameters = match CallbackParameters::parse(arrived.target.query().unwrap_or_default()) {
            Ok(parameters) => parameters,
            // Without a state nothing can be told of this callback but that it is nobody's.
            Err(CallbackError::NoState) => {
                return self.stale_login(arrived, party, request, None, None, entry).await;
            }
            Err(error) => return Err(self.provider_failed(arrived, error.into(), again, entry)),
        };
        let state: Option<State> = open(party, Purpose::State, parameters.state());
        // Callbacks come to the canonical host, where their login began.
        let pending = state
            .as_ref()
            .filter(|_| arrived.host.name == service.canonical_host)
            .and_then(|state| self.pending(party, request.headers(), state));
        let Some((id, pending)) = pending else {
            return self.stale_login(arrived, party, request, state, parameters.error(), entry).await;
        };
        // Only a code must not be sent twice.
        if parameters.error().is_none() && !party.redeemed.first_time(&id) {
            return self.stale_login(arrived, party, request, state, None, entry).await;
        }
        let login = service.login_url(&pending.target);
        // Whatever comes of it, this transaction is over.
        entry.cookies.push(party.login_cookies.clear(&id));
        // Drawn before the provider is asked: what it ends meanwhile ends this session too.
        let born = party.revocations.birth();
        match party.provider.finish(parameters, pending.transaction).await {
            Ok(identity) => {
                let replaced = self.replaced(arrived, party, request.headers(), &identity).await;
                let finished = Finished { identity: &identity, replaced, born, target: &pending.target };
                self.log_in(arrived, party, request.headers(), finished, entry).await
            }
            Err(error) => Err(self.provider_failed(arrived, error, login, entry)),
        }
    }

    /// The transaction that a `state` belongs to, if this browser has it and it is not too old.
    fn pending(
        &self,
        party: &RelyingParty,
        headers: &HeaderMap,
        state: &State,
    ) -> Option<(TransactionId, Pending)> {
        let id = TransactionId::parse(&state.id)?;
        let now = self.clock.now();
        let found = party.login_cookies.find(headers, &id);
        let mut found = found.into_iter().filter_map(|sealed| open::<Pending>(party, Purpose::Login, sealed));
        found.find(|pending| pending.is_fresh(now) && pending.id == state.id).map(|pending| (id, pending))
    }

    /// Whether this browser has begun a login after a callback like this one.
    fn was_begun_anew(&self, party: &RelyingParty, headers: &HeaderMap, unknown: &str) -> bool {
        let now = self.clock.now();
        let all = party.login_cookies.all(headers);
        all.filter_map(|sealed| open::<Pending>(party, Purpose::Login, sealed))
            .any(|pending| pending.is_fresh(now) && pending.in_place_of.as_deref() == Some(unknown))
    }

    /// A callback that belongs to no login of this browser: a reloaded page, a login page left open for too
    /// long, somebody else's link. Nothing of it is believed.
    async fn stale_login(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
        state: Option<State>,
        error: Option<&str>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let attempt = state.as_ref().map_or(1, |state| state.attempt);
        let unknown = state.as_ref().map(|state| state.id.clone()).unwrap_or_default();
        let target = state.and_then(|state| state.target).unwrap_or_else(|| "/".to_owned());
        let target = service.return_target(&target);
        if arrived.host.name != service.canonical_host {
            entry.reject(DropReason::Login);
            return Ok(self.reply(arrived, entry).found(&service.login_url(&target)));
        }
        if let Ok(known) = self.caller(arrived, party, request.headers()).await {
            entry.subject = Some(known.subject.clone());
            entry.detail = Some("this login is over already; the session goes on".to_owned());
            return Ok(self.reply(arrived, entry).see_other(&service.url(&target)));
        }
        if let Some(error) = error {
            // What the provider said is an answer; starting another login would go round in circles.
            self.login_event(
                arrived,
                entry,
                LoginResult::browser,
                "browser",
                "an error for a login that is not known",
            );
            let error = oidc::Error::Denied { error: error.to_owned(), description: String::new() };
            return Err(Refusal::Provider { error, login: service.login_url(&target) });
        }
        if attempt >= MAX_ATTEMPTS {
            self.login_event(
                arrived,
                entry,
                LoginResult::browser,
                "browser",
                "the login cookie did not come back",
            );
            return Err(Refusal::LoginCookieMissing { login: service.login_url(&target) });
        }
        // Not by the attempt that `state` tells: there may be none, or always the same.
        if self.was_begun_anew(party, request.headers(), &unknown) {
            let login = service.login_url(&target);
            return Err(self.provider_failed(arrived, CallbackError::UnknownAgain.into(), login, entry));
        }
        if entry.navigation != Navigation::Page {
            let absent = Absent::NoCookie.to_string();
            return Err(Refusal::SignIn { login: service.login_url(&target), absent });
        }
        entry.detail = Some("the login is unknown or too old; starting it again".to_owned());
        let wanted = Wanted::returning_to(service, target, MAX_ATTEMPTS, self.clock.now());
        let wanted = Wanted { in_place_of: Some(unknown), ..wanted };
        self.redirect_to_provider(arrived, party, request.headers(), wanted, entry).await
    }

    /// The sessions of this person that the browser had until now: they go on, for what is open in other tabs, and end
    /// with the new one. Ends what it had of somebody else: whoever has a copy of its cookie, and may have planted it
    /// here, is to be left with nothing.
    async fn replaced(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
        identity: &Identity,
    ) -> Vec<SessionId> {
        let Ok(before) = self.caller(arrived, party, headers).await else { return Vec::new() };
        let mut replaced = [&[before.session.id], &*before.session.replaced].concat();
        let is_theirs =
            before.session.subject == identity.subject && before.session.issuer == identity.issuer;
        let over = replaced.split_off(if is_theirs { MOST_REPLACED.min(replaced.len()) } else { 0 });
        // They are over here, whoever can be told.
        let _ = party.revocations.end_each(over, Why::Replaced).await;
        replaced
    }

    /// Makes the session of a login that ended well.
    async fn log_in(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
        Finished { identity, replaced, born, target }: Finished<'_>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let login = NewSession {
            issuer: &identity.issuer,
            subject: &identity.subject,
            sid: identity.sid.as_deref(),
            claims: &identity.claims,
            keep: &party.needed_claims,
            born,
            token_expires_at: identity.id_token_expires_at,
            acr: identity.acr.as_deref(),
            auth_time: identity.auth_time,
            grant: identity.grant.as_ref().map(|grant| Grant {
                refresh_token: grant.refresh_token.clone(),
                nonce: identity.nonce.clone(),
                received_at: grant.received_at,
                expires_at: grant.expires_at,
                from_user_info: identity.from_user_info.clone(),
            }),
            id_token: party.kept_id_token(identity.id_token.clone()),
            replaced,
        };
        let made = async {
            let mut session = Session::new(login, self.clock.now())?;
            // Or the next request would ask for a login again, and the one after that too.
            if let Some(why) = is_over(party, &session) {
                return Ok(Err(why));
            }
            self.tell_unmapped(arrived, &session, entry);
            party.sessions.put(&mut session).await?;
            let cookies = party.sessions.seal(&session, headers)?;
            Ok(Ok((session.id, cookies)))
        };
        let (session, cookies) = match made.await {
            Ok(Ok(made)) => made,
            Ok(Err(why)) => {
                let error = oidc::Error::from(oidc::Refusal::SessionOver(why));
                self.login_event(arrived, entry, LoginResult::refused, "provider", &error.to_string());
                return Err(Refusal::Provider { error, login: service.login_url(target) });
            }
            Err(SessionError::Store(error)) => {
                self.login_event(arrived, entry, LoginResult::unavailable, "store", &error.to_string());
                return Err(Refusal::Store { why: error.to_string() });
            }
            Err(error) => {
                self.login_event(arrived, entry, LoginResult::refused, "provider", &error.to_string());
                return Err(match error {
                    SessionError::TooLarge { part, .. } => Refusal::SessionTooLarge { part },
                    error => Refusal::Internal(error.to_string()),
                });
            }
        };
        entry.subject = Some(identity.subject.as_str().into());
        self.metrics.login(&service.name, LoginResult::success);
        self.journal.log().event(
            Event::new("login", Level::Info)
                .service(&service.name)
                .request(entry.id)
                .subject(&identity.subject)
                .session(&session),
        );
        let mut response = self.reply(arrived, entry).see_other(&service.url(&service.return_target(target)));
        append_cookies(response.headers_mut(), cookies);
        Ok(response)
    }

    /// Notes the claims that can't become headers: once for each login.
    fn tell_unmapped(&self, arrived: &Arrived<'_>, session: &Session, entry: &Entry) {
        let service = &arrived.local.service;
        let (_, unmapped) = crate::proxy::Identity::from_claims(&session.claims, &service.mappings);
        for claim in unmapped {
            self.journal.log().event(
                Event::new("claim-not-mapped", Level::Warning)
                    .service(&service.name)
                    .request(entry.id)
                    .subject(&session.subject)
                    .message(format!(
                        "the claim `{}` is not sent to the application: {}",
                        claim.claim, claim.reason
                    )),
            );
        }
    }

    /// Notes that the provider could not be used, or that its answer was refused.
    fn provider_failed(
        &self,
        arrived: &Arrived<'_>,
        error: oidc::Error,
        login: String,
        entry: &mut Entry,
    ) -> Refusal {
        let result = match error.kind() {
            oidc::Kind::Browser => LoginResult::browser,
            oidc::Kind::Refused | oidc::Kind::Overage | oidc::Kind::StepUpNotMet => LoginResult::refused,
            oidc::Kind::Denied => LoginResult::denied,
            oidc::Kind::Unavailable => LoginResult::unavailable,
        };
        let blame = if error.kind() == oidc::Kind::Browser { "browser" } else { "provider" };
        self.login_event(arrived, entry, result, blame, &error.to_string());
        Refusal::Provider { error, login }
    }

    fn login_event(
        &self,
        arrived: &Arrived<'_>,
        entry: &Entry,
        result: LoginResult,
        blame: &'static str,
        message: &str,
    ) {
        let service = &arrived.local.service;
        self.metrics.login(&service.name, result);
        self.journal.log().event(
            Event::new("login-failed", Level::Warning)
                .service(&service.name)
                .request(entry.id)
                .blame(blame)
                .message(message),
        );
    }
}

/// Seals a value of ours.
pub(super) fn seal<T: Serialize>(
    party: &RelyingParty,
    purpose: Purpose,
    value: &T,
) -> Result<String, Refusal> {
    let plain = serde_json::to_vec(value).map_err(|error| Refusal::Internal(error.to_string()))?;
    party.sealer.seal(purpose, &plain).map_err(|error| Refusal::Internal(error.to_string()))
}

/// Opens a value that may be of ours.
pub(super) fn open<T: for<'de> Deserialize<'de>>(
    party: &RelyingParty,
    purpose: Purpose,
    text: &str,
) -> Option<T> {
    let plain = party.sealer.open(purpose, text)?;
    serde_json::from_slice(&plain).ok()
}

/// Appends Set-Cookie fields.
pub(super) fn append_cookies(headers: &mut HeaderMap, cookies: impl IntoIterator<Item = HeaderValue>) {
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
}

/// Longest return target that `state` carries too.
const MAX_STATE_TARGET_BYTES: usize = 1024;
/// A login that comes back without its cookie is started again once.
const MAX_ATTEMPTS: u8 = 2;
/// How far a transaction may lie in the future before the clock must have been wrong.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(60);

/// Why a session that is being made would be over at its first request: the provider has ended its own session, of
/// which this one is a part, or says that its token has expired, to which the session is bound.
fn is_over(party: &RelyingParty, session: &Session) -> Option<String> {
    let bounds = party.sessions.check(session).err().map(|absent| absent.to_string());
    bounds.or_else(|| party.revocations.ended(session).map(|why| why.to_string()))
}

/// Reads what a seal of a login may hold: each sort is itself, or nothing.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_sealed(plain: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<State>(plain) {
        let text = serde_json::to_vec(&state).unwrap_or_default();
        let again = serde_json::from_slice::<State>(&text).ok();
        assert!(again.is_some_and(|again| {
            (again.id, again.attempt, again.target) == (state.id, state.attempt, state.target)
        }));
    }
    if let Ok(pending) = serde_json::from_slice::<Pending>(plain) {
        let text = serde_json::to_vec(&pending).unwrap_or_default();
        let again = serde_json::from_slice::<Pending>(&text).ok();
        let same = |again: &Pending| {
            (&again.id, again.begun, &again.target) == (&pending.id, pending.begun, &pending.target)
                && (&again.transaction, &again.in_place_of) == (&pending.transaction, &pending.in_place_of)
        };
        assert!(again.as_ref().is_some_and(same));
        // Neither stands in for the other.
        assert!(serde_json::from_slice::<State>(&text).is_err(), "a login in progress passes for a state");
    }
}
