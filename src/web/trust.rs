//! Which certificates of an identity provider are trusted, and what is wrong with those that are not.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The certificate authorities that vouch for a server.
#[derive(Debug)]
pub struct Trust {
    authorities: Authorities,
    config: OnceLock<Result<Arc<ClientConfig>, TlsProblem>>,
}

#[derive(Debug)]
enum Authorities {
    System,
    Only(RootCertStore),
}

/// Why a [`Trust`] could not be made. The blame is the configuration's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The text holds no certificate.
    #[error("no certificate in it: expected PEM text with at least one BEGIN CERTIFICATE block")]
    NoCertificate,
    /// A block that can't be read.
    #[error("certificate {number} of it is not readable PEM or not a certificate")]
    Unreadable {
        /// Which block, from 1.
        number: usize,
    },
    /// More certificates than [`MAX_CERTIFICATES`].
    #[error("more than {MAX_CERTIFICATES} certificates in it")]
    TooMany,
}

/// What is wrong with a TLS connection, for the person who must repair it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The chain ends in an authority that is not trusted.
    #[error("its certificate is signed by an authority that is not trusted here")]
    UnknownAuthority,
    /// There is nothing to check the chain against.
    #[error("this system has no CA certificates (install the package ca-certificates)")]
    NoAuthorities,
    /// The certificate names other hosts.
    #[error("its certificate is for another name")]
    WrongName,
    /// The certificate's time is over.
    #[error("its certificate has expired (or this machine's clock is wrong)")]
    Expired,
    /// The certificate's time has not come.
    #[error("its certificate is not valid yet (or this machine's clock is wrong)")]
    NotYetValid,
    /// A CA certificate presented as the server's own.
    #[error("it presents a CA certificate as its own: give it a server certificate signed by that CA")]
    AuthorityAsServer,
    /// Anything else, in the words of the TLS library.
    #[error("{0}")]
    Other(String),
}

/// Most certificates that one CA bundle may have.
pub const MAX_CERTIFICATES: usize = 1000;

impl Trust {
    /// The authorities that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), read when
    /// they are first needed. A system without any fails connections with [`TlsProblem::NoAuthorities`].
    pub fn system() -> Self {
        Self { authorities: Authorities::System, config: OnceLock::new() }
    }

    /// Only the authorities in `pem`.
    pub fn only(pem: &str) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let unreadable = TrustError::Unreadable { number: index + 1 };
            if index >= MAX_CERTIFICATES {
                return Err(TrustError::TooMany);
            }
            let certificate = certificate.map_err(|_| unreadable.clone())?;
            roots.add(certificate).map_err(|_| unreadable)?;
        }
        match roots.is_empty() {
            true => Err(TrustError::NoCertificate),
            false => Ok(Self { authorities: Authorities::Only(roots), config: OnceLock::new() }),
        }
    }

    /// For the connector.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, TlsProblem> {
        let made = self.config.get_or_init(|| match &self.authorities {
            Authorities::Only(roots) => client_config(roots.clone()),
            Authorities::System => {
                let mut roots = RootCertStore::empty();
                // Single unreadable certificates are common in system bundles, and no reason to trust none.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                match roots.is_empty() {
                    true => Err(TlsProblem::NoAuthorities),
                    false => client_config(roots),
                }
            }
        });
        made.clone()
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsProblem> {
    // The provider is named here: the process default is another's business, and may be missing in tests.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsProblem::Other(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl TlsProblem {
    /// Reads the reason out of a failed handshake.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(problem)) => Self::of_certificate(problem),
            Some(other) => Self::Other(other.to_string()),
            None => Self::Other(error.to_string()),
        }
    }

    fn of_certificate(problem: &CertificateError) -> Self {
        match problem {
            // A bad signature: a CA of the same name, with another key (a CA that was made anew).
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            other => {
                let text = other.to_string();
                match text.contains("CaUsedAsEndEntity") {
                    true => Self::AuthorityAsServer,
                    false => Self::Other(text),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_bundle_must_hold_certificates() {
        let good = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap().cert.pem();
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let rows = [
            (good.clone(), Ok(())),
            (format!("{good}{good}"), Ok(())),
            (String::new(), Err(TrustError::NoCertificate)),
            ("hello".to_owned(), Err(TrustError::NoCertificate)),
            (damaged.to_owned(), Err(TrustError::Unreadable { number: 1 })),
            (format!("{good}{damaged}"), Err(TrustError::Unreadable { number: 2 })),
        ];
        for (pem, outcome) in rows {
            assert_eq!(Trust::only(&pem).map(|_| ()), outcome);
        }
    }
}
