//! The reserved paths of a service with a login. They match exactly, never by prefix.

use http::{Method, Request, Response};

use super::Worker;
use super::admit::Arrived;
use super::entry::Entry;
use super::login::Wanted;
use super::navigation::Navigation;
use super::reject::Refusal;
use super::service::{
    BACKCHANNEL_PATH, FRONTCHANNEL_PATH, LOGIN_PATH, LOGOUT_PATH, RelyingParty, SESSION_PATH,
};
use crate::session::Absent;
use crate::telemetry::DropReason;
use crate::web::Body;
use crate::web::respond::SessionState;

/// One of our own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Callback,
    Login,
    Logout,
    Session,
    /// Back-Channel Logout 1.0.
    BackChannel,
    /// Front-Channel Logout 1.0.
    FrontChannel,
}

impl Endpoint {
    fn allow(self) -> &'static str {
        match self {
            Self::Callback | Self::Login | Self::Session | Self::FrontChannel => "GET",
            Self::Logout => "GET, POST",
            Self::BackChannel => "POST",
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
            BACKCHANNEL_PATH => Some(Endpoint::BackChannel),
            FRONTCHANNEL_PATH if self.front_channel_logout => Some(Endpoint::FrontChannel),
            _ => None,
        }
    }
}

impl Worker {
    /// Serves one of our own endpoints.
    pub(super) async fn endpoint(
        &self,
        endpoint: Endpoint,
        party: &RelyingParty,
        arrived: &Arrived<'_>,
        request: &mut Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let method = request.method().clone();
        entry.navigation = match endpoint {
            // Made for programs; a page would be no answer to them.
            Endpoint::Session | Endpoint::BackChannel => Navigation::Program,
            _ => Navigation::of_endpoint(&method, request.headers()),
        };
        let known = match endpoint {
            Endpoint::Logout => method == Method::GET || method == Method::POST,
            Endpoint::BackChannel => method == Method::POST,
            _ => method == Method::GET,
        };
        if !known {
            return Err(Refusal::Method(endpoint.allow()));
        }
        match endpoint {
            Endpoint::Callback => self.callback(arrived, party, request, entry).await,
            Endpoint::Login => self.login(arrived, party, request, entry).await,
            Endpoint::Session => self.session(arrived, party, request, entry).await,
            Endpoint::Logout if method == Method::GET => {
                self.logout_page(arrived, party, request, entry).await
            }
            Endpoint::Logout => self.logout(arrived, party, request, entry).await,
            Endpoint::BackChannel => self.back_channel_logout(arrived, party, request, entry).await,
            Endpoint::FrontChannel => self.front_channel_logout(arrived, party, entry).await,
        }
    }

    /// Starts a login that returns to `?return=`.
    async fn login(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
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
    async fn session(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        request: &Request<Body>,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refusal> {
        let service = &arrived.local.service;
        match self.caller(arrived, party, request.headers()).await {
            Ok(known) => {
                entry.subject = Some(known.subject.clone());
                Ok(self.reply(arrived, entry).session(&SessionState {
                    subject: &known.session.subject,
                    issuer: &known.session.issuer,
                    expires_at: party.sessions.expires_at(&known.session),
                    idle_expires_at: party.sessions.idle_expires_at(&known.session),
                }))
            }
            Err(Absent::StoreUnavailable) => Err(service.store_refusal()),
            Err(absent) => Err(Refusal::SignIn { login: service.login_url("/"), absent: absent.to_string() }),
        }
    }
}
