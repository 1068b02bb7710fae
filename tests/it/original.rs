//! The mistakes of the product whose configuration this one reads, each as a test that it is not made here.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::support::app::basic;
use crate::support::client::{FETCH, NAVIGATION, Raw};
use crate::support::expect::{page, problem, refused_login};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Idp};
use crate::support::proxy::refused;
use crate::support::secrets::Secrets;
use crate::support::stage::{HOST, Stage, config};

#[tokio::test]
async fn the_audience_is_checked() {
    let stage = Stage::misbehaving(Behaviour::good(Algorithm::Rs256).claim("aud", json!("another"))).await;
    refused_login(&stage, 400, 0).await;
}

#[tokio::test]
async fn a_login_has_nonce_challenge_and_a_bound_state() {
    let stage = Stage::usual().await;
    let mut attacker = stage.browser();
    let callback = attacker.authorize(&stage.url("/app/")).await;
    let call = stage.idp.calls_of(&Endpoint::Authorize).remove(0);
    for name in ["state", "nonce", "code_challenge"] {
        assert!(call.parameter(name).is_some_and(|value| value.len() >= 22), "{name}");
    }
    let mut victim = stage.browser();
    let answer = victim.navigate(callback.as_str()).await;
    assert!(!answer.sets_session());
    assert_eq!(stage.idp.count(&Endpoint::Token), 0);
}

/// Two services with two providers: neither a session, nor a login in progress, nor a state of one is worth
/// anything at the other.
#[tokio::test]
async fn services_share_nothing() {
    let mut behaviour = Behaviour::good(Algorithm::Rs256);
    behaviour.client_secret = "secret-of-the-second-service".into();
    let second = Idp::start(behaviour).await;
    let other = "other.test";
    let stage = Stage::with(|plan| {
        let service = plan.second("other", other);
        service["OIDCProviderURL"] = json!(second.issuer);
        service["OIDCClientSecret"] = json!("secret-of-the-second-service");
    })
    .await;
    let elsewhere = |url: &str| url.replace(HOST, other);
    let mut browser = stage.logged_in().await;
    let at_app = stage.app.count();
    // As if a browser sent everything everywhere.
    let mut everywhere = browser.clone();
    everywhere.jar.iter_mut().for_each(|(host, ..)| *host = other.to_owned());
    problem(&everywhere.fetch(&elsewhere(&stage.url("/app/"))).await, 401);
    let callback = browser.authorize(&stage.url("/aporeto/oidc/login?return=/app/")).await;
    let mut everywhere = browser.clone();
    everywhere.jar.iter_mut().for_each(|(host, ..)| *host = other.to_owned());
    let crossed = everywhere.navigate(&elsewhere(callback.as_str())).await;
    assert!(!crossed.sets_session());
    assert_eq!(second.count(&Endpoint::Token), 0);
    assert_eq!(stage.app.count(), at_app);
    let mut user = crate::support::client::Browser::new(&Secrets::default());
    user.follow(&elsewhere(&stage.url("/app/"))).await.expect(200);
    assert_eq!(second.count(&Endpoint::Token), 1);
    assert_eq!(second.wrongs(), Vec::<String>::new());
}

#[tokio::test]
async fn tokens_stay_inside() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let back = stage.login(&mut browser, "/app/").await.expect(303);
    let shown = format!("{:?} {}", back.headers, back.text());
    // The session's own cookie is known to its browser; nothing of the provider is.
    for (_, value) in browser.session() {
        assert_eq!(stage.secrets().found_in(&shown.replace(&value, "")), None);
    }
    browser.navigate(&stage.url("/app/")).await.expect(200);
    for received in stage.app.received() {
        assert_eq!(stage.secrets().found_in(&received.text()), None, "{}", received.text());
        assert!(!received.text().contains("eyJ"), "something like a token: {}", received.text());
    }
}

#[tokio::test]
async fn other_credentials_do_not_mask_the_cookie() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    for value in
        [basic("aladdin", "sesame"), "Negotiate AAAA".to_owned(), "Bearer of-the-application".to_owned()]
    {
        let headers = [("authorization", value.as_str())];
        browser.send("GET", &stage.url("/app/"), &headers, b"").await.expect(200);
        assert_eq!(stage.app.last().header("authorization"), [value.as_str()]);
        assert_eq!(stage.app.last().header("x-user"), ["alice"]);
    }
}

#[tokio::test]
async fn claim_headers_replace_the_clients_own() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    let forged = [("x-user", "admin"), ("X-USER", "root"), ("x_user", "admin"), ("x.groups", "admin")];
    browser.send("GET", &stage.url("/app/"), &forged, b"").await.expect(200);
    let received = stage.app.last();
    assert_eq!(
        (received.header("x-user"), received.header("x-groups")),
        (vec!["alice".into()], vec!["staff".into()])
    );
    assert!(!received.text().contains("root") && !received.text().contains("admin"), "{}", received.text());
}

#[tokio::test]
async fn reserved_paths_match_exactly() {
    let stage = Stage::with(|plan| {
        plan.endpoints(json!([{ "URI": "/*", "methods": ["*"], "public": true }]));
    })
    .await;
    for path in [
        "/aporeto/oidc/callback2",
        "/aporeto/oidc/callback/x",
        "/aporeto/oidc/callback/",
        "/aporeto/oidc/Callback",
        "/aporeto/oidc",
        "/aporeto/oidc/session/",
        "/aporeto/oidc/logout.html",
        "/x/aporeto/oidc/callback",
    ] {
        stage.browser().fetch(&stage.url(path)).await.expect(200);
        assert_eq!(stage.app.last().target(), path);
    }
    problem(&stage.browser().fetch(&stage.url("/aporeto/oidc/session")).await, 401);
}

#[tokio::test]
async fn ambiguous_paths_match_no_other_rule() {
    let stage = Stage::usual().await;
    for target in
        ["//admin", "/public/../admin", "/public/%2e%2e/admin", "/public/..;/admin", "/public%2f..%2fadmin"]
    {
        Raw::ask(stage.port, HOST, format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await
            .expect(400);
    }
    assert_eq!(stage.app.count(), 0);
}

#[tokio::test]
async fn what_is_judged_is_what_is_forwarded() {
    let stage = Stage::usual().await;
    let request = format!("GET /%70ublic/%41?x=%2e HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    Raw::ask(stage.port, HOST, request).await.expect(200);
    assert_eq!(stage.app.last().target(), "/public/A?x=%2e");
}

#[tokio::test]
async fn a_body_is_never_posted_to_the_provider() {
    let stage = Stage::usual().await;
    for headers in [&NAVIGATION[..], &FETCH[..]] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer =
                stage.browser().send(method, &stage.url("/app/"), headers, b"password=of-the-user").await;
            assert_eq!(answer.status, 401, "{method}");
            assert_eq!(answer.header("location"), "");
        }
    }
}

#[tokio::test]
async fn a_login_does_not_lead_to_another_host() {
    let stage = Stage::usual().await;
    for target in ["//evil.test/", "//evil.test/app/", "/\\evil.test/"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n");
        Raw::ask(stage.port, HOST, request).await.expect(400);
    }
    let mut browser = stage.browser();
    let back = stage.login(&mut browser, "/aporeto/oidc/login?return=//evil.test/").await;
    assert!(back.status == 400 || back.location().as_str().starts_with(&stage.origin), "{back:?}");
}

#[tokio::test]
async fn forbidden_is_not_unauthorized() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    page(&browser.navigate(&stage.url("/admin/")).await, 403);
    problem(&browser.fetch(&stage.url("/admin/")).await, 403);
}

#[tokio::test]
async fn options_is_a_method() {
    let stage = Stage::with(|plan| {
        plan.endpoints(json!([
            { "URI": "/app/*", "methods": ["OPTIONS"], "allowedScopes": [["email=*"]] },
            { "URI": "/app/*", "methods": ["GET"], "allowedScopes": [["email=*"]] },
        ]));
    })
    .await;
    let mut browser = stage.logged_in().await;
    browser.send("OPTIONS", &stage.url("/app/"), &FETCH, b"").await.expect(200);
    assert!(stage.app.last().text().starts_with("OPTIONS "));
}

#[tokio::test]
async fn duplicate_endpoints_are_refused() {
    let mut config = config(443, 9901);
    config["services"][0]["OIDCProviderURL"] = json!("https://idp.test");
    config["services"][0]["OIDCClientID"] = json!("client");
    config["services"][0]["OIDCClientSecret"] = json!("secret");
    config["services"][0]["port"] = json!(8080);
    config["httpResourceSpecs"][0]["endpoints"] = json!([
        { "URI": "/a", "methods": ["GET"], "allowedScopes": [["a=b"]] },
        { "URI": "/a/", "methods": ["POST", "GET"], "allowedScopes": [["a=c"]] },
    ]);
    let finished = refused(&serde_yaml::to_string(&config).unwrap()).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    let text = finished.stderr;
    assert!(text.matches("portcullis.yaml:").count() == 2, "both places: {text}");
}

#[tokio::test]
async fn numbers_are_plain() {
    let stage = Stage::with(|plan| {
        plan.behaviour.user["employee"] = json!(1_600_000_000);
        plan.set(
            "claimsToHTTPHeaderMappings",
            json!([{ "claimName": "employee", "targetHTTPHeader": "X-Employee" }]),
        );
        plan.endpoints(
            json!([{ "URI": "/app/*", "methods": ["*"], "allowedScopes": [["employee=1600000000"]] }]),
        );
    })
    .await;
    stage.logged_in().await;
    assert_eq!(stage.app.last().header("x-employee"), ["1600000000"]);
}

/// The state directory of the first run serves the second.
#[tokio::test]
async fn a_restart_logs_nobody_out() {
    let state = Arc::new(TempDir::new().unwrap());
    let stage = Stage::build(|_| {}, state.clone()).await.unwrap();
    let mut browser = stage.logged_in().await;
    let (text, secrets) = (serde_yaml::to_string(&stage.config).unwrap(), stage.secrets().clone());
    let Stage { proxy, idp, app, port, origin, admin, config } = stage;
    assert_eq!(proxy.stop().await.code, Some(0));
    let mut proxy = crate::support::proxy::Proxy::start_in(state, &text, &[]).await.unwrap();
    proxy.secrets = secrets;
    let stage = Stage { proxy, idp, app, port, origin, admin, config };
    browser.navigate(&stage.url("/app/")).await.expect(200);
    assert_eq!(stage.idp.login_calls().0, 1);
}

#[tokio::test]
async fn the_start_does_not_need_the_provider() {
    let stage = Stage::with(|plan| plan.idp_is_up = false).await;
    stage.browser().navigate(&stage.url("/public/")).await.expect(200);
}

#[tokio::test]
async fn strangers_evict_no_login() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    let request = format!("GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n");
    for _ in 0..64 {
        raw.send(request.repeat(32)).await;
        for _ in 0..32 {
            raw.answer().await.unwrap().expect(302);
        }
    }
    browser.navigate(callback.as_str()).await.expect(303);
    browser.navigate(&stage.url("/app/")).await.expect(200);
}

/// WEB-06: many pages that are opened at once each begin a login, before any of them is back with a cookie. What they leave
/// may be more than a request can hold: then it is taken off again, and the browser is not locked out.
#[tokio::test]
async fn many_logins_at_once_lock_nobody_out() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser().http2();
    let long = "x".repeat(2000);
    for number in 0..30 {
        let mut tab = stage.browser();
        tab.navigate(&stage.url(&format!("/app/{number}?{long}"))).await.expect(302);
        for (name, value) in tab.named("__Host-portcullis-login") {
            browser.jar.push((HOST.to_owned(), name, value));
        }
    }
    let refused = browser.navigate(&stage.url("/app/")).await.expect(431);
    assert!(refused.set_cookies().len() > 20, "{:?}", refused.set_cookies());
    browser.follow(&stage.url("/app/")).await.expect(200);
}

#[tokio::test]
async fn there_is_a_logout() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    browser.send("POST", &stage.url("/aporeto/oidc/logout"), &[("sec-fetch-site", "same-origin")], b"").await;
    problem(&browser.fetch(&stage.url("/app/")).await, 401);
}

#[tokio::test]
async fn records_have_status_latency_and_rule() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    browser.navigate(&stage.url("/staff/x?y=z")).await.expect(200);
    let record = stage.proxy.record(&stage.app.last().header("x-request-id").concat()).await;
    assert_eq!(record["status"], 200);
    assert!(record["durationMs"].as_f64().is_some_and(|milliseconds| milliseconds > 0.0), "{record}");
    assert_eq!(record["rule"], json!({ "spec": "app", "uri": "/staff/*", "method": "GET" }));
    assert_eq!((&record["path"], &record["subject"]), (&json!("/staff/x"), &json!("alice")));
}
