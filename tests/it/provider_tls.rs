//! TLS-03: a provider whose certificate does not prove that it is the provider is told nothing: no request, no browser.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::expect::page;
use crate::support::stage::Stage;

/// An authority, and the text by which others trust it.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Who signed the provider's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    Trusted,
    Unknown,
    Itself,
}

/// A provider on `localhost` that has no more than metadata, and counts requests.
async fn provider(
    authority: &Authority,
    params: CertificateParams,
    signer: Signer,
) -> (u16, Arc<AtomicUsize>) {
    let key = KeyPair::generate().unwrap();
    let leaf = match signer {
        Signer::Trusted => params.signed_by(&key, &authority.0),
        Signer::Unknown => params.signed_by(&key, &Authority::new().0),
        Signer::Itself => params.self_signed(&key),
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.unwrap().der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(move |_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let body = Full::new(Bytes::from(metadata(port)));
                    async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    (port, requests)
}

fn metadata(port: u16) -> String {
    let issuer = format!("https://localhost:{port}");
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
}

/// A certificate for this name, from and to these years.
fn params(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

#[tokio::test]
async fn a_provider_has_to_prove_itself() {
    for (what, params, signer, told) in [
        ("good", params("localhost", 2020, 2090), Signer::Trusted, ""),
        ("expired", params("localhost", 2010, 2020), Signer::Trusted, "expired"),
        ("not valid yet", params("localhost", 2080, 2090), Signer::Trusted, "not valid yet"),
        ("another name", params("other.test", 2020, 2090), Signer::Trusted, "another name"),
        ("an unknown authority", params("localhost", 2020, 2090), Signer::Unknown, "not trusted"),
        ("self-signed", params("localhost", 2020, 2090), Signer::Itself, "not trusted"),
    ] {
        let authority = Authority::new();
        let (port, requests) = provider(&authority, params, signer).await;
        let stage = Stage::with(|plan| {
            plan.idp_is_up = false;
            plan.set("OIDCProviderURL", json!(format!("https://localhost:{port}")));
            plan.set("OIDCProviderCertificateAuthority", json!(authority.pem()));
        })
        .await;
        let answer = stage.browser().navigate(&stage.url("/app/")).await;
        if told.is_empty() {
            let location = answer.expect(302).location();
            assert!(
                location.as_str().starts_with(&format!("https://localhost:{port}/authorize?")),
                "{location}"
            );
            assert!(requests.load(Ordering::Relaxed) > 0, "{what}");
            continue;
        }
        page(&answer, 503);
        assert_eq!(requests.load(Ordering::Relaxed), 0, "{what}: requests at a provider that proved nothing");
        assert_eq!(stage.admin("/readyz?service=app").await.json()["status"], "degraded", "{what}");
        let named = |line: &serde_json::Value| line["level"] != "info" && line.to_string().contains(told);
        stage.proxy.line(&format!("{what}: a line that says {told}"), named).await;
    }
}
