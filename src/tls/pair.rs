//! A certificate chain and its key, read from PEM: the pair that a service shows, proven to belong
//! together. Knows nothing of files that change, nor of our own CA.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::facts::{Date, Facts};
use crate::clock::UnixTime;
use crate::secret::SourceError;

/// Most certificates of a chain; real ones have two to four.
const MAX_CHAIN: usize = 10;

/// A chain with its key, ready for handshakes.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// Facts of the first certificate, the server's own.
    pub(super) facts: Facts,
}

impl Pair {
    /// Reads a chain in PEM, the server's own certificate first, and its key: PKCS #8, PKCS #1 or SEC 1.
    pub(super) fn from_pem(chain: &str, key: &str) -> Result<Self, PairError> {
        let chain = read_chain(chain)?;
        let key = read_key(key)?;
        Self::from_der(chain, key)
    }

    /// Puts a chain and a key together.
    pub(super) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, PairError> {
        let own = chain.first().ok_or(PairError::NoCertificate)?;
        let facts = Facts::read(own).ok_or(PairError::BadCertificate { place: 1 })?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| PairError::UnsupportedKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { certified: Arc::new(certified), facts }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(mismatch(&certified)),
            Err(_) => Err(PairError::BadCertificate { place: 1 }),
        }
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pair").field(&self.facts).finish()
    }
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let place = chain.len() + 1;
        let certificate = certificate.map_err(|_| PairError::BadCertificate { place })?;
        if place > MAX_CHAIN {
            return Err(PairError::ChainTooLong);
        }
        // The others are only passed on, but a torn or foreign block must not go out to every client.
        Facts::read(&certificate).ok_or(PairError::BadCertificate { place })?;
        chain.push(certificate);
    }
    if chain.is_empty() { Err(PairError::NoCertificate) } else { Ok(chain) }
}

/// The parser's own error is not passed on: it can quote the line that it could not read.
fn read_key(pem: &str) -> Result<PrivateKeyDer<'static>, PairError> {
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(PairError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => PairError::NoKey,
        _ => PairError::BadKey,
    })
}

/// Tells a wrong order, the usual mistake, from a wrong key.
fn mismatch(certified: &CertifiedKey) -> PairError {
    let others = certified.cert.iter().enumerate().skip(1);
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
    };
    match others.into_iter().find(|(_, certificate)| belongs(certificate)) {
        Some((index, _)) => PairError::WrongOrder { place: index + 1 },
        None => PairError::Mismatch,
    }
}

/// Why a certificate and key can't be used. The blame is the configuration's; no text of a file is shown.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The certificate or the key could not be read.
    #[error(transparent)]
    Unreadable(#[from] SourceError),
    /// The certificate's text has no certificate.
    #[error("the certificate has no PEM block \"BEGIN CERTIFICATE\"")]
    NoCertificate,
    /// A block is not base64, cut short, or no X.509 certificate.
    #[error("certificate number {place} in the chain is damaged or no X.509 certificate")]
    BadCertificate {
        /// Counted from 1.
        place: usize,
    },
    /// More than [`MAX_CHAIN`] certificates.
    #[error("the chain has more than 10 certificates; is this a bundle of CAs?")]
    ChainTooLong,
    /// The key's text has no key.
    #[error("the key has no PEM block \"BEGIN PRIVATE KEY\" (or RSA or EC PRIVATE KEY)")]
    NoKey,
    /// The key's block is not base64 or cut short.
    #[error("the key is damaged PEM")]
    BadKey,
    /// The key asks for a passphrase.
    #[error("the key is encrypted; store it without passphrase (openssl pkey -in KEY -out PLAIN)")]
    EncryptedKey,
    /// A kind or size of key that TLS here does not do.
    #[error("the key is not a usable RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519 key")]
    UnsupportedKey,
    /// The key is not the certificate's.
    #[error("the key does not belong to the certificate; put a matching pair in place")]
    Mismatch,
    /// The key is that of a later certificate.
    #[error(
        "the key belongs to certificate number {place} in the chain; the server's own certificate comes first"
    )]
    WrongOrder {
        /// Counted from 1.
        place: usize,
    },
    /// A new pair out of its dates, while the present one is within its own.
    #[error("it is valid only from {} to {}", Date(*.not_before), Date(*.not_after))]
    OutOfDates {
        /// Its first second.
        not_before: UnixTime,
        /// Its last second.
        not_after: UnixTime,
    },
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn own(host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn openssl(arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need the openssl command");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn every_usual_form_of_key_is_read() {
        let (chain, pkcs8) = own("a.test");
        let sec1 = openssl(&["ec"], &pkcs8);
        assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
        let parameters = openssl(&["ecparam", "-name", "prime256v1"], "");
        let rsa = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "");
        let pkcs1 = openssl(&["rsa", "-traditional"], &rsa);
        assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY"));
        let rsa_chain = openssl(&["req", "-x509", "-new", "-key", "/dev/stdin", "-subj", "/CN=a"], &rsa);
        for (name, chain, key) in [
            ("PKCS #8", &chain, pkcs8.clone()),
            ("SEC 1", &chain, sec1.clone()),
            ("SEC 1 after its parameters", &chain, parameters + &sec1),
            (
                "after the certificate, with remarks and CRLF",
                &chain,
                format!("# key\n{chain}{pkcs8}").replace('\n', "\r\n"),
            ),
            ("PKCS #1", &rsa_chain, pkcs1),
            ("RSA PKCS #8", &rsa_chain, rsa),
        ] {
            assert!(Pair::from_pem(chain, &key).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_chain_keeps_its_order() {
        let (mine, key) = own("a.test");
        let (other, _) = own("ca.test");
        let pair = Pair::from_pem(&format!("{mine}{other}"), &key).unwrap();
        assert_eq!(pair.certified.cert.len(), 2);
        assert_eq!(pair.facts.dns_names, ["a.test"]);
    }

    #[test]
    fn bad_pairs_say_what_is_wrong() {
        let (chain, key) = own("a.test");
        let (other, other_key) = own("b.test");
        let torn = chain.replace("-----END", "");
        let garbled = chain.replacen("MII", "AAA", 1);
        let encrypted = openssl(&["pkcs8", "-topk8", "-passout", "pass:x"], &key);
        let small = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "");
        let many = chain.repeat(11);
        for (chain, key, text) in [
            ("", key.as_str(), "no PEM block \"BEGIN CERTIFICATE\""),
            (key.as_str(), key.as_str(), "no PEM block \"BEGIN CERTIFICATE\""),
            (torn.as_str(), key.as_str(), "number 1 in the chain is damaged"),
            (garbled.as_str(), key.as_str(), "number 1 in the chain is damaged"),
            (&format!("{chain}{garbled}"), key.as_str(), "number 2 in the chain is damaged"),
            (many.as_str(), key.as_str(), "more than 10"),
            (chain.as_str(), "", "no PEM block \"BEGIN PRIVATE KEY\""),
            (chain.as_str(), chain.as_str(), "no PEM block \"BEGIN PRIVATE KEY\""),
            (chain.as_str(), &key.replace("-----END", ""), "damaged PEM"),
            (chain.as_str(), encrypted.as_str(), "without passphrase"),
            (chain.as_str(), small.as_str(), "2048"),
            (chain.as_str(), other_key.as_str(), "does not belong"),
            (&format!("{other}{chain}"), key.as_str(), "belongs to certificate number 2"),
        ] {
            let error = Pair::from_pem(chain, key).unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} should contain {text:?}");
        }
    }

    #[test]
    fn no_error_quotes_the_key() {
        let (chain, key) = own("a.test");
        let body: String = key.lines().nth(1).unwrap().into();
        for broken in
            [key.replace("BEGIN PRIVATE", "BEGIN PRIVATE-----"), key.replace(&body, &format!("{body}!"))]
        {
            let error = Pair::from_pem(&chain, &broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(body.get(..16).unwrap()), "{error:?}");
        }
    }
}
