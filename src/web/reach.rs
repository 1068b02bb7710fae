//! Which addresses the client for the identity provider may connect to.
//!
//! A discovery document names other endpoints. Were they followed blindly, whoever writes that document
//! could make us call the machine's own services or a cloud's metadata address. So: HTTPS everywhere,
//! except that an issuer on this machine may speak plain HTTP to this machine; and an endpoint on a
//! loopback or link-local address only where the issuer itself is there. Names are judged by the addresses
//! that they resolve to at the moment of the connection, so that an answer that changes is no way around.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Most addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 8;

/// The rule for one issuer.
#[derive(Debug, Clone)]
pub struct Reach {
    home: Host<String>,
    home_port: u16,
    plain: bool,
}

/// Why an address is not connected to. The blame is the configuration's or the discovery document's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPermitted {
    /// Not an `https` URL, and not an `http` URL of an issuer that is `http` itself.
    #[error("{0} is not used: only https is (plain http only for an issuer on this machine)")]
    Scheme(String),
    /// The URL has no host, or carries a user name or password.
    #[error("{0} is not used: it has no plain host name")]
    Host(String),
    /// Plain HTTP to an address of another machine.
    #[error("plain http to {0} is refused: only an issuer on this machine may use it; use https")]
    PlainAway(String),
    /// An address that is only reachable from this machine or link, while the issuer is elsewhere.
    #[error(
        "{0} is an address of this machine or link (loopback or link-local) while the issuer is not: refused"
    )]
    Local(String),
}

/// Why a name has no address that may be used.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The resolver failed or knows no address.
    #[error("cannot resolve the name {host}: {cause}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: std::io::Error,
    },
    /// It has addresses, and none may be used.
    #[error(transparent)]
    NotPermitted(#[from] NotPermitted),
}

impl Reach {
    /// The rule for the issuer at `home`.
    pub fn new(home: &Url) -> Result<Self, NotPermitted> {
        let plain = match home.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(NotPermitted::Scheme(shown(home))),
        };
        let host = plain_host(home)?;
        if plain && literal(&host).is_some_and(|address| !is_this_machine(address)) {
            return Err(NotPermitted::PlainAway(host.to_string()));
        }
        Ok(Self { home: host, home_port: home.port_or_known_default().unwrap_or(443), plain })
    }

    /// Judges `url` as far as that is possible without resolving its name.
    pub async fn admit(&self, url: &Url) -> Result<(), NotPermitted> {
        let host = self.admit_scheme(url)?;
        match literal(&host) {
            Some(address) => self.admit_address(url, &host, address).await,
            None => Ok(()),
        }
    }

    /// The addresses of `url` that may be connected to: at least one, at most [`MAX_ADDRESSES`].
    pub async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, Unresolved> {
        let host = self.admit_scheme(url)?;
        let port = url.port_or_known_default().unwrap_or(443);
        let mut permitted = Vec::new();
        let mut refused = None;
        for address in resolve(&host, port).await? {
            match self.admit_address(url, &host, address.ip()).await {
                Ok(()) => permitted.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if permitted.is_empty() => Err(why.into()),
            _ => Ok(permitted),
        }
    }

    fn admit_scheme(&self, url: &Url) -> Result<Host<String>, NotPermitted> {
        match url.scheme() {
            "https" => {}
            "http" if self.plain => {}
            _ => return Err(NotPermitted::Scheme(shown(url))),
        }
        plain_host(url)
    }

    async fn admit_address(
        &self,
        url: &Url,
        host: &Host<String>,
        address: IpAddr,
    ) -> Result<(), NotPermitted> {
        if url.scheme() == "http" {
            return match is_this_machine(address) {
                true => Ok(()),
                false => Err(NotPermitted::PlainAway(host.to_string())),
            };
        }
        // The operator chose the issuer's own host; everything else was chosen by the document.
        if *host == self.home || !is_local(address) || self.home_is_local().await {
            return Ok(());
        }
        Err(NotPermitted::Local(host.to_string()))
    }

    async fn home_is_local(&self) -> bool {
        match resolve(&self.home, self.home_port).await {
            Ok(addresses) => addresses.iter().any(|address| is_local(address.ip())),
            Err(_) => false,
        }
    }
}

/// Whether `host` names this machine by what it says: a loopback literal, `localhost`, or a name under it
/// (RFC 6761 section 6.3).
pub fn names_this_machine(host: &Host<String>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(address) => is_this_machine(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_this_machine(IpAddr::V6(*address)),
    }
}

/// The origin and path of `url`: never its query, which may carry what a log must not.
pub fn shown(url: &Url) -> String {
    const MAX_SHOWN: usize = 200;
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().chars().take(MAX_SHOWN).collect()
}

fn plain_host(url: &Url) -> Result<Host<String>, NotPermitted> {
    match url.host() {
        Some(host) if url.username().is_empty() && url.password().is_none() => Ok(host.to_owned()),
        _ => Err(NotPermitted::Host(shown(url))),
    }
}

fn literal(host: &Host<String>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

async fn resolve(host: &Host<String>, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    let name = match host {
        Host::Ipv4(address) => return Ok(vec![SocketAddr::new(IpAddr::V4(*address), port)]),
        Host::Ipv6(address) => return Ok(vec![SocketAddr::new(IpAddr::V6(*address), port)]),
        // RFC 6761 section 6.3: never asked of a server. glibc does not know names under localhost.
        Host::Domain(name) if is_localhost(name) => {
            return Ok(vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
                SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port),
            ]);
        }
        Host::Domain(name) => name.as_str(),
    };
    let failed = |cause| Unresolved::Lookup { host: name.to_owned(), cause };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((name, port)).await.map_err(failed)?.take(MAX_ADDRESSES).collect();
    match addresses.is_empty() {
        true => Err(failed(std::io::Error::other("it has no address"))),
        false => Ok(addresses),
    }
}

/// Loopback, or unspecified, which the kernel takes for loopback.
fn is_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// Not routed beyond this machine or link. Private ranges are not here: an identity provider on the inside
/// of a company's network is the common case.
fn is_local(address: IpAddr) -> bool {
    if is_this_machine(address) || address.is_multicast() {
        return true;
    }
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets().starts_with(&[0])
        }
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[tokio::test]
    async fn rp_32_endpoints_are_judged_by_scheme_and_address() {
        let public = "https://203.0.113.7/tenant";
        let loopback = "http://127.0.0.1:9000";
        let rows = [
            // issuer, endpoint, admitted
            (public, "https://203.0.113.7/token", true),
            (public, "https://198.51.100.1/token", true),
            (public, "https://10.0.0.8/token", true),
            (public, "http://203.0.113.7/token", false),
            (public, "http://127.0.0.1/token", false),
            (public, "file:///etc/passwd", false),
            (public, "javascript:alert(1)", false),
            (public, "ftp://203.0.113.7/", false),
            (public, "https://user:pw@203.0.113.7/", false),
            (public, "https://169.254.169.254/latest", false),
            (public, "https://127.0.0.1/token", false),
            (public, "https://0x7f000001/token", false),
            (public, "https://2130706433/token", false),
            (public, "https://127.1/token", false),
            (public, "https://0.0.0.0/token", false),
            (public, "https://[::1]/token", false),
            (public, "https://[::]/token", false),
            (public, "https://[::ffff:127.0.0.1]/token", false),
            (public, "https://[fe80::1]/token", false),
            (public, "https://[ff02::1]/token", false),
            (loopback, "http://127.0.0.1:9000/token", true),
            (loopback, "http://[::1]:9000/token", true),
            (loopback, "http://203.0.113.7/token", false),
            (loopback, "https://127.0.0.1/token", true),
            ("http://localhost:9000", "https://[::1]/token", true),
        ];
        for (issuer, endpoint, admitted) in rows {
            let reach = Reach::new(&url(issuer)).unwrap();
            assert_eq!(reach.admit(&url(endpoint)).await.is_ok(), admitted, "{issuer} -> {endpoint}");
        }
    }

    #[tokio::test]
    async fn rp_32_names_are_judged_by_what_they_resolve_to() {
        let public = Reach::new(&url("https://203.0.113.7")).unwrap();
        for name in ["https://localhost/x", "https://a.localhost/x", "https://localhost./x"] {
            assert!(matches!(
                public.addresses(&url(name)).await,
                Err(Unresolved::NotPermitted(NotPermitted::Local(_)))
            ));
        }
        let local = Reach::new(&url("http://idp.localhost:9000")).unwrap();
        let addresses = local.addresses(&url("http://idp.localhost:9000/jwks")).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 9000));
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for (issuer, good) in [
            ("http://127.0.0.1", true),
            ("http://[::1]:8080/realm", true),
            ("http://localhost:9000", true),
            ("https://idp.example", true),
            ("http://203.0.113.7", false),
            ("http://10.0.0.1", false),
            ("ftp://127.0.0.1", false),
            ("https://user@idp.example", false),
        ] {
            assert_eq!(Reach::new(&url(issuer)).is_ok(), good, "{issuer}");
        }
    }

    #[test]
    fn a_shown_url_has_no_query() {
        assert_eq!(shown(&url("https://u:p@a.example/x?code=secret#y")), "https://a.example/x");
    }
}
