//! The names a certificate can be for: a DNS name or an IP address. Knows nothing of certificates.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::{DnsName, ServerName};

/// A host that a certificate can name (RFC 5280 section 4.2.1.6), in one spelling: lower case, no dot at
/// the end, no brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// A DNS name. Wildcards are not hosts.
    Dns(DnsName<'static>),
    /// An IP address.
    Ip(IpAddr),
}

impl HostName {
    /// Reads a host as the configuration or a Host header has it, without a port.
    pub fn parse(host: &str) -> Result<Self, HostError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(HostName::Ip(address));
        }
        if host.contains('*') {
            return Err(HostError::Wildcard);
        }
        if !host.is_ascii() {
            return Err(HostError::NotAscii);
        }
        if host.contains(':') {
            return Err(HostError::Port);
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        DnsName::try_from(name).map(HostName::Dns).map_err(|_| HostError::Malformed)
    }

    /// The name as a TLS client asks for it.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        match self {
            HostName::Dns(name) => ServerName::DnsName(name.clone()),
            HostName::Ip(address) => ServerName::IpAddress((*address).into()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::Dns(name) => f.write_str(name.as_ref()),
            HostName::Ip(address) => address.fmt(f),
        }
    }
}

/// Why a text is not a host. The blame is the configuration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `*.example.com`.
    #[error("wildcards are not supported here; list each host")]
    Wildcard,
    /// An internationalised name in its Unicode form.
    #[error("write an internationalised name in its ASCII form (xn--...)")]
    NotAscii,
    /// `app.example.com:8443`, or an IPv6 address that is none.
    #[error("write the host without a port")]
    Port,
    /// Anything else.
    #[error("this is neither a DNS name nor an IP address")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (written, read) in [
            ("app.example.com", "app.example.com"),
            ("App.Example.COM.", "app.example.com"),
            ("localhost", "localhost"),
            ("my_app.internal", "my_app.internal"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[2001:DB8::1]", "2001:db8::1"),
        ] {
            assert_eq!(HostName::parse(written).map(|host| host.to_string()).as_deref(), Ok(read));
        }
        assert!(matches!(HostName::parse("[::1]"), Ok(HostName::Ip(_))));
    }

    #[test]
    fn what_is_no_host_says_why() {
        for (written, error) in [
            ("*.example.com", HostError::Wildcard),
            ("bücher.example", HostError::NotAscii),
            ("app.example.com:8443", HostError::Port),
            ("", HostError::Malformed),
            (".", HostError::Malformed),
            ("a..b", HostError::Malformed),
            ("app example", HostError::Malformed),
            ("https//app", HostError::Malformed),
        ] {
            assert_eq!(HostName::parse(written), Err(error), "{written:?}");
        }
    }
}
