//! From the configuration of a service to its assembled boxes, and from services to listeners.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::runtime::Handle;

use super::events::{provider_events, revocation_events};
use super::{Options, StartError};
use crate::clock::Clock;
use crate::config::{self, Authorization, Config};
use crate::gate::{self, Entrance, KnownProviderSessions, Redeemed, Refreshes, RelyingParty};
use crate::oidc::Provider;
use crate::proxy::Connector;
use crate::server::{self, Kind};
use crate::session::redis::{Scope, Store};
use crate::session::revocation::{DiskLedger, Ledger, Replays, SharedAndKept};
use crate::session::{
    Binding, KeyRing, LoginCookies, OwnCookies, Revocations, Sealer, Sessions, SharedEndings, StoreLedger,
};
use crate::telemetry::Metrics;
use crate::tls::{self, ServerTls};

/// What all services are assembled with.
pub(super) struct Assembly<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) clock: &'a Clock,
    pub(super) keys: &'a Arc<ArcSwap<KeyRing>>,
    pub(super) metrics: &'a Metrics,
    /// What keeps revocations over a restart, if there is a state directory.
    pub(super) ledger: Option<&'a Arc<DiskLedger>>,
    /// Where sessions are, if not in cookies.
    pub(super) store: Option<&'a Arc<Store>>,
}

/// What was ended in the sessions of these services, for the processes that share them.
pub(super) fn shared_endings(services: &[Arc<gate::Service>]) -> SharedEndings {
    let parties = services.iter().filter_map(|service| service.relying_party.as_ref());
    let shared =
        parties.filter_map(|party| Some((party.sessions.scope()?.clone(), party.revocations.clone())));
    SharedEndings::new(shared.collect())
}

/// A listener as each box needs it.
pub(super) struct Listening {
    pub(super) server: server::Listener,
    pub(super) gate: gate::Listener,
    pub(super) tls: Option<Arc<ServerTls>>,
}

impl Assembly<'_> {
    /// One service.
    pub(super) fn service(&self, service: &config::Service) -> Result<gate::Service, StartError> {
        let relying_party = match &service.authorization {
            Authorization::Oidc(oidc) => Some(self.relying_party(service, oidc)?),
            Authorization::None => None,
        };
        let connector = Connector::new(&service.upstream.upstream, service.upstream.version)
            .map_err(|cause| StartError::Upstream { service: service.name.clone(), cause })?;
        Ok(gate::Service {
            name: service.name.clone(),
            hosts: service.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            canonical_host: service.canonical_host.as_str().to_owned(),
            origin: service.base_url.clone(),
            policy: service.policy.clone(),
            path: service.path,
            relying_party,
            proxy: service.upstream.clone(),
            connector,
            mappings: service.mappings.clone(),
            own_cookies: OwnCookies::new(self.config.own_cookies.clone()),
            failure_redirect: service.redirect_on_failure.clone(),
            allowed_origins: service.allowed_origins.clone(),
            trusted_proxies: service.trusted_proxies.clone(),
            hsts: service.hsts.and_then(|age| format!("max-age={}", age.as_secs()).parse().ok()),
            explain_denials: self.options.explain_denials,
        })
    }

    fn relying_party(
        &self,
        service: &config::Service,
        oidc: &crate::oidc::Config,
    ) -> Result<RelyingParty, StartError> {
        let binding = Binding {
            service: service.name.to_string(),
            host: service.canonical_host.as_str().to_owned(),
            issuer: oidc.issuer.clone(),
            client_id: oidc.client_id.clone(),
        };
        let sealer = Sealer::new(self.keys.clone(), &binding);
        let sessions = Sessions::new(service.session.clone(), sealer.clone(), self.clock.clone());
        let events = provider_events(&self.options.log, self.metrics, &service.name);
        let provider = Provider::new(oidc.clone(), self.clock.clone(), Handle::current(), events)
            .map_err(|cause| StartError::Provider { service: service.name.clone(), cause })?;
        Ok(RelyingParty {
            provider,
            sessions: match self.store {
                Some(store) => sessions.with_store(store.clone(), Scope::new(&binding)),
                None => sessions,
            },
            login_cookies: LoginCookies::new(service.login_cookie.clone()),
            sealer,
            callback_path: service.callback_path.clone(),
            needed_claims: oidc.needed_claims.clone(),
            redeemed: Redeemed::new(),
            revocations: self.revocations(service, &binding),
            refreshes: Refreshes::new(
                Handle::current(),
                self.clock.clone(),
                self.options.log.clone(),
                self.metrics.clone(),
            ),
            replays: Replays::new(self.clock.clone()),
            front_channel_logout: service.front_channel_logout,
            provider_sessions: KnownProviderSessions::default(),
        })
    }

    fn revocations(&self, service: &config::Service, binding: &Binding) -> Arc<Revocations> {
        let shared = self.store.map(|store| {
            let max_lifetime = service.session.max_lifetime;
            let ledger =
                StoreLedger::new(store.clone(), &Scope::new(binding), max_lifetime, Handle::current());
            Arc::new(ledger) as Arc<dyn Ledger>
        });
        let kept = self.ledger.map(|ledger| ledger.clone() as Arc<dyn Ledger>);
        let ledger = match (shared, kept) {
            (Some(shared), Some(kept)) => Some(Arc::new(SharedAndKept { shared, kept }) as Arc<dyn Ledger>),
            (shared, kept) => shared.or(kept),
        };
        let revocations = Arc::new(Revocations::new(
            service.name.clone(),
            service.session.max_lifetime,
            self.clock.clone(),
            ledger,
            revocation_events(&self.options.log, self.metrics),
        ));
        if let Some(ledger) = self.ledger {
            ledger.attach(&revocations);
        }
        revocations
    }

    /// All listeners. Services on one port share it and are told apart by host.
    pub(super) fn listeners(&self) -> Result<Vec<Listening>, StartError> {
        let mut ports: Vec<(Entrance, Option<IpAddr>, u16, Vec<usize>)> = Vec::new();
        for (index, service) in self.config.services.iter().enumerate() {
            let exposed = if service.tls.is_some() { Entrance::Tls } else { Entrance::BehindProxy };
            let wanted = [
                Some((exposed, service.exposed_port)),
                service.public_application_port.map(|port| (Entrance::PublicOnly, port)),
                service.http_redirect_port.map(|port| (Entrance::Redirect, port)),
            ];
            for (entrance, port) in wanted.into_iter().flatten() {
                let address = service.listen_address;
                let known = ports
                    .iter_mut()
                    .find(|known| known.1 == address && known.2 == port && known.0 == entrance);
                match known {
                    Some((.., services)) => services.push(index),
                    None => ports.push((entrance, address, port, vec![index])),
                }
            }
        }
        ports
            .into_iter()
            .map(|(entrance, address, port, services)| {
                let tls = if entrance == Entrance::Tls { Some(self.server_tls(&services)?) } else { None };
                let kind = match (&tls, entrance) {
                    (Some(tls), _) => {
                        let tls = tls.clone();
                        Kind::Tls(Arc::new(move || tls.server_config()))
                    }
                    (None, Entrance::PublicOnly) => Kind::PublicOnly,
                    (None, Entrance::Redirect) => Kind::Redirect,
                    (None, Entrance::BehindProxy | Entrance::Tls) => Kind::PlainBehindProxy,
                };
                let balancers = self.balancers(entrance, &services);
                Ok(Listening {
                    server: server::Listener { address, port, kind, balancers },
                    gate: gate::Listener { entrance, services },
                    tls,
                })
            })
            .collect()
    }

    /// Who sends PROXY headers there. The services of a port agree about it; the checks on the port for those come
    /// without.
    fn balancers(&self, entrance: Entrance, services: &[usize]) -> Option<Arc<[IpNet]>> {
        let service = services.first().and_then(|index| self.config.services.get(*index))?;
        let subnets = service.proxy_protocol_subnets.as_ref()?;
        (entrance != Entrance::PublicOnly).then(|| subnets.as_slice().into())
    }

    fn server_tls(&self, services: &[usize]) -> Result<Arc<ServerTls>, tls::Error> {
        let services = services
            .iter()
            .filter_map(|index| self.config.services.get(*index))
            .filter_map(|service| {
                Some(tls::Service {
                    name: service.name.to_string(),
                    hosts: service.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
                    certificate: service.tls.clone()?,
                })
            })
            .collect();
        ServerTls::new(tls::Config { services }, self.clock.clone()).map(Arc::new)
    }
}
