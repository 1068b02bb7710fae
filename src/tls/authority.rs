//! Our own certification authority: made once for one service, able to sign for that service's hosts and
//! nothing else. Knows nothing of where it is kept.
//!
//! It is a CA that people are asked to trust, so it is made to be worth little to a thief: name
//! constraints (RFC 5280 section 4.2.1.10, critical) permit the service's hosts only, path length 0 rules
//! out a CA below it, and its extended key usage leaves nothing but TLS servers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CidrSubnet, CrlDistributionPoint,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::facts::Facts;
use super::host::HostName;
use super::pair::Pair;
use crate::clock::UnixTime;
use crate::secret::Secret;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA lives. Whoever trusts it has to be asked again when it ends.
const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3650);
/// How long a leaf lives.
pub(super) const LEAF_LIFETIME: Duration = DAY.saturating_mul(90);
/// Age at which a leaf is replaced: two thirds of its life.
pub(super) const LEAF_RENEWAL: Duration = DAY.saturating_mul(60);
/// How far back validity begins, for clients whose clock is behind ours.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// The organization in the subject of every CA of ours, by which it is known again.
const ORGANIZATION: &str = "Portcullis";

/// A CA with its key.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    name: String,
    facts: Facts,
}

/// A leaf that was signed just now, with the texts to be kept.
pub(super) struct Issued {
    pub(super) pair: Pair,
    pub(super) certificate_pem: String,
    pub(super) key_pem: Secret<String>,
}

impl Authority {
    /// Makes a new CA with a new key for `hosts`.
    pub(super) fn make(service: &str, hosts: &[HostName], now: UnixTime) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The key's number makes every CA's name new: two CAs of one name, an old and a new one, confuse
        // clients that were told to trust both.
        let number: String = params.key_identifier(&key).iter().take(4).map(|b| format!("{b:02x}")).collect();
        let name = format!("Portcullis CA {} {number}", plain(service));
        (params.not_before, params.not_after) = validity(now, AUTHORITY_LIFETIME)?;
        params.distinguished_name = distinguished_name(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(constraints(hosts));
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let certificate = certificate.der().clone();
        let facts = Facts::read(&certificate).ok_or(IssueError::Refused)?;
        Ok(Self { certificate, pem, issuer: Issuer::new(params, key), name, facts })
    }

    /// Takes a CA up again from its certificate and key in PEM.
    pub(super) fn load(pem: &str, key: &str) -> Result<Self, LoadError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(|_| LoadError::Damaged("ca.pem"))?;
        let key = KeyPair::from_pem(key).map_err(|_| LoadError::Damaged("ca.key"))?;
        let facts = Facts::read(&certificate).ok_or(LoadError::Damaged("ca.pem"))?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| LoadError::Damaged("ca.pem"))?;
        let name = own_name(&parsed).ok_or(LoadError::NotOurs)?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(LoadError::Mismatch);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = format!("{}\n", pem.trim_end());
        Ok(Self { certificate, pem, issuer: Issuer::new(params, key), name, facts })
    }

    /// Whether a leaf that is made now ends before the CA does.
    pub(super) fn outlives_a_leaf(&self, now: UnixTime) -> bool {
        self.facts.is_valid_at(now) && self.facts.is_valid_at(now.plus(LEAF_LIFETIME))
    }

    /// Signs a leaf with a new key for `hosts`, which must be among those that the CA permits.
    pub(super) fn issue(&self, hosts: &[HostName], now: UnixTime) -> Result<Issued, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(now, LEAF_LIFETIME)?;
        // Not a host: clients that still look at the common name would measure it by the constraints.
        params.distinguished_name = distinguished_name("Portcullis leaf");
        params.subject_alt_names = hosts.iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Auditors want every leaf to say which list of revoked certificates it is subject to. Ours is kept
        // beside the CA and handed over with it, so this is a name and no address: there is nothing to fetch,
        // and no client waits for a server that does not answer.
        let list = format!("urn:{}", self.name.replace(' ', ":"));
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![list] }];
        let leaf = params.signed_by(&key, &self.issuer)?;
        self.verify(leaf.der(), hosts, now)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let pair = Pair::from_der(vec![leaf.der().clone()], der).map_err(|_| IssueError::Refused)?;
        Ok(Issued { pair, certificate_pem: leaf.pem(), key_pem: Secret::new(key.serialize_pem()) })
    }

    /// Judges a leaf as a client that trusts this CA does: signature, dates, constraints, and each host.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        hosts: &[HostName],
        now: UnixTime,
    ) -> Result<(), IssueError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(IssueError::Verification)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|_| IssueError::Refused)?;
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        for host in hosts {
            let verified = verifier.verify_server_cert(leaf, &[], &host.server_name(), &[], now);
            verified.map_err(IssueError::Verification)?;
        }
        Ok(())
    }

    /// The list of revoked certificates in PEM: empty, and good for as long as the CA, for clients that
    /// insist on having one. A stolen leaf key is answered with a new CA.
    pub(super) fn revocation_list(&self) -> Result<String, IssueError> {
        let list = CertificateRevocationListParams {
            this_update: offset(self.facts.not_before)?,
            next_update: offset(self.facts.not_after)?,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// The certificate in PEM: what people trust.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The key in PEM (PKCS #8).
    pub(super) fn key_pem(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }
}

/// Why nothing could be issued. Only [`IssueError::Verification`] has a cause outside this program: the
/// CA does not permit a host.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate could not be put together.
    #[error("cannot make a certificate: {0}")]
    Generation(#[from] rcgen::Error),
    /// A client that trusts the CA would not accept the leaf.
    #[error("the certificate would not be accepted: {0}")]
    Verification(rustls::Error),
    /// What was made could not be read back.
    #[error("the certificate that was made is not usable")]
    Refused,
    /// The clock shows a time that certificates can't express.
    #[error("the clock shows a time that certificates cannot express; set this machine's clock")]
    Clock,
}

/// Why a kept CA can't be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadError {
    /// This file is not what it should be.
    Damaged(&'static str),
    /// The key is not that of the certificate.
    Mismatch,
    /// A good CA, but not one that this program makes.
    NotOurs,
}

/// The subject that our CAs have, if the certificate is a CA as [`Authority::make`] makes them.
fn own_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let subject = certificate.subject();
    let constraints = certificate.basic_constraints().ok()??.value;
    let ours = constraints.ca
        && constraints.path_len_constraint == Some(0)
        && certificate.name_constraints().ok()?.is_some_and(|constraints| constraints.critical)
        && subject.as_raw() == certificate.issuer().as_raw()
        && subject.iter_attributes().count() == 2
        && subject.iter_organization().next()?.as_str().ok()? == ORGANIZATION;
    ours.then(|| subject.iter_common_name().next()?.as_str().ok().map(ToOwned::to_owned))?
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// A service's name as part of a subject, whose common name has at most 64 characters.
fn plain(service: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    service.chars().take(40).map(keep).collect()
}

fn alternative_name(host: &HostName) -> Result<SanType, IssueError> {
    Ok(match host {
        HostName::Dns(name) => SanType::DnsName(name.as_ref().try_into()?),
        HostName::Ip(address) => SanType::IpAddress(*address),
    })
}

/// Permits `hosts`. A kind of name with no constraint at all would be permitted altogether, so the kind
/// that `hosts` lack is excluded whole.
fn constraints(hosts: &[HostName]) -> NameConstraints {
    let permitted_subtrees: Vec<_> = hosts.iter().map(subtree).collect();
    let mut excluded_subtrees = Vec::new();
    if !permitted_subtrees.iter().any(|tree| matches!(tree, GeneralSubtree::DnsName(_))) {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    if !permitted_subtrees.iter().any(|tree| matches!(tree, GeneralSubtree::IpAddress(_))) {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    NameConstraints { permitted_subtrees, excluded_subtrees }
}

fn subtree(host: &HostName) -> GeneralSubtree {
    match host {
        HostName::Dns(name) => GeneralSubtree::DnsName(name.as_ref().to_owned()),
        HostName::Ip(IpAddr::V4(address)) => {
            GeneralSubtree::IpAddress(CidrSubnet::V4(address.octets(), [255; 4]))
        }
        HostName::Ip(IpAddr::V6(address)) => {
            GeneralSubtree::IpAddress(CidrSubnet::V6(address.octets(), [255; 16]))
        }
    }
}

/// `lifetime` from a little before `now`; RFC 5280 section 4.1.2.5 counts the last second in.
fn validity(
    now: UnixTime,
    lifetime: Duration,
) -> Result<(time::OffsetDateTime, time::OffsetDateTime), IssueError> {
    let start = now.minus(BACKDATED);
    Ok((offset(start)?, offset(start.plus(lifetime))?))
}

fn offset(time: UnixTime) -> Result<time::OffsetDateTime, IssueError> {
    let seconds = i64::try_from(time.0).map_err(|_| IssueError::Clock)?;
    time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Clock)
}
