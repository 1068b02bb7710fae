//! WEB-07: every answer of our own, wherever in a request it is given: kept by nobody, framed by nobody, sniffed by
//! nobody, and telling nobody where the user came from.

use serde_json::json;

use crate::support::client::{Answer, FETCH, NAVIGATION, Raw};
use crate::support::expect::own;
use crate::support::idp::{Behaviour, Reply};
use crate::support::stage::{HOST, Stage};

/// Exact bytes, and the answer to them.
async fn raw(stage: &Stage, head: &str) -> Answer {
    Raw::ask(stage.port, HOST, format!("{head}\r\nConnection: close\r\n\r\n")).await
}

/// Before anybody is known.
#[tokio::test]
async fn refusals_of_requests() {
    let stage = Stage::usual().await;
    let url = |path: &str| stage.url(path);
    own(&stage.browser().navigate(&url("/app/")).await, 302);
    own(&stage.browser().fetch(&url("/app/")).await, 401);
    own(&stage.browser().send("POST", &url("/app/"), &NAVIGATION, b"").await, 401);
    own(&stage.browser().navigate(&url("/aporeto/oidc/login?return=/app/")).await, 302);
    own(&stage.browser().fetch(&url("/aporeto/oidc/session")).await, 401);
    own(&stage.browser().navigate(&url("/aporeto/oidc/logout")).await, 200);
    own(&stage.browser().send("POST", &url("/aporeto/oidc/logout"), &FETCH[..3], b"").await, 403);
    own(&stage.browser().send("PUT", &url("/aporeto/oidc/session"), &FETCH, b"").await, 405);
    own(&stage.browser().navigate(&url("/aporeto/oidc/frontchannel-logout?iss=x&sid=y")).await, 404);
    for accept in ["text/html", "application/json"] {
        let host = format!("Host: {HOST}\r\nAccept: {accept}");
        own(&raw(&stage, &format!("GET /public/../admin HTTP/1.1\r\n{host}")).await, 400);
        own(&raw(&stage, &format!("GET /a%00 HTTP/1.1\r\n{host}")).await, 400);
        own(&raw(&stage, &format!("GET / HTTP/1.1\r\nHost: wrong.test\r\nAccept: {accept}")).await, 421);
    }
    assert_eq!(stage.app.count(), 0);
}

/// What is refused on its bytes, before it is a request.
#[tokio::test]
async fn refusals_of_bytes() {
    let stage = Stage::usual().await;
    let host = format!("Host: {HOST}");
    for (head, status) in [
        (format!("GET / HTTP/1.1\r\n{host}\r\nX : y"), 400),
        (format!("GET / HTTP/1.2\r\n{host}"), 400),
        (format!("POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: gzip"), 400),
        (format!("GET /{} HTTP/1.1\r\n{host}", "x".repeat(17_000)), 414),
        (format!("GET / HTTP/1.1\r\n{host}{}", "\r\nX: y".repeat(110)), 431),
        (format!("{} / HTTP/1.1\r\n{host}", "X".repeat(100)), 501),
    ] {
        let answer = raw(&stage, &head).await;
        assert_eq!(answer.status, status, "{}: {answer:?}", &head[..head.len().min(60)]);
        own(&answer, status);
        assert_eq!(answer.header("connection"), "close", "{answer:?}");
    }
    assert_eq!(stage.app.count(), 0);
}

/// Of a login, good and bad.
#[tokio::test]
async fn answers_of_a_login() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    own(&browser.clone().navigate(callback.as_str()).await, 303);
    own(&stage.browser().navigate(callback.as_str()).await, 302);
    own(&stage.browser().fetch(&stage.url("/aporeto/oidc/callback")).await, 401);

    let mut stranger = stage.browser();
    let callback = stranger.authorize(&stage.url("/app/")).await;
    stage.idp.change(|behaviour| behaviour.token_reply = Some(Reply::json(500, &json!({}))));
    own(&stranger.navigate(callback.as_str()).await, 503);
    let mut stranger = stage.browser();
    stage.idp.change(|behaviour| {
        behaviour.token_reply = None;
        behaviour.token = std::sync::Arc::new(|token| format!("{token}x"));
    });
    own(&stage.login(&mut stranger, "/app/").await, 400);
    let denied = Behaviour::callback(stage.idp.behaviour(), |parameters| {
        parameters.retain(|(name, _)| name != "code");
        parameters.push(("error".into(), "access_denied".into()));
    });
    stage.idp.change(|behaviour| *behaviour = denied);
    own(&stage.login(&mut stage.browser(), "/app/").await, 403);
}

/// To somebody who is logged in.
#[tokio::test]
async fn answers_to_a_user() {
    let stage = Stage::with(|plan| plan.limit("responseTimeout", json!("300ms"))).await;
    let mut browser = stage.logged_in().await;
    for path in ["/admin/", "/no-such-rule"] {
        own(&browser.navigate(&stage.url(path)).await, 403);
        own(&browser.fetch(&stage.url(path)).await, 403);
    }
    own(&browser.navigate(&stage.url("/strong/")).await, 302);
    own(&browser.fetch(&stage.url("/strong/")).await, 401);
    own(&browser.fetch(&stage.url("/aporeto/oidc/session")).await, 200);
    own(&browser.navigate(&stage.url("/app/hang")).await, 504);
    own(&browser.fetch(&stage.url("/app/garbage")).await, 502);
    let logout = stage.url("/aporeto/oidc/logout");
    own(&browser.navigate(&logout).await, 200);
    let done = browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await;
    own(&done, done.status);
    assert!(matches!(done.status, 200 | 303), "{done:?}");
}
