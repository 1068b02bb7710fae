//! The six modules of the OpenID Foundation's Config RP certification plan.

use futures_util::future::join_all;

use crate::support::expect::{accepted_login, page, refused_login};
use crate::support::idp::{Algorithm, Endpoint, Key, Mode};
use crate::support::stage::Stage;

#[tokio::test]
async fn oidcc_client_test_discovery_openid_config() {
    let stage = Stage::misbehaving(Mode::DiscoveryOpenidConfig.behaviour(Algorithm::Rs256)).await;
    accepted_login(&stage).await;
    assert_eq!(stage.idp.count(&Endpoint::Discovery), 1);
}

/// The path of the keys is another in every run, so only the metadata can tell it.
#[tokio::test]
async fn oidcc_client_test_discovery_jwks_uri_keys() {
    for _ in 0..2 {
        let stage = Stage::misbehaving(Mode::DiscoveryJwksUriKeys.behaviour(Algorithm::Rs256)).await;
        accepted_login(&stage).await;
        assert_eq!(stage.idp.count(&Endpoint::Jwks), 1);
    }
}

#[tokio::test]
async fn oidcc_client_test_discovery_issuer_mismatch() {
    let stage = Stage::misbehaving(Mode::DiscoveryIssuerMismatch.behaviour(Algorithm::Rs256)).await;
    let mut browser = stage.browser();
    page(&browser.navigate(&stage.url("/app/")).await, 503);
    assert_eq!(stage.idp.count(&Endpoint::Authorize), 0);
    assert_eq!(stage.admin("/readyz?service=app").await.status, 503);
    assert_eq!(stage.admin("/readyz").await.status, 503);
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    let stage = Stage::misbehaving(Mode::IdTokenSigNone.behaviour(Algorithm::Rs256)).await;
    refused_login(&stage, 400, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation_just_before_signing() {
    join_all(Algorithm::ALL.map(|algorithm| async move {
        let stage = Stage::misbehaving(Mode::Good.behaviour(algorithm)).await;
        // The keys of before the rotation are known then, or else nothing would be tested.
        accepted_login(&stage).await;
        assert_eq!(stage.idp.count(&Endpoint::Jwks), 1);
        let rotating = Mode::SigningKeyRotationJustBeforeSigning.behaviour(algorithm);
        stage.idp.change(|behaviour| behaviour.rotate_at_token = rotating.rotate_at_token);
        accepted_login(&stage).await;
        assert_eq!(stage.idp.count(&Endpoint::Jwks), 2, "{algorithm:?}: one more JWKS call");
        stage
    }))
    .await;
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation() {
    join_all(Algorithm::ALL.map(|algorithm| async move {
        let stage = Stage::misbehaving(Mode::SigningKeyRotation.behaviour(algorithm)).await;
        accepted_login(&stage).await;
        assert_eq!(stage.idp.count(&Endpoint::Jwks), 1);
        stage.idp.change(|behaviour| behaviour.rotate(Key::new(algorithm, 1)));
        accepted_login(&stage).await;
        assert_eq!(stage.idp.count(&Endpoint::Jwks), 2, "{algorithm:?}: one more JWKS call");
        stage
    }))
    .await;
}
