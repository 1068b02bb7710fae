//! Logout tokens, the provider's own logout, and revocation.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::web::testing::{Asked, Reply};

use super::testing::TestKey;
use super::testing_idp::{Idp, NOW, REFRESH_TOKEN};
use super::*;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn claims(idp: &Idp) -> Value {
    json!({
        "iss": idp.server.url(""), "aud": "me", "iat": NOW, "exp": NOW + 120, "jti": "j1", "sid": "s1",
        "sub": "alice", "events": {EVENT: {}},
    })
}

/// The claims, with one replaced; null removes, and `NULL` is null.
fn with(idp: &Idp, name: &str, value: &Value) -> Value {
    let mut claims = claims(idp);
    let object = claims.as_object_mut().unwrap();
    match value {
        Value::Null => object.remove(name),
        value if value == "NULL" => object.insert(name.to_owned(), Value::Null),
        value => object.insert(name.to_owned(), value.clone()),
    };
    claims
}

fn refused(outcome: &Result<LogoutToken, LogoutTokenError>) -> Option<&'static str> {
    match outcome {
        Err(LogoutTokenError::Refused(refusal)) => Some(refusal.code()),
        _ => None,
    }
}

#[tokio::test]
async fn rp_36_good_logout_tokens() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    for key in TestKey::all() {
        let token = provider.verify_logout_token(&key.sign(&key.header(), &claims(&idp))).await.unwrap();
        let expected = LogoutToken {
            jti: "j1".to_owned(),
            sid: Some("s1".to_owned()),
            subject: Some("alice".to_owned()),
            issued_at: UnixTime(NOW),
            // With the clock skew that is allowed for: until then it would be taken again.
            expires_at: UnixTime(NOW + 120 + 60),
        };
        assert_eq!(token, expected, "{}", key.name());
    }
    for (name, value) in [
        ("sub", json!(null)),
        ("sid", json!(null)),
        ("aud", json!(["me"])),
        ("azp", json!("me")),
        ("events", json!({EVENT: {"a": 1}, "https://other.example/event": null})),
        ("iat", json!(NOW - 600 - 60)),
        ("iat", json!(NOW + 60)),
        ("exp", json!(NOW - 59)),
        ("jti", json!("x".repeat(MAX_TEXT_BYTES))),
        ("anything", json!("else")),
    ] {
        let key = TestKey::es256();
        let outcome = provider.verify_logout_token(&key.sign(&key.header(), &with(&idp, name, &value))).await;
        assert!(outcome.is_ok(), "{name} {value}: {outcome:?}");
    }
    for kind in
        [json!(null), json!("JWT"), json!("logout+jwt"), json!("Logout+JWT"), json!("application/logout+jwt")]
    {
        let key = TestKey::es256();
        let mut header = key.header();
        match &kind {
            Value::Null => drop(header.as_object_mut().unwrap().remove("typ")),
            kind => header["typ"] = kind.clone(),
        }
        assert!(provider.verify_logout_token(&key.sign(&header, &claims(&idp))).await.is_ok(), "{kind}");
    }
    assert_eq!(idp.server.count("/jwks"), 1);
}

#[tokio::test]
async fn rp_37_bad_claims_of_logout_tokens() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let key = TestKey::es256();
    let rows: Vec<(&str, Value, &str)> = vec![
        ("events", json!(null), "events"),
        ("events", json!("NULL"), "events"),
        ("events", json!({}), "events"),
        ("events", json!({"http://schemas.openid.net/event/backchannel-logout/": {}}), "events"),
        ("events", json!({"https://schemas.openid.net/event/backchannel-logout": {}}), "events"),
        ("events", json!({EVENT: null}), "events"),
        ("events", json!({EVENT: []}), "events"),
        ("events", json!({EVENT: "{}"}), "events"),
        ("events", json!([EVENT]), "events"),
        ("events", json!(EVENT), "events"),
        ("nonce", json!("n"), "nonce"),
        ("nonce", json!(""), "nonce"),
        ("nonce", json!("NULL"), "nonce"),
        ("aud", json!("other"), "aud"),
        ("aud", json!(["me", "other"]), "aud"),
        ("aud", json!([]), "aud"),
        ("aud", json!(null), "aud"),
        ("azp", json!("other"), "azp"),
        ("iss", json!("https://evil.example"), "iss"),
        ("iss", json!(format!("{}/", idp.server.url(""))), "iss"),
        ("iss", json!(null), "iss"),
        ("iat", json!(null), "claim"),
        ("iat", json!(NOW + 61), "iat"),
        ("iat", json!(NOW - 600 - 61), "iat"),
        ("exp", json!(null), "claim"),
        ("exp", json!(NOW - 60), "exp"),
        ("exp", json!("soon"), "claim"),
        ("nbf", json!(NOW + 61), "nbf"),
        ("jti", json!(null), "claim"),
        ("jti", json!(""), "claim"),
        ("jti", json!(7), "claim"),
        ("jti", json!("x".repeat(MAX_TEXT_BYTES + 1)), "claim"),
        ("sid", json!(""), "claim"),
        ("sid", json!(["s1"]), "claim"),
        ("sid", json!("NULL"), "claim"),
        ("sid", json!("x".repeat(MAX_TEXT_BYTES + 1)), "claim"),
        ("sub", json!(""), "sub"),
        ("sub", json!("NULL"), "sub"),
        ("sub", json!({"a": 1}), "sub"),
        ("sub", json!("x".repeat(256)), "sub"),
    ];
    for (name, value, code) in rows {
        let outcome = provider.verify_logout_token(&key.sign(&key.header(), &with(&idp, name, &value))).await;
        assert_eq!(refused(&outcome), Some(code), "{name} {value}: {outcome:?}");
    }
    let mut nobody = with(&idp, "sub", &Value::Null);
    nobody.as_object_mut().unwrap().remove("sid");
    assert_eq!(refused(&provider.verify_logout_token(&key.sign(&key.header(), &nobody)).await), Some("sub"));
    assert_eq!(idp.server.count("/jwks"), 1);
}

#[tokio::test]
async fn rp_37_forged_logout_tokens() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let key = TestKey::es256();
    let good = key.sign(&key.header(), &claims(&idp));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let altered = |name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        key.sign(&header, &claims(&idp))
    };
    let unsigned = altered("alg", json!("none"));
    let stranger = TestKey::new("ES256", "es");
    let duplicated = format!("{}.{signature}", signed.split_once('.').unwrap().0);
    let rows = [
        ("alg none", unsigned.clone(), "alg"),
        ("alg none, no signature", format!("{}.", unsigned.rsplit_once('.').unwrap().0), "alg"),
        ("alg HS256", altered("alg", json!("HS256")), "alg"),
        ("another alg", altered("alg", json!("RS256")), "kid"),
        ("typ of an access token", altered("typ", json!("at+jwt")), "typ"),
        ("typ no text", altered("typ", json!(7)), "malformed"),
        ("crit", altered("crit", json!(["exp"])), "crit"),
        ("unknown kid", altered("kid", json!("unknown")), "kid"),
        ("another key", stranger.sign(&key.header(), &claims(&idp)), "signature"),
        ("no signature", format!("{signed}."), "malformed"),
        ("two parts", duplicated, "malformed"),
        ("garbage", "garbage".to_owned(), "malformed"),
        ("empty", String::new(), "malformed"),
        ("large", "x".repeat(MAX_LOGOUT_TOKEN_BYTES + 1), "malformed"),
    ];
    for (name, token, code) in rows {
        let outcome = provider.verify_logout_token(&token).await;
        assert_eq!(refused(&outcome), Some(code), "{name}: {outcome:?}");
    }
    // An ID token is none, and a logout token is no ID token.
    let id_token = json!({
        "iss": idp.server.url(""), "aud": "me", "sub": "alice", "iat": NOW, "exp": NOW + 300, "nonce": "n",
    });
    assert_eq!(
        refused(&provider.verify_logout_token(&key.sign(&key.header(), &id_token)).await),
        Some("events")
    );
    idp.script(|script| script.claims = json!({"events": {EVENT: {}}, "jti": "j1", "nonce": null}));
    assert_eq!(idp.login(&provider).await.unwrap_err().code(), "nonce");
}

#[tokio::test]
async fn a_flood_of_forged_logout_tokens_takes_no_keys_from_logins() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let key = TestKey::es256();
    for i in 0..100 {
        let mut header = key.header();
        header["kid"] = json!(format!("forged-{i}"));
        let outcome = provider.verify_logout_token(&key.sign(&header, &claims(&idp))).await;
        assert_eq!(refused(&outcome), Some("kid"));
    }
    assert_eq!(idp.server.count("/jwks"), 3, "the first fetch, and two for unknown ids");
    let new: &'static TestKey = Box::leak(Box::new(TestKey::new("ES256", "new")));
    idp.script(|script| (script.keys, script.key) = (vec![new.jwk()], new));
    idp.login(&provider).await.unwrap();
    assert_eq!(idp.server.count("/jwks"), 4);
}

#[tokio::test]
async fn what_cannot_be_judged_is_not_refused() {
    for path in ["/jwks", "/.well-known/openid-configuration"] {
        let idp = Idp::start().await;
        idp.script(|script| drop(script.replies.insert(path, Reply::status(503))));
        let provider = idp.provider();
        let key = TestKey::es256();
        let outcome = provider.verify_logout_token(&key.sign(&key.header(), &claims(&idp))).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, LogoutTokenError::Unavailable(_)), "{path}: {error:?}");
        assert_eq!(error.code(), if path == "/jwks" { "jwks" } else { "unreachable" });
        // Nor is what is no token at all taken for one.
        assert!(provider.verify_logout_token("garbage").await.is_err());
    }
}

#[tokio::test]
async fn logout_tokens_have_a_bound_of_their_own() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    for (bytes, is_too_large) in [(MAX_LOGOUT_TOKEN_BYTES, false), (MAX_LOGOUT_TOKEN_BYTES + 1, true)] {
        let error = provider.verify_logout_token(&"x".repeat(bytes)).await.unwrap_err();
        let refused_so = matches!(error, LogoutTokenError::Refused(Refusal::TokenTooLarge { .. }));
        assert_eq!((refused_so, error.code()), (is_too_large, "malformed"), "{bytes} bytes");
    }
}

async fn discovered(
    document: Value,
) -> (Idp, std::sync::Arc<Provider>, std::sync::Arc<std::sync::Mutex<Vec<Event>>>) {
    let idp = Idp::start().await;
    idp.script(|script| script.document = document);
    let (provider, _, heard) = idp.provider_with(|_| ());
    idp.login(&provider).await.unwrap();
    (idp, provider, heard)
}

#[tokio::test]
async fn rp_40_the_address_of_the_providers_logout() {
    let logout = EndSession {
        id_token_hint: Some("a.b.c"),
        logout_hint: Some("alice & bob"),
        post_logout_redirect_uri: "https://app.example/aporeto/oidc/logout",
        state: "s t",
    };
    let endpoint = "https://idp.example/logout?tenant=a%26b";
    let idp = Idp::start().await;
    assert!(idp.provider().end_session(logout).is_none(), "nothing is known of it yet");
    let (idp, provider, _) = discovered(json!({})).await;
    assert!(provider.end_session(logout).is_none(), "it offers none");
    assert_eq!(idp.server.count("/logout"), 0);

    let (_idp, provider, _) = discovered(json!({"end_session_endpoint": endpoint})).await;
    let url = provider.end_session(logout).unwrap();
    assert!(url.as_str().starts_with(endpoint), "{url}");
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("tenant", "a&b"),
        ("id_token_hint", "a.b.c"),
        ("logout_hint", "alice & bob"),
        ("client_id", "me"),
        ("post_logout_redirect_uri", "https://app.example/aporeto/oidc/logout"),
        ("state", "s t"),
    ] {
        assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(url.query_pairs().count(), 6);
    let bare = EndSession { id_token_hint: None, logout_hint: None, ..logout };
    assert_eq!(provider.end_session(bare).unwrap().query_pairs().count(), 4);
}

#[tokio::test]
async fn endpoints_that_may_not_be_used_are_as_if_absent() {
    for (name, value) in [
        ("end_session_endpoint", "javascript:alert(1)"),
        ("end_session_endpoint", "file:///etc/passwd"),
        ("end_session_endpoint", "http://203.0.113.1/logout"),
        ("revocation_endpoint", "http://203.0.113.1/revoke"),
        ("revocation_endpoint", "/revoke"),
    ] {
        let (_idp, provider, heard) = discovered(json!({name: value})).await;
        let logout = EndSession {
            id_token_hint: None,
            logout_hint: None,
            post_logout_redirect_uri: "https://app.example/aporeto/oidc/logout",
            state: "s",
        };
        assert!(provider.end_session(logout).is_none(), "{name} {value}");
        provider.revoke(Secret::new(REFRESH_TOKEN.to_owned()));
        let heard = heard.lock().unwrap();
        let named = heard
            .iter()
            .filter(|event| matches!(event, Event::EndpointIgnored { reason } if reason.contains(name)));
        assert_eq!(named.count(), 1, "{name} {value}: {heard:?}");
        assert_eq!(provider.status(), Status::Ready);
    }
}

/// What the revocation endpoint is asked first.
async fn revoked(idp: &Idp) -> Asked {
    let begin = Instant::now();
    loop {
        if let Some(asked) = idp.server.asked().into_iter().find(|asked| asked.target == "/revoke?a=b") {
            return asked;
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_refresh_token_is_given_back() {
    for (method, basic) in [(ClientAuthentication::Basic, true), (ClientAuthentication::Post, false)] {
        let idp = Idp::start().await;
        let base = idp.server.url("");
        idp.script(|script| {
            script.document = json!({"revocation_endpoint": format!("{base}/revoke?a=b")});
            script.replies.insert("/revoke", Reply::status(200));
        });
        let (provider, _, heard) = idp.provider_with(|config| config.client_authentication = method);
        idp.login(&provider).await.unwrap();
        provider.revoke(Secret::new(REFRESH_TOKEN.to_owned()));
        let asked = revoked(&idp).await;
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
        assert_eq!(form.get("token").map(String::as_str), Some(REFRESH_TOKEN));
        assert_eq!(form.get("token_type_hint").map(String::as_str), Some("refresh_token"));
        assert_eq!(form.get("client_secret").map(String::as_str), (!basic).then_some("client-secret"));
        assert_eq!(asked.head.contains("Basic bWU6Y2xpZW50LXNlY3JldA=="), basic, "{}", asked.head);
        assert!(!heard.lock().unwrap().iter().any(|it| matches!(it, Event::RevocationFailed { .. })));
    }
}

#[tokio::test]
async fn a_revocation_that_fails_is_told_once_and_not_repeated() {
    let idp = Idp::start().await;
    let base = idp.server.url("");
    idp.script(|script| {
        script.document = json!({"revocation_endpoint": format!("{base}/revoke?a=b")});
        let refusal = json!({"error": "unsupported_token_type", "error_description": REFRESH_TOKEN});
        script.replies.insert("/revoke", Reply::Full(400, vec![], refusal.to_string().into_bytes()));
    });
    let (provider, _, heard) = idp.provider_with(|_| ());
    idp.login(&provider).await.unwrap();
    let told = || {
        let heard = heard.lock().unwrap();
        let reasons = heard.iter().filter_map(|event| match event {
            Event::RevocationFailed { reason } => Some(reason.clone()),
            _ => None,
        });
        reasons.collect::<Vec<_>>()
    };
    // One more than may be under way: nothing runs before this task waits.
    for _ in 0..=MAX_REVOCATIONS {
        provider.revoke(Secret::new(REFRESH_TOKEN.to_owned()));
    }
    assert_eq!(told(), ["too many at once"]);
    let begin = Instant::now();
    while idp.server.count("/revoke") < MAX_REVOCATIONS || told().len() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(idp.server.count("/revoke"), MAX_REVOCATIONS);
    assert_eq!(told()[1..], ["it answers 400 with the error `unsupported_token_type`"]);
}
