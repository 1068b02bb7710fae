//! The way of a request to the application: every step may end it, in the order of the steps.

use std::rc::Rc;

use http::header::{CACHE_CONTROL, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

use super::callers::Known;
use super::entry::Entry;
use super::host::RequestHost;
use super::login::append_cookies;
use super::navigation::{Navigation, same_origin_referer};
use super::reject::{Refusal, Why};
use super::service::{self, LATER_PATHS, RelyingParty};
use super::{Entrance, LocalService, Worker};
use crate::path::NormalPath;
use crate::policy::{Caller, Decision, Denial, Permit, Rule};
use crate::proxy::{ClientInfo, CookieHeader, Terms};
use crate::server::{Connection, Violation};
use crate::session::{Absent, Stripped};
use crate::telemetry::{Action, DropReason, Event, Level, RuleName};
use crate::web::Body;

/// A request as it came, and the connection that it came on.
#[derive(Debug)]
struct Asked<'c> {
    request: Request<Incoming>,
    connection: &'c Rc<Connection>,
}

/// A request whose service and target are known.
#[derive(Debug)]
pub(super) struct Arrived<'w> {
    pub(super) local: &'w Rc<LocalService>,
    pub(super) host: RequestHost,
    pub(super) target: NormalPath,
    pub(super) navigation: Navigation,
    pub(super) entrance: Entrance,
}

impl Worker {
    /// Decides and forwards, or says why not.
    pub(super) async fn admit(
        &self,
        request: Request<Incoming>,
        connection: &Rc<Connection>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(violation) = Violation::of(&request) {
            return Err(Refusal::Malformed(violation));
        }
        let arrived = self.arrive(&request, connection, entry)?;
        let service = &arrived.local.service;
        if let Some(party) = &service.relying_party
            && arrived.entrance != Entrance::PublicOnly
            && let Some(endpoint) = party.endpoint(arrived.target.path())
        {
            return self.endpoint(endpoint, party, &arrived, request, entry).await;
        }
        if service.relying_party.is_some() && LATER_PATHS.contains(&arrived.target.path()) {
            return Err(Refusal::Reserved);
        }
        if let Some(origin) = websocket_origin(request.headers())
            && !service.allows_origin(origin, &arrived.host.authority)
        {
            return Err(Refusal::Origin);
        }
        self.judge(&arrived, Asked { request, connection }, entry).await
    }

    /// Finds the service and reads the target.
    fn arrive<'w>(
        &'w self,
        request: &Request<Incoming>,
        connection: &Rc<Connection>,
        entry: &mut Entry,
    ) -> Result<Arrived<'w>, Refusal> {
        let listener =
            self.listeners.get(connection.listener).ok_or(Refusal::Misdirected("unknown listener"))?;
        let host = RequestHost::of(request.uri(), request.headers())
            .ok_or(Refusal::Misdirected("the request does not name one host"))?;
        let local = match listener.hosts.get(&host.name) {
            Some(local) => local,
            // A health check speaks to an address, not to a name.
            None if listener.entrance == Entrance::PublicOnly => {
                listener.hosts.only().ok_or(Refusal::Misdirected("no service has this host"))?
            }
            None => return Err(Refusal::Misdirected("no service of this port has this host")),
        };
        let service = &local.service;
        entry.is_for(local);
        if let Some(sni) = &connection.sni {
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
        let navigation = Navigation::of(request.method(), request.headers());
        let entrance = listener.entrance;
        if service.trusts(connection.peer.ip()) {
            entry.client = forwarded_client(request.headers(), entry.client, |peer| service.trusts(peer));
        }
        let plain = match entrance {
            Entrance::Tls | Entrance::PublicOnly => false,
            Entrance::Redirect => true,
            Entrance::BehindProxy => {
                !service.trusts(connection.peer.ip()) || !forwarded_over_tls(request.headers())
            }
        };
        if plain {
            return Err(Refusal::Plain { location: service.url(target.as_str()) });
        }
        Ok(Arrived { local, host, target, navigation, entrance })
    }

    /// Asks the rules.
    async fn judge(
        &self,
        arrived: &Arrived<'_>,
        asked: Asked<'_>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let request = &asked.request;
        if let Some(permit) = service.policy.preflight(request.method(), request.headers()) {
            return self.forward(arrived, asked, permit, None, false, entry).await;
        }
        let rule = service.policy.find(request.method(), &arrived.target).map_err(Refusal::Parameters)?;
        entry.rule = rule.map(name_of);
        let public = rule.is_some_and(Rule::is_public);
        let known = match (&service.relying_party, arrived.entrance) {
            (Some(party), Entrance::Tls | Entrance::BehindProxy) => {
                arrived.local.callers.find(service, party, request.headers())
            }
            _ if public => Err(Absent::NoCookie),
            (_, Entrance::PublicOnly) => return Err(Refusal::OnlyPublic),
            _ => Err(Absent::NoCookie),
        };
        if let Ok(known) = &known {
            entry.subject = Some(known.subject.clone());
        }
        if !public && let Err(Absent::Ambiguous) = known {
            return Err(Refusal::TwoSessions { sign_out: service.url(service::LOGOUT_PATH) });
        }
        if !public && arrived.entrance == Entrance::PublicOnly {
            return Err(Refusal::OnlyPublic);
        }
        let caller = known.as_ref().map_or(Caller::Anonymous, |known| known.caller());
        match service.policy.decide(rule, caller, self.clock.now()) {
            Decision::Allow(permit) => {
                if let (Some(rule), Ok(known)) = (rule, &known) {
                    entry.tags = service.policy.deciding_tags(rule, &known.held);
                }
                self.forward(arrived, asked, permit, known.ok().as_deref(), public, entry).await
            }
            Decision::Observe(permit, denial) => {
                entry.action = Action::Observe;
                entry.drop_reason = Some(drop_reason(&denial));
                entry.detail = Some(format!("observed only: {denial}"));
                self.forward(arrived, asked, permit, known.ok().as_deref(), public, entry).await
            }
            Decision::Login => self.sign_in(arrived, request, known.err(), entry).await,
            Decision::StepUp(wanted) => {
                let acr_values = wanted.acr_values.to_vec();
                self.step_up(arrived, request, acr_values, wanted.max_age, entry).await
            }
            Decision::Deny(denial) => Err(self.denied(arrived, rule, &denial, known.ok().as_deref(), entry)),
        }
    }

    /// Nobody is logged in.
    async fn sign_in(
        &self,
        arrived: &Arrived<'_>,
        request: &Request<Incoming>,
        absent: Option<Absent>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let absent = absent.unwrap_or(Absent::NoCookie);
        let Some(party) = &service.relying_party else {
            return Err(Refusal::Denied {
                drop: DropReason::Api,
                account: None,
                sign_out: None,
                why: Why::NoRule,
            });
        };
        if arrived.navigation != Navigation::Page {
            return Err(Refusal::SignIn {
                login: self.login_after(arrived, request),
                absent: absent.to_string(),
            });
        }
        if matches!(absent, Absent::IdleTimeout | Absent::MaxLifetime | Absent::TokenExpired) {
            let event = Event::new("session-expired", Level::Info).service(&service.name).request(entry.id);
            self.log.event(event.message(absent.to_string()));
        }
        entry.detail = Some(absent.to_string());
        self.begin_login(arrived, party, request, Vec::new(), None, entry).await
    }

    /// The login was too weak or too long ago.
    async fn step_up(
        &self,
        arrived: &Arrived<'_>,
        request: &Request<Incoming>,
        acr_values: Vec<String>,
        max_age: Option<std::time::Duration>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        match &service.relying_party {
            Some(party) if arrived.navigation == Navigation::Page => {
                entry.detail = Some("a stronger or fresher login is needed".to_owned());
                self.begin_login(arrived, party, request, acr_values, max_age, entry).await
            }
            _ => Err(Refusal::StepUp { acr_values, max_age, login: self.login_after(arrived, request) }),
        }
    }

    /// Sends a navigation to the provider, by way of the canonical host.
    async fn begin_login(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Incoming>,
        acr_values: Vec<String>,
        max_age: Option<std::time::Duration>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        if arrived.host.name != service.canonical_host {
            entry.reject(DropReason::Login);
            return Ok(self.reply(arrived, entry).found(&service.url(arrived.target.as_str())));
        }
        let target = service.return_target(arrived.target.as_str());
        let wanted = super::login::Wanted { target, attempt: 1, acr_values, max_age };
        self.redirect_to_provider(arrived, party, request.headers(), wanted, entry).await
    }

    /// The address of a login after which a program's page can go on.
    fn login_after(&self, arrived: &Arrived<'_>, request: &Request<Incoming>) -> String {
        let service = &arrived.local.service;
        let referer = same_origin_referer(request.headers(), &service.origin).unwrap_or("/");
        service.login_url(&service.return_target(referer))
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
        if let Denial::Denied(clause) = denial {
            entry.tags = service.policy.texts(clause);
        }
        if arrived.navigation != Navigation::Program
            && let Some(location) = service.failure_location()
        {
            return Refusal::DeniedRedirect { drop, location };
        }
        let why = match (service.explain_denials, rule, known) {
            _ if matches!(denial, Denial::NoRule) => Why::NoRule,
            (true, rule, Some(known)) => super::reject::tell(&service.policy, rule, denial, &known.held),
            _ => Why::Untold,
        };
        let account = service.explain_denials.then(|| known.map(|known| known.subject.to_string())).flatten();
        let sign_out = known.is_some().then(|| service.url(service::LOGOUT_PATH));
        Refusal::Denied { drop, account, sign_out, why }
    }

    /// Strips, stamps and sends; then cleans the answer.
    async fn forward(
        &self,
        arrived: &Arrived<'_>,
        asked: Asked<'_>,
        permit: Permit,
        known: Option<&Known>,
        public: bool,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        let Asked { request, connection } = asked;
        let cookie = match service.own_cookies.strip(request.headers()) {
            Stripped::Unchanged => CookieHeader::Unchanged,
            Stripped::Replaced(value) => CookieHeader::Replace(value),
        };
        let renewed = match (known, &service.relying_party) {
            (Some(known), Some(party)) if party.sessions.needs_new_seal(&known.session) => {
                party.sessions.seal(&known.session, request.headers()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let tls = arrived.entrance != Entrance::PublicOnly;
        let info = ClientInfo {
            address: entry.client,
            scheme: if tls { "https" } else { "http" },
            host: &arrived.host.authority,
            port: port_of(&arrived.host.authority, tls),
            request_id: entry.id.as_str(),
        };
        let terms = Terms {
            client: info,
            identity: known.map(|known| &known.identity),
            cookie,
            private: !public,
            observer: Some(entry.observer()),
            ends_at: known.zip(service.relying_party.as_ref()).map(|(known, party)| {
                let left = party.sessions.expires_at(&known.session).since(self.clock.now());
                tokio::time::Instant::now() + left
            }),
        };
        let request = request.map(Body::from);
        let forwarder = &arrived.local.forwarder;
        let mut response =
            forwarder.forward(request, permit, &arrived.target, terms).await.map_err(|error| {
                connection.body_violation().map_or(Refusal::Upstream(error), Refusal::Malformed)
            })?;
        entry.answered();
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            entry.tunnels(connection.tunnel());
            return Ok(response);
        }
        if !renewed.is_empty() {
            append_cookies(response.headers_mut(), renewed);
            keep_private(response.headers_mut());
        }
        Ok(response)
    }
}

fn name_of(rule: &Rule) -> RuleName {
    RuleName { spec: rule.spec().clone(), uri: rule.uri().clone(), method: rule.method().clone() }
}

fn drop_reason(denial: &Denial<'_>) -> DropReason {
    if matches!(denial, Denial::NoRule) { DropReason::Api } else { DropReason::Policy }
}

/// Makes an answer that sets a cookie stay in the browser that it is for (RFC 9111 section 5.2.2.7).
fn keep_private(headers: &mut HeaderMap) {
    let safe = headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        text.split(',').any(|directive| matches!(directive.trim(), "private" | "no-store"))
    });
    if !safe {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// The Origin of a WebSocket handshake.
fn websocket_origin(headers: &HeaderMap) -> Option<&str> {
    let upgrades = headers
        .get_all(UPGRADE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("websocket")));
    if upgrades { service::origin(headers) } else { None }
}

fn port_of(authority: &str, tls: bool) -> u16 {
    let port = authority.parse::<http::uri::Authority>().ok().and_then(|authority| authority.port_u16());
    port.unwrap_or(if tls { 443 } else { 80 })
}

/// The client as the proxies before us saw it: the last address that none of them has.
fn forwarded_client(
    headers: &HeaderMap,
    peer: std::net::IpAddr,
    trusted: impl Fn(std::net::IpAddr) -> bool,
) -> std::net::IpAddr {
    let fields: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = peer;
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        let Some(address) = address_of(entry.trim()) else { break };
        client = address;
        if !trusted(address) {
            break;
        }
    }
    client
}

/// An address, maybe with a port.
fn address_of(text: &str) -> Option<std::net::IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// Whether the trusted proxy says that the client spoke TLS: exactly one value, `https`.
fn forwarded_over_tls(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all("x-forwarded-proto").iter();
    matches!((values.next(), values.next()), (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"https"))
}
