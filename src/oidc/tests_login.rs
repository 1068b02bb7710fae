//! Logins from end to end: what is sent, what comes back, what is made of it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::UnixTime;

use super::testing::TestKey;
use super::testing_idp::{ACCESS_TOKEN, Idp, NOW, asking, callback, needing};
use super::*;

#[tokio::test]
async fn rp_01_a_whole_login_with_every_kind_of_key() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    for key in TestKey::all() {
        idp.script(|script| script.key = key);
        let identity = idp.login(&provider).await.unwrap();
        assert_eq!(
            (identity.subject.as_str(), identity.sid.as_deref()),
            ("alice", Some("s1")),
            "{}",
            key.name()
        );
        assert_eq!(identity.id_token_expires_at, UnixTime(NOW + 300));
    }
    assert_eq!(idp.server.count("/token"), TestKey::all().len());
    assert_eq!(idp.server.count("/.well-known/openid-configuration"), 1);
    assert_eq!(idp.server.count("/jwks"), 1);
    assert_eq!(idp.server.count("/userinfo"), 0);
    assert_eq!(provider.status(), Status::Ready);
}

#[tokio::test]
async fn the_authorization_request_has_what_it_must_have() {
    let idp = Idp::start().await;
    let (provider, ..) = idp.provider_with(|config| {
        config.authorization_parameters = vec![
            ("prompt".to_owned(), "login".to_owned()),
            ("max_age".to_owned(), "600".to_owned()),
            ("acr_values".to_owned(), "mfa phr".to_owned()),
        ];
    });
    let (url, _) = provider.begin(asking("a state/with?everything")).await.unwrap();
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let names: BTreeSet<_> = query.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), query.len(), "nothing twice: {url}");
    let query: HashMap<_, _> = query.into_iter().collect();
    for (name, value) in [
        ("tenant", "a"),
        ("response_type", "code"),
        ("client_id", "me"),
        ("redirect_uri", "https://app.example/aporeto/oidc/callback"),
        ("scope", "openid email"),
        ("state", "a state/with?everything"),
        ("code_challenge_method", "S256"),
        ("prompt", "login"),
        ("max_age", "600"),
        ("acr_values", "mfa phr"),
    ] {
        assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(query["nonce"].len() >= 22 && query["code_challenge"].len() == 43);
    assert_eq!(query.len(), 12);

    // The rule's wish goes before the configured one, and the stricter age wins.
    let begin = Begin {
        state: "s".to_owned(),
        acr_values: vec!["gold".to_owned()],
        max_age: Some(Duration::from_secs(60)),
    };
    let (url, _) = provider.begin(begin).await.unwrap();
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    assert_eq!((query["acr_values"].as_str(), query["max_age"].as_str()), ("gold", "60"));
}

#[tokio::test]
async fn nothing_is_ever_the_same_twice() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let (url, _) = provider.begin(asking("s")).await.unwrap();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert!(seen.insert(query["nonce"].clone()) && seen.insert(query["code_challenge"].clone()));
    }
}

#[tokio::test]
async fn rp_19_the_callback_comes_from_the_provider_that_was_asked() {
    for (announced, iss, code) in [
        (false, None, None),
        (false, Some("SELF"), None),
        (false, Some("https://evil.example"), Some("callback_iss")),
        (false, Some("SELF/"), Some("callback_iss")),
        (false, Some(""), Some("callback_iss")),
        (true, None, Some("callback_iss")),
        (true, Some("SELF"), None),
        (true, Some("https://evil.example"), Some("callback_iss")),
    ] {
        let idp = Idp::start().await;
        idp.script(|s| s.document = json!({"authorization_response_iss_parameter_supported": announced}));
        let provider = idp.provider();
        for outcome in ["code=CODE", "error=access_denied"] {
            let (_, transaction) = idp.begin(&provider, asking("s")).await.unwrap();
            let iss = iss
                .map(|iss| format!("&iss={}", iss.replace("SELF", &idp.server.url(""))))
                .unwrap_or_default();
            let result = provider.finish(callback(&format!("state=s&{outcome}{iss}")), transaction).await;
            let expected = match (code, outcome) {
                (None, "code=CODE") => None,
                (None, _) => Some("denied"),
                (code, _) => code,
            };
            assert_eq!(result.err().map(|error| error.code()), expected, "{announced} {iss} {outcome}");
        }
        assert_eq!(idp.server.count("/token"), usize::from(code.is_none()));
    }
}

#[tokio::test]
async fn rp_24_user_info() {
    type Row<'a> = (&'a str, UserInfoMode, &'a [&'a str], Value, Result<bool, &'a str>, usize);
    let rows: Vec<Row<'_>> = vec![
        // needed, answer -> whether groups are there, calls
        ("needed", UserInfoMode::Auto, &["groups"], json!({"sub": "alice", "groups": ["a"]}), Ok(true), 1),
        ("needed, not there", UserInfoMode::Auto, &["groups"], json!({"sub": "alice"}), Ok(false), 1),
        ("not needed", UserInfoMode::Auto, &["sid"], json!({"sub": "alice", "groups": ["a"]}), Ok(false), 0),
        ("always", UserInfoMode::Always, &[], json!({"sub": "alice", "groups": ["a"]}), Ok(true), 1),
        ("never", UserInfoMode::Never, &["groups"], json!({"sub": "alice", "groups": ["a"]}), Ok(false), 0),
        ("other sub", UserInfoMode::Auto, &["groups"], json!({"sub": "mallory"}), Err("userinfo_sub"), 1),
        (
            "other sub, not needed",
            UserInfoMode::Always,
            &[],
            json!({"sub": "mallory"}),
            Err("userinfo_sub"),
            1,
        ),
        ("no sub", UserInfoMode::Auto, &["groups"], json!({"groups": ["a"]}), Err("userinfo"), 1),
        ("no sub, not needed", UserInfoMode::Always, &[], json!({"groups": ["a"]}), Ok(false), 1),
        ("array", UserInfoMode::Auto, &["groups"], json!(["groups"]), Err("userinfo"), 1),
        ("array, not needed", UserInfoMode::Always, &[], json!(["groups"]), Ok(false), 1),
        ("signed", UserInfoMode::Auto, &["groups"], json!("eyJ.e30.AAAA"), Err("userinfo"), 1),
    ];
    for (name, mode, needed, answer, outcome, calls) in rows {
        let idp = Idp::start().await;
        idp.script(|script| script.user_info = answer);
        let (provider, ..) = idp.provider_with(|config| {
            config.user_info = mode;
            config.needed_claims = needing(needed);
        });
        let result = idp.login(&provider).await;
        let result =
            result.as_ref().map(|identity| identity.claims.contains_key("groups")).map_err(Error::code);
        assert_eq!(result, outcome, "{name}");
        assert_eq!(idp.server.count("/userinfo"), calls, "{name}");
        let query = idp.server.asked().iter().any(|asked| asked.target.contains(ACCESS_TOKEN));
        assert!(!query, "the token goes into the header only");
    }
}

#[tokio::test]
async fn overage_is_named_unless_user_info_helps() {
    let left_out =
        json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}});
    for (user_info, needed, code) in [
        (json!({"sub": "alice"}), "groups", Some("overage")),
        (json!({"sub": "alice", "groups": ["a"]}), "groups", None),
        (json!({"sub": "alice"}), "roles", None),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| {
            script.claims = left_out.clone();
            script.user_info = user_info;
        });
        let (provider, ..) = idp.provider_with(|config| config.needed_claims = needing(&[needed]));
        let outcome = idp.login(&provider).await;
        assert_eq!(outcome.as_ref().err().map(Error::code), code);
        if let Err(error) = outcome {
            assert!(error.to_string().contains("`groups`"));
        }
    }
}

#[tokio::test]
async fn step_up_is_verified() {
    for (claims, acr, age, kind) in [
        (json!({"acr": "mfa"}), vec!["mfa"], None, None),
        (json!({"acr": "pwd"}), vec!["mfa"], None, Some(Kind::StepUpNotMet)),
        (json!({}), vec!["mfa"], None, Some(Kind::StepUpNotMet)),
        (json!({"auth_time": NOW - 5}), vec![], Some(10), None),
        (json!({"auth_time": NOW - 500}), vec![], Some(10), Some(Kind::StepUpNotMet)),
        (json!({}), vec![], Some(10), Some(Kind::StepUpNotMet)),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| script.claims = claims.clone());
        let (provider, ..) = idp.provider_with(|config| config.user_info = UserInfoMode::Always);
        let begin = Begin {
            state: "s".to_owned(),
            acr_values: acr.iter().map(|acr| (*acr).to_owned()).collect(),
            max_age: age.map(Duration::from_secs),
        };
        let (_, transaction) = idp.begin(&provider, begin).await.unwrap();
        let outcome = provider.finish(callback("state=s&code=CODE"), transaction).await;
        assert_eq!(outcome.as_ref().err().map(Error::kind), kind, "{claims} {acr:?} {age:?}");
        assert_eq!(idp.server.count("/userinfo"), usize::from(kind.is_none()));
    }
}

#[tokio::test]
async fn a_transaction_of_another_provider_is_refused() {
    let (idp, other) = (Idp::start().await, Idp::start().await);
    let provider = idp.provider();
    let (_, transaction) = other.begin(&other.provider(), asking("s")).await.unwrap();
    let error = provider.finish(callback("state=s&code=CODE"), transaction).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Browser, "callback"));
    assert_eq!(idp.server.count("/token"), 0);
}

#[tokio::test]
async fn rel_11_the_clock_may_be_a_minute_off() {
    for (offset, good) in [(-45, true), (45, true), (-300, false), (300 + 61, false)] {
        let idp = Idp::start().await;
        let (provider, hand, _) = idp.provider_with(|_| ());
        hand.set(UnixTime(NOW.checked_add_signed(offset).unwrap()));
        assert_eq!(idp.login(&provider).await.is_ok(), good, "{offset}");
    }
}
