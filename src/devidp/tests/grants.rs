//! Refresh tokens of the development provider: rotation, reuse, revocation.

use super::*;

const OFFLINE: &[(&str, &str)] = &[("scope", "openid groups offline_access")];

impl Idp {
    /// The tokens of a login that asks for `offline_access`.
    async fn offline(&self) -> Value {
        let code = self.submit(OFFLINE, &[("user", "alice")], "").await.sent_back().remove("code").unwrap();
        self.exchange(&[("code", &code)], BASIC).await.json()
    }

    async fn refresh(&self, token: &str, basic: Option<(&str, &str)>) -> Answer {
        let change = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("redirect_uri", ""),
            ("code_verifier", ""),
        ];
        self.exchange(&change, basic).await
    }

    async fn revoke(&self, token: &str, secret: &str) -> Answer {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("token", token), ("client_id", "demo"), ("client_secret", secret)])
            .finish();
        ask(self.address, "POST", "/revoke", &[], &form).await
    }
}

fn text<'a>(tokens: &'a Value, name: &str) -> &'a str {
    tokens[name].as_str().unwrap_or_else(|| panic!("no {name} in {tokens}"))
}

fn claims(tokens: &Value) -> Value {
    let payload = text(tokens, "id_token").split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn refresh_tokens_come_with_the_scope_and_rotate() {
    let idp = Idp::start().await;
    let code = idp.code("alice").await;
    let without = idp.exchange(&[("code", &code)], BASIC).await.json();
    assert!(without.get("refresh_token").is_none());

    let first = idp.offline().await;
    let (then, mut token) = (claims(&first), text(&first, "refresh_token").to_owned());
    for round in 1..5 {
        idp.clock.advance(Duration::from_secs(300));
        let next = idp.refresh(&token, BASIC).await;
        assert_eq!(next.status, 200, "{}", next.body);
        let next = next.json();
        let now = claims(&next);
        for same in ["iss", "sub", "aud", "auth_time", "acr", "sid", "groups"] {
            assert_eq!(now[same], then[same], "{same}");
        }
        assert_eq!(now["iat"], START.0 + 300 * round);
        assert!(now.get("nonce").is_none());
        assert_eq!(idp.user_info(text(&next, "access_token")).await.status, 200);
        assert_ne!(text(&next, "refresh_token"), token);
        token = text(&next, "refresh_token").to_owned();
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_seen_twice_ends_its_grant() {
    let idp = Idp::start().await;
    let first = idp.offline().await;
    let old = text(&first, "refresh_token");
    let next = idp.refresh(old, BASIC).await.json();
    assert_eq!(idp.refresh(old, BASIC).await.json()["error"], "invalid_grant");
    assert_eq!(idp.refresh(text(&next, "refresh_token"), BASIC).await.json()["error"], "invalid_grant");
    assert_eq!(idp.user_info(text(&next, "access_token")).await.status, 401);
}

#[tokio::test]
async fn a_code_that_is_seen_twice_ends_its_grant() {
    let idp = Idp::start().await;
    let code = idp.submit(OFFLINE, &[("user", "alice")], "").await.sent_back().remove("code").unwrap();
    let tokens = idp.exchange(&[("code", &code)], BASIC).await.json();
    assert_eq!(idp.exchange(&[("code", &code)], BASIC).await.json()["error"], "invalid_grant");
    assert_eq!(idp.refresh(text(&tokens, "refresh_token"), BASIC).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn refreshes_that_are_refused() {
    let idp = Idp::start().await;
    let tokens = idp.offline().await;
    let token = text(&tokens, "refresh_token");
    for (presented, basic, error) in [
        ("", BASIC, "invalid_request"),
        ("x", BASIC, "invalid_grant"),
        ("x.y", BASIC, "invalid_grant"),
        (token, None, "invalid_client"),
        (token, Some(("other", SECRET)), "invalid_grant"),
    ] {
        assert_eq!(idp.refresh(presented, basic).await.json()["error"], error, "{presented} {basic:?}");
    }
    // None of them has cost the rightful owner anything.
    assert_eq!(idp.refresh(token, BASIC).await.status, 200);
    let late = idp.offline().await;
    idp.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(idp.refresh(text(&late, "refresh_token"), BASIC).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn revocation_ends_what_a_token_was_given_for() {
    let idp = Idp::start().await;
    let tokens = idp.offline().await;
    let (refresh, access) = (text(&tokens, "refresh_token"), text(&tokens, "access_token"));
    assert_eq!(idp.revoke(refresh, "wrong").await.status, 401);
    assert_eq!(idp.revoke("", SECRET).await.status, 400);
    assert_eq!(idp.revoke("unknown.token", SECRET).await.status, 200);
    assert_eq!(idp.user_info(access).await.status, 200);
    assert_eq!(idp.revoke(refresh, SECRET).await.status, 200);
    assert_eq!(idp.user_info(access).await.status, 401);
    assert_eq!(idp.refresh(refresh, BASIC).await.json()["error"], "invalid_grant");

    let tokens = idp.offline().await;
    assert_eq!(idp.revoke(text(&tokens, "access_token"), SECRET).await.status, 200);
    assert_eq!(idp.user_info(text(&tokens, "access_token")).await.status, 401);
    assert_eq!(idp.refresh(text(&tokens, "refresh_token"), BASIC).await.status, 200);
}
