//! The way of a request to the application: every step may end it, in the order of the steps.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::UPGRADE;
use http::{HeaderMap, Method, Request, Response};

use super::callers::{Known, Missing, Presented};
use super::entry::Entry;
use super::forwarded;
use super::host::{RequestHost, sole_authority};
use super::login::Wanted;
use super::navigation::{Navigation, same_origin_referer};
use super::recollection::Recollection;
use super::reject::{self, Refusal, Why};
use super::service::{self, LATER_PATHS, RelyingParty, Service};
use super::{Entrance, LocalListener, LocalService, Worker};
use crate::clock::UnixTime;
use crate::path::NormalPath;
use crate::policy::{Caller, Decision, Denial, Permit, Rule, StepUp};
use crate::server::{Connection, Violation};
use crate::session::Absent;
use crate::telemetry::{Action, DropReason, Event, Level, RuleName};
use crate::web::Body;

/// What is known of a request once its service and target are.
#[derive(Debug)]
pub(super) struct Arrived<'w> {
    pub(super) local: &'w Rc<LocalService>,
    pub(super) host: Rc<RequestHost>,
    pub(super) target: NormalPath,
    pub(super) entrance: Entrance,
    /// What is still known from the last request of the connection.
    pub(super) recollection: Rc<Recollection>,
}

/// What comes of a request that is not refused.
#[derive(Debug)]
enum Next<'a> {
    /// It goes to the application.
    Forward(Allowed),
    /// Somebody must log in first.
    SignIn(StepUp<'a>, Absent),
    /// The login was too weak or too long ago.
    StepUp(StepUp<'a>),
}

/// A request that the rules allow.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) permit: Permit,
    /// Who sends it, where that matters.
    pub(super) presented: Option<Presented>,
    /// Everybody may send it.
    pub(super) public: bool,
    /// When that was decided.
    pub(super) at: UnixTime,
}

impl Worker {
    /// Decides and forwards, or says why not.
    pub(super) async fn admit(
        &self,
        request: &mut Request<Body>,
        connection: &Rc<Connection>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(violation) = Violation::of(request) {
            if matches!(violation, Violation::HeadTooLarge | Violation::TooManyFields) {
                self.shed_logins(request, connection, entry);
            }
            return Err(Refusal::Malformed(violation));
        }
        let arrived = self.arrive(request, connection, entry)?;
        let service = &arrived.local.service;
        if let Some(party) = &service.relying_party {
            let path = arrived.target.path();
            match party.endpoint(path) {
                // The plain listener never reads credentials, so our endpoints have nothing to do there.
                Some(_) if arrived.entrance == Entrance::PublicOnly => return Err(Refusal::Reserved),
                Some(_) if wants_websocket(request.headers()) => return Err(Refusal::Reserved),
                Some(endpoint) => {
                    return Box::pin(self.endpoint(endpoint, party, &arrived, request, entry)).await;
                }
                None if LATER_PATHS.contains(&path) => return Err(Refusal::Reserved),
                None => {}
            }
        }
        if entry.has_upgrade
            && wants_websocket(request.headers())
            && let Some(origin) = service::origin(request.headers())
            && !service.allows_origin(origin, &arrived.host.authority)
        {
            return Err(Refusal::Origin);
        }
        let mut now = self.clock.at(entry.time);
        let presented = match self.credentials(&arrived, request.headers(), now) {
            Ok(found) if !found.known.is_due(now) => Ok(found),
            Err(Missing::Nobody(absent)) => Err(absent),
            asks => {
                // Boxed like what follows.
                let answered = Box::pin(self.asked(&arrived, request.headers(), asks, entry)).await;
                now = self.clock.now();
                answered
            }
        };
        match self.judge(&arrived, request, presented, now, entry)? {
            Next::Forward(allowed) => self.forward(&arrived, request, connection, allowed, entry).await,
            // Boxed, so that requests that are forwarded don't carry the room for logins around.
            Next::SignIn(wishes, absent) => {
                Box::pin(self.sign_in(&arrived, request, wishes, absent, entry)).await
            }
            Next::StepUp(wanted) => Box::pin(self.step_up(&arrived, request, wanted, entry)).await,
        }
    }

    /// Takes login cookies off a browser whose requests are too large, and would be until these expire: many pages that
    /// are opened at once each begin a login before the first of them is back to count them. Over HTTP/1 such a head is
    /// not read to its end, and there is nothing to see.
    fn shed_logins(&self, request: &Request<Body>, connection: &Connection, entry: &mut Entry) {
        let Some(listener) = self.listeners.get(connection.listener) else { return };
        let Ok((_, local)) = self.service_of(listener, request) else { return };
        if let Some(party) = &local.service.relying_party
            && listener.entrance == Entrance::Tls
        {
            let logins = party.login_cookies.evict(request.headers());
            entry.cookies.extend(logins.iter().map(|id| party.login_cookies.clear(id)));
        }
    }

    /// Finds the service and reads the target.
    fn arrive<'w>(
        &'w self,
        request: &Request<Body>,
        connection: &Connection,
        entry: &mut Entry,
    ) -> Result<Arrived<'w>, Refusal> {
        let listener =
            self.listeners.get(connection.listener).ok_or(Refusal::Misdirected("unknown listener"))?;
        let entrance = listener.entrance;
        let (host, local) = self.service_of(listener, request)?;
        let service = &local.service;
        entry.is_for(local);
        if let Some(sni) = &connection.sni
            && *sni != host.name
        {
            let named = super::host::normal_host(sni).and_then(|name| listener.hosts.get(&name));
            if !named.is_some_and(|named| Rc::ptr_eq(named, local)) {
                return Err(Refusal::Misdirected("the name in the TLS handshake belongs to another service"));
            }
        }
        if request.method() == Method::CONNECT {
            return Err(Refusal::Malformed(Violation::Connect));
        }
        let raw = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if raw.len() > self.limits.target_bytes {
            return Err(Refusal::Malformed(Violation::TargetTooLong));
        }
        let target = NormalPath::parse(raw, &service.path).map_err(Refusal::Target)?;
        let trusted = service.trusts(connection.peer.ip());
        if trusted {
            entry.client = forwarded::client(request.headers(), entry.client, |peer| service.trusts(peer));
        }
        let plain = match entrance {
            Entrance::Tls | Entrance::PublicOnly => false,
            Entrance::Redirect => true,
            Entrance::BehindProxy => {
                entry.proxy_has_tls = trusted && forwarded::over_tls(request.headers());
                !entry.proxy_has_tls
            }
        };
        if plain {
            return Err(Refusal::Plain { location: service.url(target.as_str()) });
        }
        Ok(Arrived { local, host, target, entrance, recollection: Recollection::of(connection) })
    }

    /// The service that a request is for, by its host.
    fn service_of<'w>(
        &'w self,
        listener: &'w LocalListener,
        request: &Request<Body>,
    ) -> Result<(Rc<RequestHost>, &'w Rc<LocalService>), Refusal> {
        let sole = sole_authority(request.uri(), request.headers());
        if let (Some(sole), Some(recent)) = (sole, &*listener.recent.borrow())
            && sole == recent.authority.as_bytes()
            && let Some(local) = listener.hosts.get(&recent.name)
        {
            return Ok((recent.clone(), local));
        }
        let host = RequestHost::of(request.uri(), request.headers());
        let local = match host.as_ref().and_then(|host| listener.hosts.get(&host.name)) {
            Some(local) => local,
            // A health check speaks to an address, or to nobody by name.
            None if listener.entrance == Entrance::PublicOnly => {
                listener.hosts.only().ok_or(Refusal::Misdirected("no service has this host"))?
            }
            None if host.is_none() => return Err(Refusal::Misdirected("the request does not name one host")),
            None => return Err(Refusal::Misdirected("no service of this port has this host")),
        };
        let host = match host {
            Some(host) => {
                let host = Rc::new(host);
                if sole.is_some() && listener.hosts.get(&host.name).is_some() {
                    *listener.recent.borrow_mut() = Some(host.clone());
                }
                host
            }
            None => Rc::new(RequestHost::named(&local.service.canonical_host)),
        };
        Ok((host, local))
    }

    /// Asks the rules.
    fn judge<'a>(
        &self,
        arrived: &'a Arrived<'_>,
        request: &Request<Body>,
        presented: Result<Presented, Absent>,
        now: UnixTime,
        entry: &mut Entry,
    ) -> Result<Next<'a>, Refusal> {
        let service = &arrived.local.service;
        let policy = &service.policy;
        let reads_credentials = arrived.entrance != Entrance::PublicOnly;
        if let Some(permit) = policy.preflight(request.method(), request.headers())
            && reads_credentials
        {
            entry.detail = Some("a CORS preflight, forwarded without identity (corsPreflight)".to_owned());
            return Ok(Next::Forward(Allowed { permit, presented: None, public: false, at: now }));
        }
        let ruling = policy.find(request.method(), &arrived.target).map_err(Refusal::Ambiguous)?;
        let public = ruling.is_public();
        let known = presented.as_ref().ok().map(|presented| &*presented.known);
        let caller = known.map_or(Caller::Anonymous, Known::caller);
        let rule = policy.deciding(ruling, caller, now);
        let undecidable = match presented {
            _ if public => None,
            _ if !reads_credentials => Some(Refusal::OnlyPublic),
            Err(Absent::StoreUnavailable) => Some(service.store_refusal()),
            Err(Absent::Ambiguous) => {
                Some(Refusal::TwoSessions { logout: service.url(service::LOGOUT_PATH) })
            }
            _ => None,
        };
        if let Some(refusal) = undecidable {
            note_loosely(rule, known, entry);
            return Err(refusal);
        }
        let decision = policy.decide(ruling, caller, now);
        match (&decision, rule, known) {
            (Decision::Allow(_), Some(rule), Some(known)) => {
                entry.grounds = Some(known.grounds(rule, policy))
            }
            _ => note_loosely(rule, known, entry),
        }
        match decision {
            Decision::Allow(permit) => {
                Ok(Next::Forward(Allowed { permit, presented: presented.ok(), public, at: now }))
            }
            Decision::Observe(permit, denial) => {
                entry.action = Action::Observe;
                entry.drop_reason = Some(drop_reason(&denial));
                entry.detail = Some(format!("observed only: {denial}"));
                note_denied_tags(&denial, entry);
                Ok(Next::Forward(Allowed { permit, presented: presented.ok(), public, at: now }))
            }
            Decision::Login(wishes) => Ok(Next::SignIn(wishes, presented.err().unwrap_or(Absent::NoCookie))),
            Decision::StepUp(wanted) => Ok(Next::StepUp(wanted)),
            Decision::Deny(denial) => Err(self.denied(arrived, rule, &denial, known, entry)),
        }
    }

    /// Nobody is logged in.
    async fn sign_in(
        &self,
        arrived: &Arrived<'_>,
        request: &Request<Body>,
        wishes: StepUp<'_>,
        absent: Absent,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let Some(party) = &service.relying_party else { return Err(Refusal::Closed) };
        if entry.navigation != Navigation::Page {
            let login = login_after(arrived, request);
            // A login URL is no help while there is nobody to log in at.
            if let Some(error) = party.provider.outage() {
                return Err(Refusal::Provider { error, login });
            }
            return Err(Refusal::SignIn { login, absent: absent.to_string() });
        }
        if matches!(absent, Absent::IdleTimeout | Absent::MaxLifetime | Absent::TokenExpired) {
            let event = Event::new("session-expired", Level::Info).service(&service.name).request(entry.id);
            self.journal.log().event(event.message(absent.to_string()));
        }
        entry.detail = Some(absent.to_string());
        self.begin_login(arrived, party, request, wishes, entry).await
    }

    /// The login was too weak or too long ago.
    async fn step_up(
        &self,
        arrived: &Arrived<'_>,
        request: &Request<Body>,
        wanted: StepUp<'_>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        match &arrived.local.service.relying_party {
            Some(party) if entry.navigation == Navigation::Page => {
                entry.detail = Some("a stronger or fresher login is needed".to_owned());
                self.begin_login(arrived, party, request, wanted, entry).await
            }
            _ => Err(Refusal::StepUp {
                acr_values: wanted.acr_values.to_vec(),
                max_age: wanted.max_age,
                login: login_after(arrived, request),
            }),
        }
    }

    /// Sends a navigation to the provider, by way of the canonical host.
    async fn begin_login(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
        wishes: StepUp<'_>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        if arrived.host.name != service.canonical_host {
            entry.reject(DropReason::Login);
            return Ok(self.reply(arrived, entry).found(&service.url(arrived.target.as_str())));
        }
        let wanted = Wanted {
            target: service.return_target(arrived.target.as_str()),
            attempt: 1,
            acr_values: wishes.acr_values.to_vec(),
            max_age: wishes.max_age,
            in_place_of: None,
        };
        self.redirect_to_provider(arrived, party, request.headers(), wanted, entry).await
    }

    fn denied(
        &self,
        arrived: &Arrived<'_>,
        rule: Option<&Rule>,
        denial: &Denial<'_>,
        known: Option<&Known>,
        entry: &mut Entry,
    ) -> Refusal {
        let service = &arrived.local.service;
        let drop = drop_reason(denial);
        note_denied_tags(denial, entry);
        if entry.navigation != Navigation::Program
            && let Some(location) = service.failure_location(&arrived.target)
        {
            return Refusal::DeniedRedirect { drop, location, why: denial.to_string() };
        }
        let why = match known {
            _ if matches!(denial, Denial::NoRule) => Why::NoRule,
            Some(known) if service.explain_denials => {
                reject::tell(&service.policy, rule, denial, &known.held)
            }
            _ => Why::Untold,
        };
        let made_anew =
            known.and_then(|known| known.session.grant.as_ref().filter(|_| known.session.revision > 0));
        let detail = match made_anew {
            Some(grant) => format!("{denial}; the tags are those of the refresh at {}", grant.received_at),
            None => denial.to_string(),
        };
        let account = known.filter(|_| service.explain_denials).map(|known| known.subject.to_string());
        let sign_out = known.map(|_| service.url(service::LOGOUT_PATH));
        Refusal::Denied { drop, account, sign_out, why, detail }
    }
}

/// The address of a login after which a program's page can go on.
fn login_after(arrived: &Arrived<'_>, request: &Request<Body>) -> String {
    let service = &arrived.local.service;
    let here = format!("https://{}", arrived.host.authority);
    let referer = same_origin_referer(request.headers(), &service.origin)
        .or_else(|| same_origin_referer(request.headers(), &here))
        .unwrap_or("/");
    service.login_url(&service.return_target(referer))
}

fn note_loosely(rule: Option<&Rule>, known: Option<&Known>, entry: &mut Entry) {
    entry.rule = rule.map(name_of);
    entry.subject = known.map(|known| known.subject.clone());
}

pub(super) fn name_of(rule: &Rule) -> RuleName {
    RuleName { spec: rule.spec().clone(), uri: rule.uri().clone(), method: rule.method().clone() }
}

fn drop_reason(denial: &Denial<'_>) -> DropReason {
    if matches!(denial, Denial::NoRule) { DropReason::Api } else { DropReason::Policy }
}

fn note_denied_tags(denial: &Denial<'_>, entry: &mut Entry) {
    if let Denial::Denied(tags) = denial {
        entry.tags = Some((*tags).clone());
    }
}

/// Whether this may be a WebSocket handshake, from HTTP/2 too: there the server has made one of the CONNECT.
fn wants_websocket(headers: &HeaderMap) -> bool {
    const WEBSOCKET: &[u8] = b"websocket";
    let asks = |value: &[u8]| value.windows(WEBSOCKET.len()).any(|word| word.eq_ignore_ascii_case(WEBSOCKET));
    headers.get_all(UPGRADE).iter().any(|value| asks(value.as_bytes()))
}

impl Service {
    /// Whether this peer is a proxy that we believe.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&peer.to_canonical()))
    }
}
