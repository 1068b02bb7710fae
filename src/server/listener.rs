//! The listening sockets: bound once, all or none, and shared by the workers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// Gives the TLS configuration of the moment. Asked at every handshake, so that a reload is seen at once.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// A place to listen at.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `None`: all addresses of both families.
    pub address: Option<IpAddr>,
    /// 0 lets the system choose; see [`Bound::addresses`].
    pub port: u16,
    /// What is spoken there.
    pub kind: Kind,
    /// `Some`: peers of these networks are load balancers, whose every connection begins with a PROXY header.
    /// All others are clients, and a header of theirs is the garbage that it is.
    pub balancers: Option<Arc<[IpNet]>>,
}

/// What is spoken on a listener and who is expected there. The server tells TLS from plain; the rest is for
/// the handler.
#[derive(Clone)]
pub enum Kind {
    /// HTTPS, by ALPN HTTP/2 or HTTP/1.1.
    Tls(TlsSource),
    /// Plain HTTP/1.1 behind a proxy that terminates TLS (`TLSType: None`).
    PlainBehindProxy,
    /// Plain HTTP/1.1 for the checks of load balancers (`publicApplicationPort`).
    PublicOnly,
    /// Plain HTTP/1.1 that only redirects to HTTPS (`httpRedirectPort`).
    Redirect,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tls(_) => "Tls",
            Self::PlainBehindProxy => "PlainBehindProxy",
            Self::PublicOnly => "PublicOnly",
            Self::Redirect => "Redirect",
        })
    }
}

/// Listening sockets, in the order in which they were asked for.
#[derive(Debug)]
pub struct Bound(pub(super) Vec<(TcpListener, Listener)>);

impl Bound {
    /// Where each listener really listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let unspecified = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        self.0.iter().map(|(socket, _)| socket.local_addr().unwrap_or(unspecified)).collect()
    }
}

/// Binds all of `listeners` or none. From here on the system queues connections.
pub fn bind(listeners: Vec<Listener>) -> Result<Bound, BindError> {
    let bind_one = |listener: Listener| {
        let socket = bind_to(listener.address, listener.port).map_err(|cause| BindError {
            address: listener.address,
            port: listener.port,
            cause,
        })?;
        Ok((socket, listener))
    };
    listeners.into_iter().map(bind_one).collect::<Result<_, _>>().map(Bound)
}

fn bind_to(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let Some(address) = address else {
        return match listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
            // A system without IPv6.
            Err(error)
                if error.kind() != io::ErrorKind::AddrInUse
                    && error.kind() != io::ErrorKind::PermissionDenied =>
            {
                listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
            }
            result => result,
        };
    };
    listen(SocketAddr::new(address, port))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // For a restart while old connections linger in TIME_WAIT. A port where another process listens stays
    // an error, which SO_REUSEPORT would hide.
    socket.set_reuse_address(true)?;
    // Accepted connections inherit both, which saves their system calls.
    socket.set_tcp_nodelay(true)?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listener that could not be bound. The blame is the configuration's, or another process's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}port {port}: {}", at(*.address), why(.cause))]
pub struct BindError {
    /// The address, if one was named.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What the system said.
    pub cause: io::Error,
}

impl BindError {
    /// Whether another process listens there.
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }
}

fn at(address: Option<IpAddr>) -> String {
    address.map_or_else(String::new, |address| format!("{address} "))
}

fn why(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another process; stop it or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; use a port over 1023 or grant CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine".to_owned(),
        _ => cause.to_string(),
    }
}

/// Connections that the system may queue for us; it cuts this to its own maximum.
const BACKLOG: i32 = 4096;

/// When a silent connection is probed first.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How often then, until the system gives up on it.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(address: Option<&str>, port: u16) -> Listener {
        Listener {
            address: address.map(|text| text.parse().unwrap()),
            port,
            kind: Kind::PublicOnly,
            balancers: None,
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_that_says_so() {
        let bound = bind(vec![plain(None, 0)]).unwrap();
        let port = bound.addresses()[0].port();
        for address in [None, Some("0.0.0.0"), Some("127.0.0.1")] {
            let error = bind(vec![plain(address, port)]).unwrap_err();
            assert!(error.is_in_use(), "{error}");
            assert!(error.to_string().contains(&format!("port {port}")), "{error}");
            assert!(error.to_string().contains("in use"), "{error}");
        }
        drop(bound);
        bind(vec![plain(None, port)]).unwrap();
    }

    #[test]
    fn an_address_of_nobody_is_named() {
        let error = bind(vec![plain(Some("192.0.2.1"), 0)]).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot listen on 192.0.2.1 port 0: the address is not"),
            "{error}"
        );
    }

    #[test]
    fn without_an_address_both_families_are_served_and_options_are_inherited() {
        let bound = bind(vec![plain(None, 0)]).unwrap();
        let (listener, _) = &bound.0[0];
        listener.set_nonblocking(false).unwrap();
        let port = bound.addresses()[0].port();
        let loopbacks: &[&str] =
            if bound.addresses()[0].is_ipv6() { &["127.0.0.1", "::1"] } else { &["127.0.0.1"] };
        for loopback in loopbacks {
            let _client = std::net::TcpStream::connect((*loopback, port)).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(accepted.nodelay().unwrap());
            assert!(socket2::SockRef::from(&accepted).keepalive().unwrap());
        }
    }
}
