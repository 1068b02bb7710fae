//! The fourteen modules of the OpenID Foundation's Basic RP certification plan, each with the four kinds of keys.
//! UserInfo is always asked, so that a call after a bad ID token would be seen.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::expect::{accepted_login, refused_login};
use crate::support::idp::{Algorithm, Endpoint, Mode};
use crate::support::stage::Stage;

async fn stage(mode: Mode, algorithm: Algorithm) -> Stage {
    Stage::with(|plan| {
        plan.behaviour = mode.behaviour(algorithm);
        plan.set("OIDCUserInfo", json!("always"));
    })
    .await
}

/// The login must end in a session, after exactly one UserInfo call.
async fn accepted(mode: Mode) {
    join_all(Algorithm::ALL.map(|algorithm| async move {
        let stage = stage(mode, algorithm).await;
        accepted_login(&stage).await;
        assert_eq!(stage.idp.login_calls(), (1, 1), "{mode:?} {algorithm:?}");
        let call = stage.idp.calls_of(&Endpoint::UserInfo).remove(0);
        assert!(call.headers["authorization"].to_str().unwrap().starts_with("Bearer "));
        stage
    }))
    .await;
}

/// The login must end in a 400 page, with this many UserInfo calls.
async fn refused(mode: Mode, user_info_calls: usize) {
    join_all(Algorithm::ALL.map(|algorithm| async move {
        let stage = stage(mode, algorithm).await;
        refused_login(&stage, 400, user_info_calls).await;
        stage
    }))
    .await;
}

#[tokio::test]
async fn oidcc_client_test() {
    accepted(Mode::Good).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_iss() {
    refused(Mode::InvalidIss, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_sub() {
    refused(Mode::MissingSub, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_aud() {
    refused(Mode::InvalidAud, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_missing_iat() {
    refused(Mode::MissingIat, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_single_jwks() {
    accepted(Mode::KidAbsentSingleJwks).await;
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_multiple_jwks() {
    accepted(Mode::KidAbsentMultipleJwks).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_rs256() {
    accepted(Mode::IdTokenSigned).await;
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    refused(Mode::IdTokenSigNone, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_rs256() {
    refused(Mode::InvalidSignature, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_userinfo_invalid_sub() {
    refused(Mode::UserInfoInvalidSub, 1).await;
}

#[tokio::test]
async fn oidcc_client_test_nonce_invalid() {
    refused(Mode::NonceInvalid, 0).await;
}

#[tokio::test]
async fn oidcc_client_test_scope_userinfo_claims() {
    let stage = Stage::with(|plan| {
        plan.behaviour = Mode::ScopeUserInfoClaims.behaviour(Algorithm::Rs256);
        plan.set("OIDCScopes", json!(["openid", "profile", "email", "address", "phone"]));
        plan.set(
            "claimsToHTTPHeaderMappings",
            json!([
                { "claimName": "sub", "targetHTTPHeader": "X-User" },
                { "claimName": "name", "targetHTTPHeader": "X-Name" },
                { "claimName": "phone_number", "targetHTTPHeader": "X-Phone" },
            ]),
        );
        plan.endpoints(json!([
            { "URI": "/app/*", "methods": ["GET"], "allowedScopes": [["email=alice@acme.com", "address:locality=Berlin"]] },
        ]));
    })
    .await;
    accepted_login(&stage).await;
    let authorize = stage.idp.calls_of(&Endpoint::Authorize).remove(0);
    assert_eq!(authorize.parameter("scope"), Some("openid profile email address phone"));
    let last = stage.app.last();
    assert_eq!(
        (last.header("x-name"), last.header("x-phone")),
        (vec!["Alice Example".into()], vec!["+49 30 1234".into()])
    );
}

#[tokio::test]
async fn oidcc_client_test_client_secret_basic() {
    accepted(Mode::ClientSecretBasic).await;
}
