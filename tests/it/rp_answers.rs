//! RP-21, RP-27, RP-31, RP-32: what the provider's endpoints may answer, and where its metadata may point.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::expect::{accepted_login, no_session, page, refused_login};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Idp, Reply};
use crate::support::stage::Stage;

fn good() -> Behaviour {
    Behaviour::good(Algorithm::Es256)
}

/// Answers that no provider should give.
fn mad_answers() -> Vec<(&'static str, Reply)> {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    vec![
        ("HTML", Reply::text(200, "text/html", "<html>login here</html>")),
        ("empty", Reply::text(200, "application/json", "")),
        ("204", Reply::text(204, "application/json", "")),
        ("500", Reply::text(500, "application/json", "{}")),
        ("invalid UTF-8", Reply::text(200, "application/json", &b"{\"id_token\":\"\xff\xfe\"}"[..])),
        ("deeply nested", Reply::text(200, "application/json", nested)),
        ("50 MB", Reply::Huge(50_000_000)),
        ("cut", Reply::Cut),
        ("a byte a second", Reply::Drip),
        ("nothing", Reply::Hang),
    ]
}

/// What the proxy may need for its answer: its own bound for the provider is 5 s.
const BOUND: Duration = Duration::from_secs(7);

#[tokio::test]
async fn a_mad_token_endpoint_is_survived() {
    let stage = Stage::usual().await;
    accepted_login(&stage).await;
    let memory = stage.proxy.memory();
    let tries = mad_answers().into_iter().map(|(what, reply)| {
        let stage = &stage;
        async move {
            let mut browser = stage.browser();
            let callback = browser.authorize(&stage.url("/app/")).await;
            (what, reply, browser, callback)
        }
    });
    for (what, reply, mut browser, callback) in join_all(tries).await {
        eprintln!("case: {what}");
        stage.idp.change(|current| current.token_reply = Some(reply));
        let started = Instant::now();
        let answer = browser.navigate(callback.as_str()).await;
        assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
        page(&answer, 503);
        assert_ne!(answer.header("retry-after"), "", "{what}");
        no_session(&stage, &mut browser, &answer).await;
    }
    let grown = stage.proxy.memory().saturating_sub(memory);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    stage.idp.change(|current| current.token_reply = None);
    accepted_login(&stage).await;
}

/// `invalid_grant` and the like at the callback: an answer, never a second try.
#[tokio::test]
async fn a_refusing_token_endpoint_is_asked_once() {
    let stage = Stage::usual().await;
    for error in ["invalid_grant", "invalid_client", "server_error"] {
        stage.idp.change(|current| current.token_reply = Some(Reply::json(400, &json!({ "error": error }))));
        let mut browser = stage.browser();
        let before = stage.idp.count(&Endpoint::Token);
        let answer = stage.login(&mut browser, "/app/").await;
        assert!((400..=503).contains(&answer.status), "{error}: {answer:?}");
        assert_eq!(stage.idp.count(&Endpoint::Token), before + 1, "{error}");
        no_session(&stage, &mut browser, &answer).await;
    }
}

#[tokio::test]
async fn mad_keys_are_survived() {
    let tries = mad_answers().into_iter().map(|(what, reply)| async move {
        let mut behaviour = good();
        behaviour.jwks_reply = Some(reply);
        let stage = Stage::misbehaving(behaviour).await;
        let mut browser = stage.browser();
        let callback = browser.authorize(&stage.url("/app/")).await;
        let started = Instant::now();
        let answer = browser.navigate(callback.as_str()).await;
        assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
        page(&answer, 503);
        no_session(&stage, &mut browser, &answer).await;
        assert_eq!(stage.idp.count(&Endpoint::UserInfo), 0, "{what}");
        stage
    });
    join_all(tries).await;
}

#[tokio::test]
async fn mad_metadata_is_survived() {
    let tries = mad_answers().into_iter().map(|(what, reply)| async move {
        let mut behaviour = good();
        behaviour.discovery_reply = Some(reply);
        let stage = Stage::misbehaving(behaviour).await;
        let mut browser = stage.browser();
        browser.navigate(&stage.url("/public/")).await.expect(200);
        let started = Instant::now();
        let answer = browser.navigate(&stage.url("/app/")).await;
        assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
        page(&answer, 503);
        assert_ne!(answer.header("retry-after"), "", "{what}");
        assert_eq!(stage.idp.count(&Endpoint::Authorize), 0, "{what}");
        stage
    });
    join_all(tries).await;
}

/// RP-21.
#[tokio::test]
async fn the_metadata_are_of_this_issuer() {
    let issuer = |change: fn(&str) -> Value| {
        good().discovery(move |document| document["issuer"] = change(document["issuer"].as_str().unwrap()))
    };
    let wrong = vec![
        ("a slash", issuer(|issuer| json!(format!("{issuer}/")))),
        ("another port", issuer(|issuer| json!(format!("{issuer}1")))),
        ("another case", issuer(|issuer| json!(issuer.to_uppercase()))),
        ("another scheme", issuer(|issuer| json!(issuer.replace("http:", "https:")))),
        ("missing", issuer(|_| Value::Null)),
    ];
    join_all(wrong.into_iter().map(|(what, behaviour)| async move {
        let stage = Stage::misbehaving(behaviour).await;
        let answer = stage.browser().navigate(&stage.url("/app/")).await;
        page(&answer, 503);
        assert_eq!(stage.idp.count(&Endpoint::Authorize), 0, "{what}");
        assert_eq!(stage.admin("/readyz?service=app").await.status, 503, "{what}");
        stage
    }))
    .await;
}

/// RP-32: endpoints that are not where an endpoint may be. Nothing is sent there.
#[tokio::test]
async fn endpoints_are_web_addresses() {
    let endpoint = |name: &'static str, url: &'static str| {
        (name, url, good().discovery(move |document| document[name] = json!(url)))
    };
    let wrong = vec![
        endpoint("jwks_uri", "file:///etc/passwd"),
        endpoint("token_endpoint", "file:///etc/passwd"),
        endpoint("token_endpoint", "http://169.254.169.254/token"),
        endpoint("jwks_uri", "http://169.254.169.254/latest/meta-data"),
        endpoint("token_endpoint", "ftp://127.0.0.1/token"),
        endpoint("authorization_endpoint", "javascript:alert(1)"),
        endpoint("authorization_endpoint", "data:text/html,x"),
        endpoint("authorization_endpoint", "/authorize"),
    ];
    join_all(wrong.into_iter().map(|(name, url, behaviour)| async move {
        let stage = Stage::misbehaving(behaviour).await;
        let answer = stage.browser().navigate(&stage.url("/app/")).await;
        assert_eq!(answer.status, 503, "{name}: {url}");
        page(&answer, 503);
        assert_eq!(stage.idp.count(&Endpoint::Authorize), 0, "{name}: {url}");
        stage
    }))
    .await;
}

/// RP-32 by name: only its resolution tells where it is, and that it may not be there.
#[tokio::test]
async fn a_name_may_not_stand_for_plain_http() {
    for name in ["jwks_uri", "token_endpoint"] {
        let behaviour = good().discovery(move |document| document[name] = json!("http://idp.example.com/x"));
        let stage = Stage::misbehaving(behaviour).await;
        let mut browser = stage.browser();
        let answer = browser.follow(&stage.url("/app/")).await;
        page(&answer, 503);
        no_session(&stage, &mut browser, &answer).await;
    }
}

/// RP-31: a redirect to another origin is not followed, and the secret not sent there.
#[tokio::test]
async fn redirects_lead_nowhere_else() {
    let elsewhere = Idp::start(good()).await;
    let target = |path: &str| format!("{}{path}", elsewhere.issuer);

    let stage = Stage::usual().await;
    for status in [301, 302, 303, 307, 308] {
        stage.idp.change(|current| current.token_reply = Some(Reply::redirect(status, &target("/token"))));
        refused_login(&stage, 503, 0).await;
    }
    stage.idp.change(|current| {
        current.token_reply = None;
        current.user_info_reply = Some(Reply::redirect(307, &target("/userinfo")));
        current.user = json!({ "sub": "alice" });
    });
    refused_login(&stage, 503, 1).await;

    let mut behaviour = good();
    behaviour.discovery_reply = Some(Reply::redirect(301, &target("/.well-known/openid-configuration")));
    let stage = Stage::misbehaving(behaviour).await;
    page(&stage.browser().navigate(&stage.url("/app/")).await, 503);

    let mut behaviour = good();
    behaviour.jwks_reply = Some(Reply::redirect(302, &target("/keys")));
    let stage = Stage::misbehaving(behaviour).await;
    refused_login(&stage, 503, 0).await;

    assert_eq!(elsewhere.calls().len(), 0, "{:?}", elsewhere.calls());
}
