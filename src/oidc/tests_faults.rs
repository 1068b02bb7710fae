//! Providers that are down, slow or mad.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::web::testing::{Reply, Server};

use super::testing::config;
use super::testing_idp::{Idp, asking, callback, needing};
use super::*;

#[tokio::test]
async fn rp_27_bad_answers_of_every_endpoint() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{{\"a\":{deep}}}");
    let replies = [
        (
            "html",
            Reply::Full(200, vec![("Content-Type".to_owned(), "text/html".to_owned())], b"<html>".to_vec()),
        ),
        ("html error", Reply::Full(502, vec![], b"<html>Bad Gateway".to_vec())),
        ("empty", Reply::json("")),
        ("no content", Reply::status(204)),
        ("invalid UTF-8", Reply::Full(200, vec![], b"{\"issuer\":\"\xff\"}".to_vec())),
        ("huge", Reply::Endless),
        ("deep", Reply::json(&deep)),
        ("deep object", Reply::json(&deep_object)),
        ("array", Reply::json("[]")),
        ("null", Reply::json("null")),
        ("500", Reply::status(500)),
        ("redirect away", Reply::redirect(307, "http://127.0.0.1:1/")),
        ("hangup", Reply::Hangup),
    ];
    let endpoints = [
        ("/.well-known/openid-configuration", "unreachable"),
        ("/jwks", "jwks"),
        ("/token", "token_endpoint"),
        ("/userinfo", "userinfo"),
    ];
    for (path, code) in endpoints {
        for (name, reply) in &replies {
            let idp = Idp::start().await;
            idp.script(|script| drop(script.replies.insert(path, reply.clone())));
            let (provider, ..) = idp.provider_with(|config| config.needed_claims = needing(&["groups"]));
            let error = idp.login(&provider).await.unwrap_err();
            assert_eq!((error.kind(), error.code()), (Kind::Unavailable, code), "{path} {name}: {error}");
            assert!(error.retry_after().is_some());
        }
    }
}

#[tokio::test]
async fn rp_27_slow_endpoints_cost_five_seconds_at_most() {
    let begin = Instant::now();
    let logins =
        ["/.well-known/openid-configuration", "/jwks", "/token", "/userinfo"].map(|path| async move {
            let idp = Idp::start().await;
            idp.script(|script| drop(script.replies.insert(path, Reply::Drip)));
            let (provider, ..) = idp.provider_with(|config| config.needed_claims = needing(&["groups"]));
            assert_eq!(idp.login(&provider).await.unwrap_err().kind(), Kind::Unavailable, "{path}");
        });
    futures_util::future::join_all(logins).await;
    assert!(begin.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn rp_31_the_secret_is_not_sent_again() {
    let other = Server::plain(|_| Reply::json("{}")).await;
    for to in [other.url("/token"), "/elsewhere".to_owned()] {
        for method in [ClientAuthentication::Basic, ClientAuthentication::Post] {
            let idp = Idp::start().await;
            idp.script(|script| drop(script.replies.insert("/token", Reply::redirect(307, to.clone()))));
            let (provider, ..) = idp.provider_with(|config| config.client_authentication = method);
            let error = idp.login(&provider).await.unwrap_err();
            assert_eq!(error.code(), "token_endpoint");
            assert_eq!((idp.server.count("/token"), idp.server.count("/elsewhere")), (1, 0));
        }
    }
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn rp_21_and_rp_32_a_mad_document_makes_the_provider_unusable() {
    for (name, document) in [
        ("issuer", json!({"issuer": "https://idp.example"})),
        ("file", json!({"token_endpoint": "file:///etc/passwd"})),
        ("plain away", json!({"jwks_uri": "http://203.0.113.1/jwks"})),
        ("script", json!({"authorization_endpoint": "javascript:alert(1)"})),
        ("missing", json!({"token_endpoint": null})),
        ("algorithms", json!({"id_token_signing_alg_values_supported": ["none"]})),
    ] {
        let idp = Idp::start().await;
        let (provider, _, heard) = idp.provider_with(|_| ());
        assert_eq!(provider.status(), Status::Discovering);
        idp.script(|script| script.document = document);
        let error = idp.login(&provider).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "unusable"), "{name}: {error}");
        assert!(matches!(provider.status(), Status::Unusable { .. }), "{name}");
        assert!(
            matches!(heard.lock().unwrap()[..], [Event::DiscoveryFailed { keeps_old: false, .. }]),
            "{name}"
        );
        assert_eq!(idp.server.asked().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn discovery_is_shared_and_not_hammered() {
    let idp = Idp::start().await;
    idp.script(|script| drop(script.replies.insert("/.well-known/openid-configuration", Reply::status(503))));
    let provider = idp.provider();
    let begins = (0..100).map(|_| provider.begin(asking("s")));
    for outcome in futures_util::future::join_all(begins).await {
        assert_eq!(outcome.unwrap_err().code(), "unreachable");
    }
    assert_eq!(provider.begin(asking("s")).await.unwrap_err().code(), "unreachable");
    assert_eq!(idp.server.asked().len(), 1);
    assert!(matches!(provider.status(), Status::Unreachable { .. }));

    // It comes back: found within a second or so, by the next login that asks.
    idp.script(|script| drop(script.replies.remove("/.well-known/openid-configuration")));
    let begin = Instant::now();
    while provider.begin(asking("s")).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(3));
        tokio::task::yield_now().await;
    }
    assert_eq!(idp.server.count("/.well-known/openid-configuration"), 2);
    idp.login(&provider).await.unwrap();
}

#[tokio::test]
async fn rel_20_a_storm_of_first_logins_is_one_discovery() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let begins = (0..100).map(|_| provider.begin(asking("s")));
    for outcome in futures_util::future::join_all(begins).await {
        outcome.unwrap();
    }
    assert_eq!(idp.server.count("/.well-known/openid-configuration"), 1);
}

#[tokio::test]
async fn rel_01_the_background_loop_finds_a_provider_that_comes_later() {
    let idp = Idp::start().await;
    let address = idp.server.address;
    let (provider, _, heard) = idp.provider_with(|_| ());
    drop(idp);
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let _ = &heard;
    let looping = {
        let config = config(provider.issuer());
        let events: Events = Arc::new(move |event| drop(told.send(event)));
        Provider::new(config, Clock::system(), Handle::current(), events).unwrap()
    };
    let task = tokio::spawn(Arc::clone(&looping).keep_discovered());
    assert!(matches!(events.recv().await, Some(Event::DiscoveryFailed { .. })));
    assert!(matches!(looping.status(), Status::Unreachable { .. }));
    let _idp = Idp::start_at(address).await;
    assert_eq!(events.recv().await, Some(Event::Discovered));
    assert!(matches!(events.recv().await, Some(Event::KeysChanged { .. })));
    assert_eq!(looping.status(), Status::Ready);
    task.abort();
}

#[tokio::test]
async fn a_provider_that_went_down_is_noticed_before_the_browser_is_sent() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let (url, transaction) = idp.begin(&provider, asking("s")).await.unwrap();
    assert!(url.as_str().starts_with(&idp.server.url("/authorize")));
    drop(idp);
    let error = provider.finish(callback("state=s&code=CODE"), transaction).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "token_endpoint"));
    // The last sign of life is at most five seconds old for a while.
    let begin = Instant::now();
    let error = loop {
        match provider.begin(asking("s")).await {
            Err(error) => break error,
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        assert!(begin.elapsed() < Duration::from_secs(7));
    };
    assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "unreachable"));
    assert_eq!(provider.status(), Status::Ready);
}

/// Why no login could begin is known without asking anybody, and told where somebody asks how the provider is.
#[tokio::test]
async fn what_is_known_of_an_outage_is_told() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    assert_eq!(provider.origin(), idp.server.url("").trim_end_matches('/'));
    assert_eq!(format!("{provider:?}"), format!("Provider {{ issuer: {:?}, .. }}", provider.issuer()));
    assert!(provider.last_problem().is_none() && provider.outage().is_none() && !provider.offers_logout());
    idp.script(|script| drop(script.replies.insert("/.well-known/openid-configuration", Reply::status(503))));
    let error = provider.begin(asking("s")).await.unwrap_err();
    assert_eq!(provider.outage().map(|outage| outage.to_string()), Some(error.to_string()));
    let problem = provider.last_problem().unwrap();
    assert!(error.to_string().contains(&problem) && problem.contains("503"), "{problem}");

    let idp = Idp::start().await;
    idp.script(|script| script.document = json!({"end_session_endpoint": format!("{}/logout", script.base)}));
    let provider = idp.provider();
    provider.begin(asking("s")).await.unwrap();
    assert!(provider.outage().is_none() && provider.last_problem().is_none() && provider.offers_logout());
}

/// Metrics and log searches go by these.
#[test]
fn errors_keep_the_code_of_their_cause() {
    let refused = Error::from(Refusal::Nonce);
    assert_eq!(RefreshError::from(refused.clone()).code(), "nonce");
    assert_eq!(RefreshError::from(Error::Busy).code(), "busy");
    assert_eq!(LogoutTokenError::from(refused).code(), "nonce");
    assert_eq!(LogoutTokenError::from(Error::Keys("none".to_owned())).code(), "jwks");
}
