//! What a certificate says: its names and dates, for `check`, the log and the decision to keep it.
//! Believes nothing: who signed it is not looked at.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::host::HostName;
use crate::clock::UnixTime;

/// A certificate whose end is nearer than this is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Facts of one server certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject, as text.
    pub subject: String,
    /// Who issued it, as text.
    pub issuer: String,
    /// Valid from here.
    pub not_before: UnixTime,
    /// Valid to here, this second included.
    pub not_after: UnixTime,
    /// DNS names that it is for, lower case, possibly with a leading `*.` label.
    pub dns_names: Vec<String>,
    /// IP addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// It has an extended key usage, and serving TLS is not in it.
    not_for_servers: bool,
}

impl Facts {
    /// Reads a certificate in DER. `None` if it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut facts = Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: seconds(certificate.validity().not_before),
            not_after: seconds(certificate.validity().not_after),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_for_servers: certificate
                .extended_key_usage()
                .ok()?
                .is_some_and(|usage| !(usage.value.server_auth || usage.value.any)),
        };
        if let Some(names) = certificate.subject_alternative_name().ok()? {
            names.value.general_names.iter().for_each(|name| facts.add(name));
        }
        Some(facts)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(octets) => self.addresses.extend(address(octets)),
            _ => {}
        }
    }

    /// Whether a client that asks for `host` finds it in this certificate. Only the subject alternative
    /// names count, never the common name (RFC 9525 section 6.3), and `*` stands for one whole label.
    pub fn covers(&self, host: &HostName) -> bool {
        match host {
            HostName::Ip(address) => self.addresses.contains(address),
            HostName::Dns(name) => {
                let parent = name.as_ref().split_once('.').map(|(_, parent)| parent);
                self.dns_names.iter().any(|pattern| match pattern.strip_prefix("*.") {
                    Some(rest) => parent == Some(rest),
                    None => pattern == name.as_ref(),
                })
            }
        }
    }

    /// Whether `now` is within its dates.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Everything that will make clients refuse this certificate for one of `hosts`, now or soon.
    pub fn doubts(&self, hosts: &[HostName], now: UnixTime) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        if now < self.not_before {
            doubts.push(Doubt::NotYetValid(self.not_before));
        } else if now > self.not_after {
            doubts.push(Doubt::Expired(self.not_after));
        } else if now.plus(EXPIRES_SOON) > self.not_after {
            doubts.push(Doubt::ExpiresSoon(self.not_after));
        }
        let missing = hosts.iter().filter(|host| !self.covers(host));
        doubts.extend(missing.map(|host| Doubt::HostMissing(host.to_string())));
        if self.not_for_servers {
            doubts.push(Doubt::NotForServers);
        }
        doubts
    }
}

/// A reason why clients may refuse a certificate. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Its dates begin in the future.
    #[error("it is valid only from {} on; is this machine's clock right?", Date(*.0))]
    NotYetValid(UnixTime),
    /// Its dates are over.
    #[error("it expired on {}; put a new one in place", Date(*.0))]
    Expired(UnixTime),
    /// Its dates are over within [`EXPIRES_SOON`].
    #[error("it expires on {}; put a new one in place before", Date(*.0))]
    ExpiresSoon(UnixTime),
    /// It does not name a host of the service.
    #[error("it is not for {0}; get one that has this host among its subject alternative names")]
    HostMissing(String),
    /// Its extended key usage leaves TLS servers out.
    #[error("its extended key usage does not allow TLS servers; get one with serverAuth")]
    NotForServers,
}

/// A time, shown as `2026-11-21T12:00:00Z`.
pub(super) struct Date(pub(super) UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            i64::try_from(self.0.0).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
        match time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "the second {}", self.0.0),
        }
    }
}

/// Dates before 1970 are the epoch here: nothing is decided between them.
fn seconds(time: ASN1Time) -> UnixTime {
    UnixTime(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    const DAY: u64 = 24 * 60 * 60;
    const START: UnixTime = UnixTime(1_700_000_000);

    fn facts(names: &[&str], usage: &[ExtendedKeyUsagePurpose]) -> Facts {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(START.0 as i64).unwrap();
        params.not_after = params.not_before + time::Duration::days(90);
        params.extended_key_usages = usage.to_vec();
        let key = KeyPair::generate().unwrap();
        Facts::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn names_cover_hosts_as_clients_see_it() {
        let facts = facts(&["App.example.com", "*.example.org", "192.0.2.7", "2001:db8::7"], &[]);
        for (host, covered) in [
            ("app.example.com", true),
            ("APP.EXAMPLE.COM.", true),
            ("www.app.example.com", false),
            ("example.com", false),
            ("a.example.org", true),
            ("a.b.example.org", false),
            ("example.org", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:0::7", true),
        ] {
            assert_eq!(facts.covers(&HostName::parse(host).unwrap()), covered, "{host}");
        }
    }

    #[test]
    fn doubts_are_told() {
        let fine = facts(&["a.test"], &[ExtendedKeyUsagePurpose::ServerAuth]);
        let [a, b] = ["a.test", "b.test"].map(|host| HostName::parse(host).unwrap());
        let end = UnixTime(START.0 + 90 * DAY);
        for (now, doubts) in [
            (START.0, vec![]),
            (START.0 - 1, vec![Doubt::NotYetValid(START)]),
            (end.0 - 14 * DAY, vec![]),
            (end.0 - 14 * DAY + 1, vec![Doubt::ExpiresSoon(end)]),
            (end.0, vec![Doubt::ExpiresSoon(end)]),
            (end.0 + 1, vec![Doubt::Expired(end)]),
        ] {
            assert_eq!(fine.doubts(std::slice::from_ref(&a), UnixTime(now)), doubts);
        }
        assert_eq!(fine.doubts(&[a.clone(), b], START), [Doubt::HostMissing("b.test".into())]);
        let client = facts(&["a.test"], &[ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(client.doubts(&[a], START), [Doubt::NotForServers]);
        assert!(Doubt::Expired(UnixTime(0)).to_string().contains("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_has_no_facts() {
        assert_eq!(Facts::read(b""), None);
        assert_eq!(Facts::read(b"\x30\x03\x02\x01\x01"), None);
    }
}
