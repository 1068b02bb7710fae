//! Handshakes of real clients over loopback.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion,
    RootCertStore, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};

use super::*;

/// A listener that does one handshake at a time for each client, says "ok", and hangs up.
struct Server {
    address: SocketAddr,
    tls: Arc<ServerTls>,
}

impl Server {
    fn start(tls: ServerTls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(tls);
        let config = tls.server_config();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, mut stream) = (config.clone(), stream.unwrap());
                std::thread::spawn(move || -> io::Result<()> {
                    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                    let mut connection = ServerConnection::new(config).unwrap();
                    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
                    tls.write_all(b"ok")?;
                    tls.conn.send_close_notify();
                    tls.conn.complete_io(tls.sock)?;
                    Ok(())
                });
            }
        });
        Self { address, tls }
    }

    fn own(services: &[(&str, &[&str])]) -> Self {
        let services = services.iter().map(|(name, hosts)| own(name, hosts, None)).collect();
        Self::start(ServerTls::new(Config { services }, Clock::system()).unwrap())
    }

    fn connect(&self, config: &Arc<ClientConfig>, name: &str) -> io::Result<ClientConnection> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = Vec::new();
        rustls::Stream::new(&mut connection, &mut stream).read_to_end(&mut answer)?;
        assert_eq!(answer, b"ok");
        Ok(connection)
    }

    /// A client that trusts the own CAs and nothing else.
    fn trusting(&self) -> ClientConfig {
        trusting(&self.tls.ca_pem())
    }
}

fn own(name: &str, hosts: &[&str], directory: Option<&Path>) -> Service {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let certificate = Certificate::Own { directory: directory.map(ToOwned::to_owned), hosts: hosts.clone() };
    Service { name: name.into(), hosts, certificate }
}

fn trusting(pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    client(&[&TLS13, &TLS12], aws_lc_rs::default_provider())
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn client(
    versions: &[&'static SupportedProtocolVersion],
    provider: CryptoProvider,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap()
}

/// A client that takes any certificate, to see which one it is shown.
fn gullible() -> ClientConfig {
    let builder = client(&[&TLS13, &TLS12], aws_lc_rs::default_provider());
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible)).with_no_client_auth()
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn shown(connection: &ClientConnection) -> Vec<String> {
    Facts::read(&connection.peer_certificates().unwrap()[0]).unwrap().dns_names
}

#[test]
fn own_certificates_are_good_for_names_and_addresses() {
    let server = Server::own(&[("try", &["localhost", "127.0.0.1", "::1"])]);
    let config = Arc::new(server.trusting());
    for name in ["localhost", "LOCALHOST", "127.0.0.1", "::1"] {
        server.connect(&config, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in ["127.0.0.2", "example.com", "sub.localhost"] {
        assert!(server.connect(&config, name).is_err(), "{name}");
    }
}

#[test]
fn versions_protocols_and_key_exchange() {
    let server = Server::own(&[("app", &["app.test"])]);
    let group = |groups: &[&'static dyn rustls::crypto::SupportedKxGroup]| CryptoProvider {
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    let hybrid = || group(&[kx_group::X25519MLKEM768, kx_group::X25519]);
    for (version, provider, alpn, expected) in [
        (&TLS13, hybrid(), &["h2", "http/1.1"][..], (Some("h2"), NamedGroup::X25519MLKEM768)),
        (&TLS13, hybrid(), &["http/1.1", "h2"], (Some("h2"), NamedGroup::X25519MLKEM768)),
        (&TLS13, group(&[kx_group::X25519]), &["http/1.1"], (Some("http/1.1"), NamedGroup::X25519)),
        (&TLS12, hybrid(), &["h2"], (Some("h2"), NamedGroup::X25519)),
        (&TLS12, group(&[kx_group::SECP384R1]), &[], (None, NamedGroup::secp384r1)),
    ] {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.tls.ca_pem().as_bytes()).unwrap()).unwrap();
        let mut config = client(&[version], provider).with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connection = server.connect(&Arc::new(config), "app.test").unwrap();
        let protocol = connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        let group = connection.negotiated_key_exchange_group().unwrap().name();
        assert_eq!((protocol.as_deref(), group), expected);
        assert_eq!(connection.protocol_version(), Some(version.version));
    }
}

#[test]
fn another_protocol_than_http_is_refused() {
    let server = Server::own(&[("app", &["app.test"])]);
    let mut config = server.trusting();
    config.alpn_protocols = vec![b"imap".to_vec()];
    assert!(server.connect(&Arc::new(config), "app.test").is_err());
}

/// A client hello that offers at most TLS 1.1 gets an alert (protocol_version, 70) and no server hello.
#[test]
fn versions_before_1_2_are_refused() {
    let server = Server::own(&[("app", &["app.test"])]);
    for minor in 1..=2u8 {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        // No session, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, no compression; secp256r1, ECDSA with SHA-256.
        hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0]);
        hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
        let length = hello.len() as u8;
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(hello);
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&record).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!((answer[0], answer[6]), (21, 70), "TLS 1.{}", minor - 1);
    }
}

#[test]
fn sni_chooses_the_service() {
    let server = Server::own(&[("first", &["a.test", "b.test"]), ("second", &["c.test"])]);
    let config = Arc::new(gullible());
    for (name, expected) in [
        ("a.test", &["a.test", "b.test"][..]),
        ("B.TEST", &["a.test", "b.test"]),
        ("c.test", &["c.test"]),
        ("C.Test", &["c.test"]),
        ("unknown.test", &["a.test", "b.test"]),
        ("sub.c.test", &["a.test", "b.test"]),
        ("127.0.0.1", &["a.test", "b.test"]),
    ] {
        assert_eq!(shown(&server.connect(&config, name).unwrap()), expected, "{name}");
    }
    let mut silent = gullible();
    silent.enable_sni = false;
    assert_eq!(shown(&server.connect(&Arc::new(silent), "c.test").unwrap()), ["a.test", "b.test"]);
}

#[test]
fn a_certificate_of_one_service_is_worthless_for_another() {
    let server = Server::own(&[("first", &["a.test"]), ("second", &["c.test"])]);
    let cas: Vec<_> =
        CertificateDer::pem_slice_iter(server.tls.ca_pem().as_bytes()).map(Result::unwrap).collect();
    let mut roots = RootCertStore::empty();
    roots.add(cas[1].clone()).unwrap();
    let builder = client(&[&TLS13], aws_lc_rs::default_provider());
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    assert!(server.connect(&config, "c.test").is_ok());
    assert!(server.connect(&config, "a.test").is_err());
}

#[test]
fn sessions_resume_and_never_with_early_data() {
    for version in [&TLS13, &TLS12] {
        let server = Server::own(&[("first", &["a.test"]), ("second", &["c.test"])]);
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(server.tls.ca_pem().as_bytes()) {
            roots.add(ca.unwrap()).unwrap();
        }
        let builder = client(&[version], aws_lc_rs::default_provider());
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.enable_early_data = true;
        let config = Arc::new(config);
        let first = server.connect(&config, "a.test").unwrap();
        assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));

        let name = ServerName::try_from("a.test").unwrap();
        let mut early = ClientConnection::new(config.clone(), name).unwrap();
        assert!(early.early_data().is_none(), "the ticket allows early data");
        let second = server.connect(&config, "a.test").unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(second.protocol_version(), Some(version.version));

        let other = server.connect(&config, "c.test").unwrap();
        assert_eq!(other.handshake_kind(), Some(HandshakeKind::Full));
    }
    let expected = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2];
    assert_eq!([TLS13.version, TLS12.version], expected);
}

/// 50 rotations, bad ones among them, under constant handshakes: none fails, and each good pair is in use
/// after one look.
#[test]
fn rotation_fails_no_handshake() {
    let directory = tempfile::tempdir().unwrap();
    let ca = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, ca).unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let rotate = |number: u32, tear: bool| {
        let names = vec!["app.test".to_owned(), format!("n{number}.test")];
        let new = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&new, &ca).unwrap();
        let pem = leaf.pem();
        fs::write(&certificate, if tear { pem.split_at(pem.len() / 2).0 } else { &pem }).unwrap();
        fs::write(&key, new.serialize_pem()).unwrap();
    };
    rotate(0, false);
    let source = |path: &Path| Source::File(path.to_owned());
    let services = vec![Service {
        name: "app".into(),
        hosts: vec!["app.test".into()],
        certificate: Certificate::External { certificate: source(&certificate), key: source(&key) },
    }];
    let server = Server::start(ServerTls::new(Config { services }, Clock::system()).unwrap());
    let config = Arc::new(trusting(&ca.pem()));
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    // A new client each time: none of these is a resumption.
                    let mut fresh = (*config).clone();
                    fresh.resumption = rustls::client::Resumption::disabled();
                    server.connect(&Arc::new(fresh), "app.test").unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut refused = 0;
        for number in 1..=50 {
            let tear = number % 5 == 0;
            rotate(number, tear);
            let outcomes = server.tls.reload_if_changed();
            let expected = if tear { number - 1 } else { number };
            assert_eq!(server.tls.certificates()[0].1.dns_names[1], format!("n{expected}.test"));
            assert_eq!(outcomes.len(), usize::from(!tear), "{outcomes:?}");
            if tear {
                let outcomes = server.tls.reload_if_changed();
                refused += outcomes.iter().filter(|outcome| outcome.change.is_failure()).count();
            }
            let seen = done.load(Ordering::SeqCst);
            while done.load(Ordering::SeqCst) < seen + 2 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
        assert_eq!(refused, 10);
    });
    let shown = shown(&server.connect(&config, "app.test").unwrap());
    assert_eq!(shown, ["app.test", "n49.test"]);
}

#[test]
fn a_renewed_leaf_is_shown_without_a_restart_and_trusted_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    // Made 61 days ago: valid still, and due.
    let (clock, hand) = Clock::manual(now.minus(Duration::from_secs(61 * 24 * 60 * 60)));
    let services = vec![own("app", &["app.test"], Some(directory.path()))];
    let server = Server::start(ServerTls::new(Config { services }, clock).unwrap());
    let config = Arc::new(server.trusting());
    let made = server.tls.reload_if_changed();
    assert!(matches!(made[0].change, Change::AuthorityMade { why: Remade::Missing, file: Some(_) }));
    let before = server.connect(&config, "app.test").unwrap().peer_certificates().unwrap()[0].clone();

    assert!(server.tls.reload_if_changed().is_empty());
    hand.set(now);
    let renewed = server.tls.reload_if_changed();
    assert!(matches!(renewed[..], [ReloadOutcome { change: Change::LeafIssued { .. }, .. }]), "{renewed:?}");
    // A client without sessions, so that the certificate is shown again.
    let config = Arc::new(server.trusting());
    let after = server.connect(&config, "app.test").unwrap().peer_certificates().unwrap()[0].clone();
    assert_ne!(before, after);
    assert!(server.tls.reload_if_changed().is_empty());
}

#[test]
fn mistakes_name_the_service() {
    let external = |certificate: &str| Certificate::External {
        certificate: Source::File(certificate.into()),
        key: Source::File("/nonexistent/tls.key".into()),
    };
    let service = |hosts: &[&str], certificate| Service {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        certificate,
        name: "app".into(),
    };
    for (service, text) in [
        (own("app", &["*.example.com"], None), "service app: host *.example.com: wildcards"),
        (own("app", &[], None), "service app: own certificate: a certificate needs at least one host"),
        (
            service(&["app.test"], external("/nonexistent/tls.crt")),
            "service app: TLSCertificate and TLSCertificateKey: cannot read /nonexistent/tls.crt",
        ),
    ] {
        let error = ServerTls::new(Config { services: vec![service] }, Clock::system()).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
    assert!(matches!(ServerTls::new(Config::default(), Clock::system()), Err(Error::NoServices)));
}
