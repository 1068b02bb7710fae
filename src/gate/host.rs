//! Which service a request is for: by listener, Host and SNI (RFC 9110 section 7.4: another one is 421).

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::rc::Rc;

use http::header::HOST;
use http::{HeaderMap, Uri};

/// The authority of a request as the client sent it, and the host in it as hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestHost {
    /// As sent: what the application gets as Host.
    pub(super) authority: String,
    /// Lower case, without port and one trailing dot.
    pub(super) name: String,
    /// The port in it.
    pub(super) port: Option<u16>,
}

impl RequestHost {
    /// Reads `:authority` or Host. Several Hosts, none, one with user information, or two that differ say
    /// nothing that could be relied on (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let mut hosts = headers.get_all(HOST).iter();
        let header = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host.to_str().ok()?),
            (None, _) => None,
            (Some(_), Some(_)) => return None,
        };
        let authority = match (uri.authority(), header) {
            (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => return None,
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host,
            (None, None) => return None,
        };
        let (name, port) = parts_of(authority)?;
        Some(Self { authority: authority.to_owned(), name, port })
    }

    /// The host that stands in for one that was not sent.
    pub(super) fn named(host: &str) -> Self {
        Self { authority: host.to_owned(), name: host.to_owned(), port: None }
    }
}

/// The authority of a request that names exactly one, as nearly all do: to recognise it by.
pub(super) fn sole_authority<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r [u8]> {
    let mut hosts = headers.get_all(HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => Some(authority.as_str().as_bytes()),
        (None, Some(host), None) => Some(host.as_bytes()),
        _ => None,
    }
}

/// A host as hosts are compared: lower case, without port, one trailing dot dropped. `None` for what is no
/// host at all.
pub(super) fn normal_host(authority: &str) -> Option<String> {
    parts_of(authority).map(|(name, _)| name)
}

fn parts_of(authority: &str) -> Option<(String, Option<u16>)> {
    let parsed: http::uri::Authority = authority.parse().ok()?;
    let port = parsed.port_u16();
    if authority.contains('@') || (authority.contains(':') && port.is_none() && !authority.ends_with(']')) {
        return None;
    }
    let host = parsed.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    let name = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // One address has many spellings.
        Some(inside) => format!("[{}]", inside.parse::<Ipv6Addr>().ok()?),
        // The parser of the authority takes brackets and colons in the midst of a name.
        None => {
            let clean = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            (clean && !host.is_empty()).then(|| host.to_ascii_lowercase())?
        }
    };
    Some((name, port))
}

/// The services of one listener by host. A tree: most listeners have one host or a few, and comparing is cheaper than
/// hashing in a way that nobody outside can foresee.
#[derive(Debug)]
pub(super) struct HostTable<S>(BTreeMap<String, Rc<S>>);

impl<S> HostTable<S> {
    /// Builds the table from pairs of (normal) host and service.
    pub(super) fn new(pairs: impl IntoIterator<Item = (String, Rc<S>)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The service of a host.
    pub(super) fn get(&self, host: &str) -> Option<&Rc<S>> {
        self.0.get(host)
    }

    /// The one service of the listener, if there is only one.
    pub(super) fn only(&self) -> Option<&Rc<S>> {
        let mut services = self.0.values();
        let first = services.next()?;
        services.all(|other| Rc::ptr_eq(first, other)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// AZ-11, TLS-02: one host or none.
    #[test]
    fn the_host_is_read_once_and_strictly() {
        for (uri, hosts, expected) in [
            ("/", &["App.Example"][..], Some("app.example")),
            ("/", &["app.example:8443"], Some("app.example")),
            ("/", &["app.example."], Some("app.example")),
            ("/", &["app.example.:443"], Some("app.example")),
            ("/", &["app.example.."], Some("app.example.")),
            ("/", &["[::1]:8443"], Some("[::1]")),
            ("/", &["[0:0:0:0:0:0:0:1]"], Some("[::1]")),
            ("/", &["[2001:DB8::00:1]:1"], Some("[2001:db8::1]")),
            ("/", &[], None),
            ("/", &[""], None),
            ("/", &["a", "b"], None),
            ("/", &["a", "a"], None),
            ("/", &["user@app.example"], None),
            ("/", &["app.example:"], None),
            ("/", &["app.example:x"], None),
            ("/", &["app.example/evil"], None),
            ("/", &["app%2eexample"], None),
            ("/", &["eef[th080::1%25eth0]"], None),
            ("/", &["[app.example]"], None),
            ("https://app.example/", &[], Some("app.example")),
            ("https://app.example/", &["app.example"], Some("app.example")),
            ("https://app.example/", &["other.example"], None),
        ] {
            let headers = hosts.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap())).collect();
            let found = RequestHost::of(&uri.parse().unwrap(), &headers).map(|host| host.name);
            assert_eq!(found.as_deref(), expected, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn a_table_knows_when_it_has_one_service() {
        let (one, two) = (Rc::new(1), Rc::new(2));
        let same = HostTable::new([("a".to_owned(), one.clone()), ("b".to_owned(), one.clone())]);
        assert_eq!(same.only(), Some(&one));
        assert_eq!(same.get("c"), None);
        let mixed = HostTable::new([("a".to_owned(), one), ("b".to_owned(), two)]);
        assert_eq!(mixed.only(), None);
    }
}
