//! Refreshes from end to end: what ends a session, what does not, and what is asked of the provider.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::web::testing::Reply;

use super::testing::TestKey;
use super::testing_idp::{
    ACCESS_TOKEN, Idp, NEXT_REFRESH_TOKEN, NOW, REFRESH_TOKEN, Script, asking, callback, needing, stale,
};
use super::*;

type Change = fn(&mut Script);

fn ended(outcome: &Result<Refreshed, RefreshError>) -> Option<&'static str> {
    match outcome {
        Err(error @ RefreshError::Ended(_)) => Some(error.code()),
        _ => None,
    }
}

fn unavailable(outcome: &Result<Refreshed, RefreshError>) -> Option<&'static str> {
    match outcome {
        Err(error @ RefreshError::Unavailable(_)) => Some(error.code()),
        _ => None,
    }
}

#[tokio::test]
async fn a_login_keeps_what_it_can_be_refreshed_with() {
    for (answer, claims, due) in [
        (json!({}), json!({}), None),
        (json!({"refresh_token": ""}), json!({}), None),
        (json!({"refresh_token": REFRESH_TOKEN}), json!({}), Some(300)),
        (json!({"refresh_token": REFRESH_TOKEN}), json!({"exp": NOW + 36_000}), Some(3600)),
        (json!({"refresh_token": REFRESH_TOKEN, "expires_in": 60}), json!({}), Some(60)),
        (json!({"refresh_token": REFRESH_TOKEN, "expires_in": 0}), json!({"exp": NOW + 36_000}), Some(300)),
        (json!({"refresh_token": REFRESH_TOKEN, "expires_in": null}), json!({"exp": NOW + 30}), Some(30)),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| (script.answer, script.claims) = (answer.clone(), claims.clone()));
        let identity = idp.login(&idp.provider()).await.unwrap();
        let nonce = idp.script.lock().unwrap().nonce.clone();
        assert_eq!(identity.nonce, nonce);
        assert_eq!(identity.id_token.expose().split('.').count(), 3);
        let grant = identity.grant.as_ref();
        assert_eq!(grant.map(|grant| grant.expires_at), due.map(|due| UnixTime(NOW + due)), "{answer}");
        assert!(grant.is_none_or(|grant| grant.refresh_token.expose() == REFRESH_TOKEN));
        assert!(!format!("{identity:?} {grant:?}").contains(REFRESH_TOKEN));
    }
}

#[tokio::test]
async fn rp_34_answers_as_real_providers_give_them() {
    // answer, claims of its ID token, lifetime, the refresh token then, whether there is an ID token
    let rows: Vec<(&str, Value, Value, u64, &str, bool)> = vec![
        ("all", json!({}), json!({}), 300, NEXT_REFRESH_TOKEN, true),
        ("long ID token", json!({}), json!({"exp": NOW + 36_000}), 600, NEXT_REFRESH_TOKEN, true),
        ("no ID token", json!({"id_token": null}), json!({}), 600, NEXT_REFRESH_TOKEN, false),
        ("empty ID token", json!({"id_token": ""}), json!({}), 600, NEXT_REFRESH_TOKEN, false),
        ("no refresh token", json!({"refresh_token": null}), json!({}), 300, REFRESH_TOKEN, true),
        ("neither", json!({"id_token": null, "refresh_token": null}), json!({}), 600, REFRESH_TOKEN, false),
        ("text", json!({"expires_in": "120"}), json!({}), 120, NEXT_REFRESH_TOKEN, true),
        ("absent", json!({"expires_in": null, "id_token": null}), json!({}), 300, NEXT_REFRESH_TOKEN, false),
        ("zero", json!({"expires_in": 0, "id_token": null}), json!({}), 300, NEXT_REFRESH_TOKEN, false),
        ("one second", json!({"expires_in": 1}), json!({}), 10, NEXT_REFRESH_TOKEN, true),
        ("slow clock", json!({}), json!({"exp": NOW - 30}), 10, NEXT_REFRESH_TOKEN, true),
        ("no type", json!({"token_type": null}), json!({}), 300, NEXT_REFRESH_TOKEN, true),
        ("no access token", json!({"access_token": null}), json!({}), 300, NEXT_REFRESH_TOKEN, true),
        ("nonce", json!({}), json!({"nonce": "n"}), 300, NEXT_REFRESH_TOKEN, true),
        ("aud array", json!({}), json!({"aud": ["me"]}), 300, NEXT_REFRESH_TOKEN, true),
    ];
    for (name, answer, claims, lifetime, refresh_token, has_id_token) in rows {
        let idp = Idp::start().await;
        idp.script(|script| (script.refresh_answer, script.refresh_claims) = (answer, claims));
        let refreshed = idp.provider().refresh(stale()).await.unwrap();
        assert_eq!(refreshed.grant.received_at, UnixTime(NOW), "{name}");
        assert_eq!(refreshed.grant.expires_at, UnixTime(NOW + lifetime), "{name}");
        assert_eq!(refreshed.grant.refresh_token.expose(), refresh_token, "{name}");
        assert_eq!(refreshed.id_token.is_some(), has_id_token, "{name}");
        assert_eq!(refreshed.claims.contains_key("sub"), has_id_token, "{name}");
        assert_eq!(refreshed.claims.get("groups"), (!has_id_token).then_some(&json!(["old"])), "{name}");
        assert_eq!(idp.server.count("/token"), 1, "{name}");
    }
}

#[tokio::test]
async fn the_request_is_what_it_must_be() {
    for method in [ClientAuthentication::Basic, ClientAuthentication::Post] {
        let idp = Idp::start().await;
        let (provider, ..) = idp.provider_with(|config| config.client_authentication = method);
        provider.refresh(stale()).await.unwrap();
        let asked = idp.server.asked().into_iter().find(|asked| asked.target == "/token").unwrap();
        let mut names: Vec<_> =
            url::form_urlencoded::parse(asked.body.as_bytes()).map(|(name, _)| name.into_owned()).collect();
        names.sort_unstable();
        let basic = method == ClientAuthentication::Basic;
        assert_eq!(asked.head.contains("Basic "), basic);
        match basic {
            true => assert_eq!(names, ["grant_type", "refresh_token"]),
            false => assert_eq!(names, ["client_id", "client_secret", "grant_type", "refresh_token"]),
        }
    }
}

#[tokio::test]
async fn rp_33_what_ends_a_session() {
    let rows: Vec<(&str, &str, Change)> = vec![
        ("other iss", "iss", |s| s.refresh_claims = json!({"iss": "https://evil.example"})),
        ("other sub", "sub", |s| s.refresh_claims = json!({"sub": "mallory"})),
        ("no sub", "sub", |s| s.refresh_claims = json!({"sub": null})),
        ("other aud", "aud", |s| s.refresh_claims = json!({"aud": "other"})),
        ("more aud", "aud", |s| s.refresh_claims = json!({"aud": ["me", "other"]})),
        ("other azp", "azp", |s| s.refresh_claims = json!({"azp": "other"})),
        ("other nonce", "nonce", |s| s.refresh_claims = json!({"nonce": "another"})),
        ("expired", "exp", |s| s.refresh_claims = json!({"exp": NOW - 301})),
        ("no iat", "claim", |s| s.refresh_claims = json!({"iat": null})),
        ("alg none", "alg", |s| s.header = json!({"alg": "none"})),
        ("logout token", "typ", |s| s.header = json!({"typ": "logout+jwt"})),
        ("unknown key", "kid", |s| s.header = json!({"kid": "unknown"})),
        ("no JWT", "malformed", |s| s.spoil = |_| "eyJ".to_owned()),
        ("signature", "signature", |s| s.spoil = |token| format!("{}AAAA", &token[..token.len() - 4])),
        ("invalid_grant", "invalid_grant", |s| {
            let refusal = json!({"error": "invalid_grant", "error_description": REFRESH_TOKEN});
            s.replies.insert("/token", Reply::Full(400, vec![], refusal.to_string().into_bytes()));
        }),
        ("UserInfo of another", "userinfo_sub", |s| s.user_info = json!({"sub": "mallory"})),
        ("UserInfo of another, no ID token", "userinfo_sub", |s| {
            s.user_info = json!({"sub": "mallory"});
            s.refresh_answer = json!({"id_token": null});
        }),
    ];
    for (name, code, change) in rows {
        let idp = Idp::start().await;
        idp.script(change);
        let (provider, ..) = idp.provider_with(|config| config.needed_claims = needing(&["groups"]));
        let outcome = provider.refresh(stale()).await;
        assert_eq!(ended(&outcome), Some(code), "{name}: {outcome:?}");
        assert_eq!(idp.server.count("/token"), 1, "{name}");
        let error = outcome.unwrap_err();
        let shown = format!("{error:?} {error}");
        assert!([REFRESH_TOKEN, NEXT_REFRESH_TOKEN, ACCESS_TOKEN].iter().all(|it| !shown.contains(it)));
        // A verdict on one session is none on the provider.
        idp.script(|script| drop(script.replies.remove("/token")));
        assert_ne!(unavailable(&provider.refresh(stale()).await), Some("paused"), "{name}");
    }
}

#[tokio::test]
async fn what_counts_as_a_provider_that_is_down() {
    let error = |status: u16, code: &str| {
        Reply::Full(status, vec![], json!({"error": code}).to_string().into_bytes())
    };
    let rows = [
        ("invalid_client", error(401, "invalid_client")),
        ("unauthorized_client", error(400, "unauthorized_client")),
        ("invalid_request", error(400, "invalid_request")),
        ("429", error(429, "slow_down")),
        ("429 with invalid_grant", error(429, "invalid_grant")),
        ("500", Reply::status(500)),
        ("503 with invalid_grant", error(503, "invalid_grant")),
        ("200 with an error", Reply::json(json!({"error": "invalid_grant"}))),
        ("200 with nothing", Reply::json("{}")),
        ("array", Reply::json("[]")),
        (
            "html",
            Reply::Full(200, vec![("Content-Type".to_owned(), "text/html".to_owned())], b"<p>".to_vec()),
        ),
        ("endless", Reply::Endless),
        ("redirect", Reply::redirect(307, "/elsewhere")),
        ("hangup", Reply::Hangup),
    ];
    for (name, reply) in rows {
        let idp = Idp::start().await;
        let (provider, _, heard) = idp.provider_with(|_| ());
        idp.script(|script| drop(script.replies.insert("/token", reply)));
        let outcome = provider.refresh(stale()).await;
        assert_eq!(unavailable(&outcome), Some("token_endpoint"), "{name}: {outcome:?}");
        // Once, and the next are not even sent.
        for _ in 0..20 {
            assert_eq!(unavailable(&provider.refresh(stale()).await), Some("paused"), "{name}");
        }
        assert_eq!((idp.server.count("/token"), idp.server.count("/elsewhere")), (1, 0), "{name}");
        let failures =
            heard.lock().unwrap().iter().filter(|it| matches!(it, Event::RefreshFailed { .. })).count();
        assert_eq!(failures, 1, "{name}");
    }
}

#[tokio::test]
async fn an_outage_is_probed_once_a_second_and_ends_by_itself() {
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|_| ());
    idp.script(|script| drop(script.replies.insert("/token", Reply::status(503))));
    assert!(provider.refresh(stale()).await.is_err());
    idp.script(|script| drop(script.replies.remove("/token")));
    let begin = Instant::now();
    while provider.refresh(stale()).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(3));
        tokio::task::yield_now().await;
    }
    assert!(begin.elapsed() > Duration::from_millis(900));
    assert_eq!(idp.server.count("/token"), 2);
    assert!(heard.lock().unwrap().contains(&Event::RefreshRecovered));
}

#[tokio::test]
async fn a_provider_that_was_never_found_is_looked_for() {
    let idp = Idp::start().await;
    idp.script(|script| drop(script.replies.insert("/.well-known/openid-configuration", Reply::status(503))));
    let provider = idp.provider();
    assert_eq!(unavailable(&provider.refresh(stale()).await), Some("unreachable"));
    assert_eq!(idp.server.count("/token"), 0);
}

#[tokio::test]
async fn claims_are_made_anew() {
    let groups = json!({"sub": "alice", "groups": ["new"]});
    let absent = json!({"sub": "alice"});
    let left_out = json!({"sub": "alice", "_claim_names": {"groups": "src1"}});
    let mute = json!({"id_token": null});
    // name, mode, whether the old groups came from UserInfo, answer, claims, UserInfo -> groups, from UserInfo
    type Row<'a> = (&'a str, UserInfoMode, bool, &'a Value, Value, &'a Value, Option<&'a str>, bool);
    let (auto, always, never) = (UserInfoMode::Auto, UserInfoMode::Always, UserInfoMode::Never);
    let (whole, broken) = (json!({}), json!([]));
    let rows: Vec<Row<'_>> = vec![
        ("in the token", auto, false, &whole, json!({"groups": ["token"]}), &groups, Some("token"), false),
        ("in both", always, false, &whole, json!({"groups": ["token"]}), &groups, Some("token"), false),
        ("only there", auto, false, &whole, json!({}), &groups, Some("new"), true),
        ("nowhere", auto, true, &whole, json!({}), &absent, None, false),
        ("not asked", never, true, &whole, json!({}), &groups, None, false),
        ("overage", auto, false, &whole, left_out.clone(), &absent, Some("old"), false),
        ("overage, helped", auto, false, &whole, left_out.clone(), &groups, Some("new"), true),
        ("UserInfo fails", auto, false, &whole, json!({}), &broken, Some("old"), false),
        (
            "fails, not needed",
            always,
            false,
            &whole,
            json!({"groups": ["token"]}),
            &broken,
            Some("token"),
            false,
        ),
        ("mute", auto, false, &mute, json!({}), &groups, Some("new"), true),
        ("mute, gone", auto, true, &mute, json!({}), &absent, None, false),
        ("mute, stays", auto, false, &mute, json!({}), &absent, Some("old"), false),
        ("mute, not asked", never, true, &mute, json!({}), &groups, Some("old"), true),
        ("mute, overage", auto, true, &mute, json!({}), &left_out, Some("old"), true),
        ("mute, fails", auto, true, &mute, json!({}), &broken, Some("old"), true),
    ];
    for (name, mode, was_from_user_info, answer, claims, user_info, expected, is_from_user_info) in rows {
        let idp = Idp::start().await;
        idp.script(|script| {
            (script.refresh_answer, script.refresh_claims) = (answer.clone(), claims);
            script.user_info = user_info.clone();
        });
        let (provider, _, heard) = idp.provider_with(|config| {
            config.user_info = mode;
            config.needed_claims = needing(&["groups"]);
        });
        let mut refresh = stale();
        if was_from_user_info {
            refresh.from_user_info = needing(&["groups"]);
        }
        let refreshed = provider.refresh(refresh).await.unwrap();
        let found = refreshed.claims.get("groups").map(|groups| groups[0].as_str().unwrap());
        assert_eq!(found, expected, "{name}");
        let from = match is_from_user_info {
            true => needing(&["groups"]),
            false => BTreeSet::new(),
        };
        assert_eq!(refreshed.from_user_info, from, "{name}");
        assert_eq!(refreshed.grant.refresh_token.expose(), NEXT_REFRESH_TOKEN, "{name}");
        let told = heard.lock().unwrap().iter().any(|event| matches!(event, Event::ClaimsKept { .. }));
        assert_eq!(
            told,
            name.contains("fails") && !name.contains("not needed") || name.ends_with("overage"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_new_refresh_token_is_not_lost_when_the_keys_cannot_be_had() {
    for bad in [Reply::status(500), Reply::Drip] {
        let idp = Idp::start().await;
        let (provider, _, heard) = idp.provider_with(|_| ());
        idp.login(&provider).await.unwrap();
        idp.script(|script| {
            script.replies.insert("/jwks", bad);
            script.header = json!({"kid": "rotated"});
        });
        let refreshed = provider.refresh(stale()).await.unwrap();
        assert_eq!(refreshed.grant.refresh_token.expose(), NEXT_REFRESH_TOKEN);
        assert_eq!(refreshed.grant.expires_at, UnixTime(NOW + 60), "soon again");
        assert!(refreshed.id_token.is_none(), "nothing unverified is handed out");
        assert_eq!(refreshed.claims, stale().claims);
        assert!(heard.lock().unwrap().iter().any(|event| matches!(event, Event::ClaimsKept { .. })));
    }
}

#[tokio::test]
async fn rp_22_a_key_that_is_new_at_a_refresh_is_fetched() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    provider.refresh(stale()).await.unwrap();
    let new: &'static TestKey = Box::leak(Box::new(TestKey::new("ES256", "new")));
    idp.script(|script| (script.keys, script.key) = (vec![new.jwk()], new));
    let refreshes = (0..20).map(|_| provider.refresh(stale()));
    for outcome in futures_util::future::join_all(refreshes).await {
        outcome.unwrap();
    }
    assert_eq!((idp.server.count("/jwks"), idp.server.count("/token")), (2, 21));
}

#[tokio::test]
async fn a_refresh_is_no_authentication() {
    let row = |known: Option<u64>, sent: Option<u64>| async move {
        let idp = Idp::start().await;
        idp.script(|script| script.refresh_claims = json!({"auth_time": sent, "acr": "mfa", "sid": "s2"}));
        let refresh = Refresh { auth_time: known.map(UnixTime), ..stale() };
        let id_token = idp.provider().refresh(refresh).await.unwrap().id_token.unwrap();
        assert_eq!((id_token.acr.as_deref(), id_token.sid.as_deref()), (Some("mfa"), Some("s2")));
        assert_eq!(id_token.expires_at, UnixTime(NOW + 300));
        id_token.auth_time.map(|at| at.0)
    };
    for (known, sent, believed) in [
        (None, None, None),
        (Some(NOW - 900), None, Some(NOW - 900)),
        (Some(NOW - 900), Some(NOW - 900), Some(NOW - 900)),
        (Some(NOW - 900), Some(NOW), Some(NOW - 900)),
        (Some(NOW - 900), Some(NOW - 1000), Some(NOW - 1000)),
        (None, Some(NOW - 900), Some(NOW - 900)),
    ] {
        assert_eq!(row(known, sent).await, believed, "{known:?} {sent:?}");
    }
}

#[tokio::test]
async fn a_slow_token_endpoint_is_waited_for_and_a_caller_that_leaves_stops_nothing() {
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|_| ());
    idp.login(&provider).await.unwrap();
    let answer = json!({"access_token": ACCESS_TOKEN, "refresh_token": NEXT_REFRESH_TOKEN});
    let slow = Reply::Late(Duration::from_millis(5500), Box::new(Reply::json(&answer)));
    idp.script(|script| drop(script.replies.insert("/token", slow)));
    let waited = provider.refresh(stale()).await.unwrap();
    assert_eq!(waited.grant.refresh_token.expose(), NEXT_REFRESH_TOKEN);

    let late = Reply::Late(Duration::from_millis(300), Box::new(Reply::status(503)));
    idp.script(|script| drop(script.replies.insert("/token", late)));
    let leaving = tokio::time::timeout(Duration::from_millis(100), provider.refresh(stale())).await;
    assert!(leaving.is_err());
    let begin = Instant::now();
    let failed = |event: &Event| matches!(event, Event::RefreshFailed { .. });
    while !heard.lock().unwrap().iter().any(failed) {
        assert!(begin.elapsed() < Duration::from_secs(5), "the call was given up");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_takes_no_more_than_its_share() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let (_, transaction) = idp.begin(&provider, asking("s")).await.unwrap();
    idp.script(|script| drop(script.replies.insert("/token", Reply::Silence)));
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move { provider.refresh(stale()).await })
        })
        .collect();
    let begin = Instant::now();
    while idp.server.count("/token") < MAX_REFRESHES {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    idp.script(|script| drop(script.replies.remove("/token")));
    let callback = callback("state=s&code=CODE");
    provider.finish(callback, transaction).await.unwrap();
    assert_eq!(idp.server.count("/token"), MAX_REFRESHES + 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn debug_shows_whose_refresh_it_is_and_no_token() {
    let shown = format!("{:?}", stale());
    assert!(shown.contains("alice") && !shown.contains(REFRESH_TOKEN), "{shown}");
    let (text, expires_at) = (Secret::new("the-id-token".to_owned()), UnixTime(7));
    let token = NewIdToken { text, expires_at, acr: None, auth_time: None, sid: None };
    assert_eq!(format!("{token:?}"), format!("NewIdToken {{ expires_at: {expires_at:?}, .. }}"));
}
