//! Applications behind TLS, a Unix socket, and a name.

use std::sync::Arc;

use tokio::net::UnixListener;

use super::*;
use crate::secret::{Secret, Source};

/// A certificate for `names` by an authority of its own: the authority's PEM and a server's settings.
fn certificate(names: &[&str]) -> (String, Arc<rustls::ServerConfig>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (authority.pem(), Arc::new(server))
}

/// An application behind TLS. `/cut` ends its answer without the end that TLS has for that.
async fn tls_application(server: Arc<rustls::ServerConfig>) -> SocketAddr {
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    application(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while let Some(head) = read_head(&mut stream).await {
                if head.contains("/cut") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
                    stream.flush().await.unwrap();
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntls").await.unwrap();
            }
        }
    })
    .await
}

fn tls(host: &str, address: SocketAddr, roots: &str) -> Config {
    let roots = Some(Source::Inline(Secret::new(roots.to_owned())));
    let upstream = Upstream::Tls { host: host.to_owned(), port: address.port(), roots };
    Config { connect_timeout: PATIENCE, ..config(upstream) }
}

#[test]
fn tls_is_spoken_and_verified() {
    worker(async {
        let (authority, server) = certificate(&["localhost", "127.0.0.1"]);
        let (stranger, _) = certificate(&["localhost"]);
        let address = tls_application(server).await;
        for host in ["localhost", "127.0.0.1"] {
            let forwarder = forwarder_with(&tls(host, address, &authority));
            for _ in 0..2 {
                assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "tls");
                assert_eq!(forwarder.pool.len(), 1);
            }
        }
        let error = get(&forwarder_with(&tls("localhost", address, &stranger)), "/").await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert_eq!(error.status().as_u16(), 502);

        let (authority, server) = certificate(&["other.example"]);
        let address = tls_application(server).await;
        let error = get(&forwarder_with(&tls("localhost", address, &authority)), "/").await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("https://localhost:"), "{error}");
    });
}

/// An attacker who can cut TCP must not be able to end a body.
#[test]
fn an_end_of_tcp_is_no_end_of_a_body_in_tls() {
    worker(async {
        let (authority, server) = certificate(&["localhost"]);
        let address = tls_application(server).await;
        let answer = get(&forwarder_with(&tls("localhost", address, &authority)), "/cut").await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
    });
}

/// With HTTP/2 it has to be chosen in the handshake, which an application that has it not does not do.
#[test]
fn http2_in_tls_is_agreed_upon() {
    worker(async {
        let rows: [(&[&[u8]], bool); 4] =
            [(&[b"h2"], true), (&[b"http/1.1", b"h2"], true), (&[b"http/1.1"], false), (&[], false)];
        for (protocols, speaks) in rows {
            let (authority, server) = certificate(&["localhost"]);
            let mut server = Arc::unwrap_or_clone(server);
            server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            let address = application(move |_, stream| {
                let acceptor = acceptor.clone();
                async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut reply))) = server.accept().await {
                        let answer =
                            Response::builder().header("x-scheme", request.uri().scheme_str().unwrap());
                        let mut body = reply.send_response(answer.body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::from_static(b"tls"), true).unwrap();
                    }
                }
            })
            .await;
            let config = Config { version: HttpVersion::Http2, ..tls("localhost", address, &authority) };
            let outcome = get(&forwarder_with(&config), "/").await;
            if speaks {
                let answer = outcome.unwrap();
                assert_eq!(answer.headers()["x-scheme"], "https");
                assert_eq!(text(answer).await, "tls");
                continue;
            }
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::NotHttp2 { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("h2://localhost:") && text.contains("ALPN"), "{text}");
            assert!(text.contains("write upstream with https://"), "{text}");
        }
        // Nor is anything said to who has the wrong certificate.
        let (_, server) = certificate(&["localhost"]);
        let (stranger, _) = certificate(&["localhost"]);
        let address = tls_application(server).await;
        let config = Config { version: HttpVersion::Http2, ..tls("localhost", address, &stranger) };
        let error = get(&forwarder_with(&config), "/").await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    });
}

#[test]
fn http2_over_a_unix_socket() {
    worker(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut reply))) = server.accept().await {
                let mut body = reply.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"unix"), true).unwrap();
            }
        });
        let config = Config { version: HttpVersion::Http2, ..config(Upstream::Unix(path)) };
        assert_eq!(text(get(&forwarder_with(&config), "/").await.unwrap()).await, "unix");
    });
}

#[test]
fn a_plain_application_is_not_tls() {
    worker(async {
        let (address, _) = canned("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (authority, _) = certificate(&["localhost"]);
        // It never answers to what is no HTTP, so the handshake only ends with its time.
        let config = Config { connect_timeout: SHORT, ..tls("localhost", address, &authority) };
        let error = get(&forwarder_with(&config), "/").await.unwrap_err();
        assert!(matches!(error, Error::ConnectTimeout { .. } | Error::Tls { .. }), "{error:?}");
    });
}

#[test]
fn roots_that_are_none_are_refused() {
    let upstream = |pem: &str| {
        let roots = Some(Source::Inline(Secret::new(pem.to_owned())));
        Upstream::Tls { host: "localhost".to_owned(), port: 1, roots }
    };
    for pem in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = Connector::new(&upstream(pem), HttpVersion::Http1).unwrap_err();
        assert!(matches!(error, ConfigError::NoRoots(_)), "{error}");
    }
    let roots = Some(Source::File("/nonexistent/ca.pem".into()));
    let missing = Upstream::Tls { host: "localhost".to_owned(), port: 1, roots };
    assert!(
        Connector::new(&missing, HttpVersion::Http1).unwrap_err().to_string().contains("/nonexistent/ca.pem")
    );
    let unnameable = Upstream::Tls { host: "a b".to_owned(), port: 1, roots: None };
    assert!(matches!(Connector::new(&unnameable, HttpVersion::Http2), Err(ConfigError::BadName(_))));
}

#[test]
fn a_unix_socket_serves() {
    worker(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let forwarder = forwarder_with(&config(Upstream::Unix(path.clone())));
        let error = get(&forwarder, "/").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");

        let listener = UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while read_head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix").await.unwrap();
            }
        });
        for _ in 0..2 {
            assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "unix");
        }
    });
}

#[test]
fn localhost_is_either_loopback_address() {
    worker(async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                continue; // a machine without IPv6
            };
            let port = listener.local_addr().unwrap().port();
            tokio::task::spawn_local(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere").await.unwrap();
            });
            let upstream = Upstream::Tcp { host: "LocalHost".to_owned(), port };
            assert_eq!(text(get(&forwarder_with(&config(upstream)), "/").await.unwrap()).await, "here");
        }
    });
}

#[test]
fn a_name_that_is_none_is_502() {
    worker(async {
        let upstream = Upstream::Tcp { host: "no-such-host.invalid".to_owned(), port: 80 };
        let config = Config { connect_timeout: PATIENCE, ..config(upstream) };
        let error = get(&forwarder_with(&config), "/").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    });
}

#[test]
fn upstreams_are_named_as_urls() {
    let connector = |upstream| Connector::new(&upstream, HttpVersion::Http1).unwrap().to_string();
    let host = || "::1".to_owned();
    assert_eq!(connector(Upstream::Tcp { host: host(), port: 80 }), "http://[::1]:80");
    assert_eq!(connector(Upstream::Unix("/run/app".into())), "unix:/run/app");
    let connector = |upstream| Connector::new(&upstream, HttpVersion::Http2).unwrap().to_string();
    assert_eq!(connector(Upstream::Tcp { host: host(), port: 80 }), "h2c://[::1]:80");
    assert_eq!(connector(Upstream::Unix("/run/app".into())), "h2c+unix:/run/app");
}
