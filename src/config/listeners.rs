//! The ports of the whole process: no two listeners in each other's way, services on one port told apart by
//! their hosts, and no application port that is one of ours.

use std::net::IpAddr;

use ipnet::IpNet;

use super::application::{is_loopback, spelled_version};
use super::host::Host;
use super::problem::Problem;
use super::raw;
use super::raw_service::{Service as Raw, TlsType};
use super::resolve::Resolver;
use super::service::network;
use super::{Admin, AdminListen};

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// `exposedPort`, with TLS or without. Services share it.
    Exposed { tls: bool },
    /// `httpRedirectPort`. Services share it.
    Redirect,
    /// Everything else belongs to one.
    Own,
}

/// One listener as the file has it.
struct Listener {
    path: String,
    service: Option<usize>,
    /// `None`: all addresses.
    address: Option<IpAddr>,
    port: u16,
    purpose: Purpose,
    /// The load balancers that send PROXY headers there, in order and each once.
    balancers: Option<Vec<IpNet>>,
}

impl Listener {
    /// Whether both would take the same port of the same address.
    fn overlaps(&self, other: &Self) -> bool {
        let any = |address: Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
        self.port == other.port && (any(self.address) || any(other.address) || self.address == other.address)
    }

    /// Whether both may be one socket.
    fn shares_with(&self, other: &Self) -> bool {
        self.purpose != Purpose::Own && self.purpose == other.purpose && self.address == other.address
    }

    /// Whether a connection to this port of loopback ends here.
    fn is_on_loopback(&self) -> bool {
        self.address.is_none_or(|address| address.is_unspecified() || address.is_loopback())
    }
}

impl Resolver<'_> {
    /// Judges all listeners together.
    pub fn listeners(&mut self, file: &raw::File, admin: Option<&Admin>) {
        let listeners = listeners(file, admin);
        for (i, listener) in listeners.iter().enumerate() {
            for earlier in listeners.iter().take(i).filter(|earlier| listener.overlaps(earlier)) {
                if !listener.shares_with(earlier) {
                    self.clash(listener, earlier);
                    break;
                }
                if listener.balancers != earlier.balancers {
                    let other = self.with_place(&earlier.path);
                    self.mistake(&listener.path, Problem::ProxyProtocolUnlike { other });
                    break;
                }
                if let (Some(this), Some(other)) = (listener.service, earlier.service) {
                    self.shared_hosts(file, this, other);
                }
            }
        }
        for (i, service) in file.services.iter().enumerate() {
            self.circle(&format!("services[{i}]"), service, &listeners);
        }
    }

    fn clash(&mut self, listener: &Listener, earlier: &Listener) {
        let other = self.with_place(&earlier.path);
        let exposed = |listener: &Listener| matches!(listener.purpose, Purpose::Exposed { .. });
        let problem = if exposed(listener) && exposed(earlier) {
            Problem::PortSharedUnlike { other }
        } else {
            Problem::PortTaken { other }
        };
        // The admin listener may be there by default only: then the mistake is at what was written.
        let written = if self.has(&listener.path) { listener } else { earlier };
        let problem = match problem {
            Problem::PortTaken { .. } if !self.has(&listener.path) => {
                Problem::PortTaken { other: format!("{} by default", listener.path) }
            }
            other => other,
        };
        self.mistake(&written.path, problem);
    }

    fn with_place(&self, path: &str) -> String {
        let place = self.place(path).map(|place| format!(" at {place}")).unwrap_or_default();
        format!("{path}{place}")
    }

    /// Services on one port are told apart by their hosts, which each service's own check has seen to.
    fn shared_hosts(&mut self, file: &raw::File, this: usize, other: usize) {
        let hosts = |i: usize| file.services.get(i).map(named_hosts).unwrap_or_default();
        let others = hosts(other);
        for (host, path) in hosts(this) {
            if let Some((_, other_path)) = others.iter().find(|(theirs, _)| *theirs == host) {
                let path = format!("services[{this}].{path}");
                if let Some(first) = self.place(&format!("services[{other}].{other_path}")) {
                    self.mistake(&path, Problem::SharedHost { host: self.quoted_host(&path, &host), first });
                }
            }
        }
    }

    /// A host may have come by a variable.
    fn quoted_host(&self, path: &str, host: &Host) -> String {
        match self.origins.get(path).filter(|origin| origin.by_variable) {
            Some(_) => self.shown(path).to_string(),
            None => format!("`{host}`"),
        }
    }

    /// An application port that is one of ours.
    fn circle(&mut self, at: &str, service: &Raw, listeners: &[Listener]) {
        let (path, port) = match (&service.upstream, service.port) {
            (Some(upstream), _) => {
                let Ok(url) = url::Url::parse(&spelled_version(upstream).1) else { return };
                let is_here = url
                    .host_str()
                    .is_some_and(|host| is_loopback(host.trim_start_matches('[').trim_end_matches(']')));
                match url.port_or_known_default().filter(|_| is_here) {
                    Some(port) => (format!("{at}.upstream"), port),
                    None => return,
                }
            }
            (None, Some(port)) => (format!("{at}.port"), port),
            (None, None) => return,
        };
        if let Some(listener) = listeners.iter().find(|l| l.port == port && l.is_on_loopback()) {
            self.mistake(&path, Problem::ForwardsToItself { listener: listener.path.clone() });
        }
    }
}

fn listeners(file: &raw::File, admin: Option<&Admin>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (i, service) in file.services.iter().enumerate() {
        let text = service.listen_address.as_deref().unwrap_or_default();
        let address = text.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let tls = service.tls_type != TlsType::None;
        for (key, port, purpose) in [
            ("exposedPort", service.exposed_port, Purpose::Exposed { tls }),
            ("publicApplicationPort", service.public_application_port, Purpose::Own),
            ("httpRedirectPort", service.http_redirect_port, Purpose::Redirect),
        ] {
            let path = format!("services[{i}].{key}");
            let balancers = if purpose == Purpose::Own { None } else { balancers(service) };
            let service = Some(i);
            listeners.extend(port.map(|port| Listener { path, service, address, port, purpose, balancers }));
        }
    }
    let mut add = |path: &str, socket: std::net::SocketAddr| {
        let (address, port) = (Some(socket.ip()), socket.port());
        listeners.push(Listener {
            path: path.to_owned(),
            service: None,
            address,
            port,
            purpose: Purpose::Own,
            balancers: None,
        });
    };
    if let Some(admin) = admin {
        if let AdminListen::Tcp(socket) = admin.listen {
            add("admin.listen", socket);
        }
        if let Some(socket) = admin.probes {
            add("admin.probes", socket);
        }
    }
    listeners
}

/// What must be the same for all services of a port.
fn balancers(service: &Raw) -> Option<Vec<IpNet>> {
    let mut networks: Vec<IpNet> =
        service.proxy_protocol_subnets.iter().filter_map(|text| network(text)).collect();
    networks.sort_unstable();
    networks.dedup();
    service.proxy_protocol_enabled.then_some(networks)
}

/// The hosts of a service with the key that each comes from.
fn named_hosts(service: &Raw) -> Vec<(Host, String)> {
    let listed = service.hosts.iter().enumerate();
    let listed = listed.filter_map(|(i, text)| Some((Host::parse(text).ok()?, format!("hosts[{i}]"))));
    let hosts: Vec<_> = listed.collect();
    if !hosts.is_empty() {
        return hosts;
    }
    let callback = service.oidc_callback_url.as_deref().and_then(|text| url::Url::parse(text).ok());
    let host = callback.and_then(|url| Host::parse(url.host_str()?).ok());
    host.map(|host| (host, "OIDCCallbackURL".to_owned())).into_iter().collect()
}
