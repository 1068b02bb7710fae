//! A host name as services are told apart by: no case, no port, no trailing dot.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host in its one normal form: lower case, international names in their ASCII form, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// Most bytes of a host name (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `https://app.example.com`.
    #[error("is a URL; write only its host")]
    Url,
    /// `app.example.com:8443`.
    #[error("has a port; write the host without it")]
    Port,
    /// `*.example.com`.
    #[error("has a wildcard; write every host by its name")]
    Wildcard,
    /// Anything else.
    #[error("is not a host name or an IP address")]
    Malformed,
}

impl Host {
    /// Reads a host as the configuration has it.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(Self(format!("[{address}]")));
        }
        if text.contains("//") || text.contains('/') {
            return Err(HostError::Url);
        }
        if text.contains('*') {
            return Err(HostError::Wildcard);
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            return Err(if is_port && !host.is_empty() { HostError::Port } else { HostError::Malformed });
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') || !c.is_ascii();
        if name.is_empty() || !name.chars().all(plain) {
            return Err(HostError::Malformed);
        }
        let host = url::Host::parse(name).map_err(|_| HostError::Malformed)?.to_string();
        // An odd spelling of an address, such as `127.1`, would be shown to nobody and match nothing.
        let is_address = host.parse::<IpAddr>().is_ok();
        let well_formed =
            host.len() <= MAX_HOST_BYTES && host.split('.').all(|l| !l.is_empty() && l.len() <= 63);
        if !well_formed || (is_address && host != name) {
            return Err(HostError::Malformed);
        }
        Ok(Self(host))
    }

    /// The host, IPv6 in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host as certificates name it, IPv6 without brackets.
    pub fn name(&self) -> &str {
        self.0.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.0)
    }

    /// Whether an authority, as a request sends it (`Host` or `:authority`), names this host. Case and port
    /// don't count, and one trailing dot is dropped. Doesn't allocate.
    pub fn matches(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.eq_ignore_ascii_case(&self.0) {
            return true;
        }
        // `[0:0::1]` and `[::1]` are one address.
        let address = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        address(&self.0).is_some_and(|own| address(host) == Some(own))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, host) in [
            ("app.example.com", "app.example.com"),
            ("App.Example.COM.", "app.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
            ("my_app", "my_app"),
        ] {
            assert_eq!(Host::parse(text).unwrap().as_str(), host);
        }
    }

    #[test]
    fn what_is_not_a_host() {
        for (text, error) in [
            ("", HostError::Malformed),
            (".", HostError::Malformed),
            ("a..b", HostError::Malformed),
            ("a b", HostError::Malformed),
            ("a%62c", HostError::Malformed),
            ("127.1", HostError::Malformed),
            ("0x7f000001", HostError::Malformed),
            ("user@host", HostError::Malformed),
            ("host:", HostError::Malformed),
            ("app.example.com:8443", HostError::Port),
            ("[::1]:8443", HostError::Port),
            ("https://app.example.com", HostError::Url),
            ("app.example.com/", HostError::Url),
            ("*.example.com", HostError::Wildcard),
        ] {
            assert_eq!(Host::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn matching() {
        let app = Host::parse("app.example.com").unwrap();
        for (authority, matches) in [
            ("app.example.com", true),
            ("APP.example.com:8443", true),
            ("app.example.com.", true),
            ("app.example.com.:443", true),
            ("app.example.com..", false),
            ("example.com", false),
            ("xapp.example.com", false),
            ("app.example.com@evil.example", false),
            ("", false),
        ] {
            assert_eq!(app.matches(authority), matches, "{authority}");
        }
        let loopback = Host::parse("::1").unwrap();
        assert!(loopback.matches("[::1]:443") && loopback.matches("[0:0::1]") && !loopback.matches("::1"));
    }
}
