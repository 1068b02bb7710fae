//! The TLS settings of a listener, and which certificate a client hello gets. Knows nothing of where
//! certificates come from.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::host::HostName;

/// What clients may negotiate (RFC 7301), the better first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// The better first. AES-128 before AES-256, as browsers offer them and Mozilla's guidelines list them: it is out of
/// reach as well, a quarter cheaper for every byte, and comes with SHA-256, which processors have instructions for.
const SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Makes the settings of a listener whose certificates `resolver` chooses.
pub(super) fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let provider = CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        // The hybrid of X25519 and ML-KEM-768 is first for every client that offers a share for it.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let mut config =
        builder.with_protocol_versions(&VERSIONS)?.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    // The suites are all strong; a fixed order is what auditors ask for.
    config.ignore_client_order = true;
    // Resumption costs no memory here, and works across workers: the ticket holds the session. Keys turn
    // over by themselves every 6 hours. A ticket is bound to its SNI, so to its service.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // No 0-RTT: what a thief can replay may not be a request (RFC 8446 appendix E.5).
    config.max_early_data_size = 0;
    Ok(config)
}

/// Chooses the certificate by SNI. Each slot can be given another pair at any time.
#[derive(Debug)]
pub(super) struct Resolver {
    /// In the order of the services; never empty.
    slots: Vec<ArcSwap<CertifiedKey>>,
    by_name: HashMap<String, usize>,
}

impl Resolver {
    /// A resolver with one slot for each of `services`: its hosts, and what it shows.
    pub(super) fn new(services: Vec<(&[HostName], Arc<CertifiedKey>)>) -> Self {
        let mut by_name = HashMap::new();
        let mut slots = Vec::new();
        for (hosts, certified) in services {
            for host in hosts {
                by_name.entry(host.to_string()).or_insert(slots.len());
            }
            slots.push(ArcSwap::new(certified));
        }
        Self { slots, by_name }
    }

    /// Shows another pair in `slot` from the next handshake on.
    pub(super) fn show(&self, slot: usize, certified: Arc<CertifiedKey>) {
        if let Some(slot) = self.slots.get(slot) {
            slot.store(certified);
        }
    }

    /// The slot for a server name. Without one, or with one that is nobody's, the first: the request that
    /// follows is answered with 421 where its Host is nobody's or another's.
    fn slot(&self, name: Option<&str>) -> usize {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        name.and_then(|name| self.by_name.get(&name).copied()).unwrap_or(0)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.slots.get(self.slot(hello.server_name())).map(ArcSwap::load_full)
    }
}
