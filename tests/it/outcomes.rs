//! Every row of the table of outcomes, for people and for programs, with the record that each leaves.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::client::{Answer, Browser, FETCH, NAVIGATION, Pairs};
use crate::support::expect::{own, page, problem};
use crate::support::idp::Endpoint;
use crate::support::stage::Stage;

/// The record of an answer: what became of the request and why.
async fn recorded(stage: &Stage, answer: &Answer, action: &str, reason: Option<&str>) -> Value {
    let record = stage.proxy.record(answer.header("x-request-id")).await;
    assert_eq!(record["action"], action, "{record}");
    assert_eq!(record["dropReason"].as_str(), reason, "{record}");
    assert_eq!(record["status"], answer.status, "{record}");
    for field in
        ["time", "requestId", "service", "client", "method", "path", "durationMs", "bytesIn", "bytesOut"]
    {
        assert!(!record[field].is_null(), "{field}: {record}");
    }
    assert!(!record["path"].as_str().unwrap().contains('?'), "{record}");
    record
}

#[tokio::test]
async fn nobody_is_logged_in() {
    let stage = Stage::usual().await;
    for path in ["/app/?secret-in-query=1", "/no-such-rule", "/closed/"] {
        let mut browser = stage.browser();
        let person = browser.navigate(&stage.url(path)).await;
        own(&person, 302);
        assert!(
            person.location().as_str().starts_with(&format!("{}/authorize?", stage.idp.issuer)),
            "{person:?}"
        );
        recorded(&stage, &person, "Reject", Some("login")).await;
        let program = stage.browser().fetch(&stage.url(path)).await;
        let document = problem(&program, 401);
        assert!(
            document["login"].as_str().unwrap().starts_with(&stage.url("/aporeto/oidc/login")),
            "{document}"
        );
        assert_eq!(program.header("www-authenticate"), "Bearer realm=\"app\"");
        assert_eq!(program.set_cookies(), Vec::<&str>::new(), "a program starts no login");
        recorded(&stage, &program, "Reject", Some("login")).await;
    }
    assert_eq!(stage.app.count(), 0);
}

/// Which requests are navigations.
#[tokio::test]
async fn navigations_are_told_from_the_rest() {
    let stage = Stage::usual().await;
    let page = ("accept", "text/html");
    let cases: [(&str, Pairs<'_>, bool); 14] = [
        ("GET", &NAVIGATION, true),
        ("HEAD", &NAVIGATION, true),
        ("GET", &FETCH, false),
        ("GET", &[page], true),
        ("GET", &[("accept", "application/json")], false),
        ("GET", &[("accept", "*/*")], false),
        ("GET", &[], false),
        ("GET", &[page, ("x-requested-with", "XMLHttpRequest")], false),
        ("GET", &[page, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], false),
        ("GET", &[page, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false),
        ("GET", &[page, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false),
        (
            "GET",
            &[
                page,
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
                ("sec-purpose", "prefetch"),
            ],
            false,
        ),
        ("GET", &[page, ("upgrade", "websocket"), ("connection", "upgrade")], false),
        ("PUT", &[("accept", "application/json")], false),
    ];
    for (method, headers, navigation) in cases {
        let answer = stage.browser().send(method, &stage.url("/app/"), headers, b"").await;
        assert_eq!(answer.status, if navigation { 302 } else { 401 }, "{method} {headers:?}");
    }
    assert_eq!(stage.app.count(), 0);
}

/// WEB-10: a form that is posted without a session.
#[tokio::test]
async fn a_form_without_a_session() {
    let stage = Stage::usual().await;
    let form = |extra: &'static [(&'static str, &'static str)]| {
        [&NAVIGATION[..], &[("content-type", "application/x-www-form-urlencoded")], extra].concat()
    };
    let referer = stage.url("/app/form?x=1");
    let mut headers = form(&[]);
    headers.push(("referer", &referer));
    let answer = stage.browser().send("POST", &stage.url("/app/save"), &headers, b"name=value").await;
    page(&answer, 401);
    let encoded: String = url::form_urlencoded::byte_serialize(b"/app/form?x=1").collect();
    let text = answer.text().replace("&#x2F;", "/").replace("&#47;", "/");
    assert!(text.contains("/aporeto/oidc/login?return="), "{text}");
    assert!(text.contains(&encoded) || text.contains("return=/app/form%3Fx%3D1"), "{text}");
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"app\"");
    let answer = stage
        .browser()
        .send("POST", &stage.url("/app/save"), &form(&[("referer", "https://evil.test/x")]), b"")
        .await;
    page(&answer, 401);
    assert!(!answer.text().contains("evil.test"), "{}", answer.text());
    for headers in [&FETCH[..], &[("accept", "application/json")], &[("x-requested-with", "XMLHttpRequest")]]
    {
        problem(&stage.browser().send("POST", &stage.url("/app/save"), headers, b"{}").await, 401);
    }
    assert_eq!(stage.app.count(), 0);
    assert_eq!(stage.idp.count(&Endpoint::Authorize), 0);
}

/// AZ-01: logged in and not allowed.
#[tokio::test]
async fn a_user_is_not_allowed() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    let before = stage.app.count();
    for (path, reason) in [("/admin/", "policy"), ("/closed/", "policy"), ("/no-such-rule", "api")] {
        let person = browser.navigate(&stage.url(path)).await;
        page(&person, 403);
        let record = recorded(&stage, &person, "Reject", Some(reason)).await;
        assert_eq!(record["subject"], "alice");
        if reason == "policy" {
            assert_eq!(record["rule"]["spec"], "app", "{record}");
            assert!(record["rule"]["uri"].is_string() && record["rule"]["method"].is_string(), "{record}");
        }
        let program = browser.fetch(&stage.url(path)).await;
        problem(&program, 403);
        recorded(&stage, &program, "Reject", Some(reason)).await;
        problem(&browser.send("POST", &stage.url(path), &FETCH, b"{}").await, 403);
    }
    assert_eq!(stage.app.count(), before);
    let allowed = browser.fetch(&stage.url("/staff/")).await.expect(200);
    let id = stage.app.last().header("x-request-id").concat();
    let record = stage.proxy.record(&id).await;
    assert_eq!(
        (&record["action"], &record["rule"]["uri"], &record["tags"]),
        (&json!("Accept"), &json!("/staff/*"), &json!(["groups=staff"]))
    );
    assert_eq!(record["status"], allowed.status);
    assert!(record["dropReason"].is_null());
}

#[tokio::test]
async fn a_failure_has_a_place_to_go() {
    for (configured, wanted) in [
        ("https://help.test/denied", "https://help.test/denied?failure_message=authorization"),
        (
            "https://help.test/denied?a=1#part",
            "https://help.test/denied?a=1&failure_message=authorization#part",
        ),
    ] {
        let stage =
            Stage::with(|plan| plan.set("redirectURLOnAuthorizationFailure", json!(configured))).await;
        let mut browser = stage.logged_in().await;
        let person = browser.navigate(&stage.url("/admin/")).await;
        own(&person, 302);
        assert_eq!(person.header("location"), wanted);
        problem(&browser.fetch(&stage.url("/admin/")).await, 403);
        browser.jar.clear();
        let stranger = browser.navigate(&stage.url("/admin/")).await.expect(302);
        assert!(stranger.header("location").starts_with(&stage.idp.issuer));
    }
}

/// Step-up: asked for once, and a login that comes back without it is not sent away again.
#[tokio::test]
async fn a_stronger_login_is_needed() {
    let stage = Stage::usual().await;
    for (path, parameter, value, shown) in
        [("/strong/", "acr_values", "gold", "gold"), ("/fresh/", "max_age", "900", "900")]
    {
        let mut browser = stage.logged_in().await;
        let program = browser.fetch(&stage.url(path)).await;
        problem(&program, 401);
        let challenge = program.header("www-authenticate").to_owned();
        assert!(challenge.starts_with("Bearer realm=\"app\""), "{challenge}");
        assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
        assert!(challenge.contains(&format!("{parameter}=\"{shown}\"")), "{challenge}");

        let person = browser.navigate(&stage.url(path)).await.expect(302);
        let asked = person.location();
        assert!(asked.query_pairs().any(|(name, given)| name == parameter && given == value), "{asked}");
        let callback = browser.navigate(asked.as_str()).await.location();
        let back = browser.navigate(callback.as_str()).await.expect(303);
        assert_eq!(back.location().as_str(), stage.url(path));
        browser.navigate(&stage.url(path)).await.expect(200);

        stage.idp.change(|behaviour| behaviour.honours_step_up = false);
        let mut weak = stage.logged_in().await;
        let callback = weak.authorize(&stage.url(path)).await;
        let answer = weak.navigate(callback.as_str()).await;
        page(&answer, 403);
        assert!(answer.text().contains(value) || answer.text().contains("15 min"), "{}", answer.text());
        stage.idp.change(|behaviour| behaviour.honours_step_up = true);
    }
    // A login that is asked for by its URL knows what its page will want.
    let asked =
        stage.browser().navigate(&stage.url("/aporeto/oidc/login?return=%2Fstrong%2F")).await.expect(302);
    assert!(asked.location().query_pairs().any(|(name, given)| name == "acr_values" && given == "gold"));
    // Somebody whom the tags do not allow is not asked for more.
    let mut browser = stage.logged_in().await;
    page(&browser.navigate(&stage.url("/admin/")).await, 403);
}

#[tokio::test]
async fn the_provider_is_out_of_reach() {
    let stage = Stage::with(|plan| plan.idp_is_up = false).await;
    let mut browser = stage.browser();
    let person = browser.navigate(&stage.url("/app/")).await;
    page(&person, 503);
    let program = browser.fetch(&stage.url("/app/")).await;
    problem(&program, 503);
    for answer in [&person, &program] {
        assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{answer:?}");
        recorded(&stage, answer, "Reject", Some("login")).await;
    }
}

/// REL-08.
#[tokio::test]
async fn the_app_is_out_of_reach() {
    let stage = Stage::with(|plan| {
        plan.app_is_up = false;
        plan.limit("responseTimeout", json!("300ms"));
    })
    .await;
    let path = |name: &str| stage.url(&format!("/public/{name}"));
    for status in [502, 504] {
        if status == 504 {
            stage.app.up().await;
        }
        let person = stage.browser().navigate(&path("hang")).await;
        page(&person, status);
        recorded(&stage, &person, "Reject", Some("dial")).await;
        problem(&stage.browser().fetch(&path("hang")).await, status);
        problem(&stage.browser().send("POST", &path("hang"), &FETCH, b"x").await, status);
    }
    for name in ["garbage", "close", "big-head"] {
        page(&stage.browser().navigate(&path(name)).await, 502);
    }
    stage.browser().navigate(&path("fine")).await.expect(200);
}

/// CORS for programs of listed origins, and only for them.
#[tokio::test]
async fn listed_origins_can_read_refusals() {
    let stage = Stage::with(|plan| plan.set("allowedOrigins", json!(["https://ui.test"]))).await;
    let mut browser = stage.logged_in().await;
    for (origin, listed) in [
        ("https://ui.test", true),
        ("https://evil.test", false),
        ("https://ui.test.evil.test", false),
        ("null", false),
    ] {
        for (cookies, path, status) in [(false, "/app/", 401), (true, "/admin/", 403)] {
            let mut client = if cookies { browser.clone() } else { stage.browser() };
            let headers = [
                ("origin", origin),
                ("accept", "application/json"),
                ("sec-fetch-mode", "cors"),
                ("sec-fetch-dest", "empty"),
            ];
            let answer = client.send("GET", &stage.url(path), &headers, b"").await;
            problem(&answer, status);
            assert_eq!(
                answer.header("access-control-allow-origin"),
                if listed { origin } else { "" },
                "{answer:?}"
            );
            if listed {
                assert!(answer.header("vary").to_lowercase().contains("origin"), "{answer:?}");
                assert_eq!(answer.header("access-control-allow-credentials"), "true", "{answer:?}");
            }
        }
    }
    // The app's own answers are its own affair.
    let answer =
        browser.send("GET", &stage.url("/app/"), &[("origin", "https://ui.test")], b"").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn preflights_are_judged_or_forwarded() {
    let preflight = [("origin", "https://ui.test"), ("access-control-request-method", "PUT")];
    let stage = Stage::usual().await;
    let answer = stage.browser().send("OPTIONS", &stage.url("/app/"), &preflight, b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(stage.app.count(), 0);

    let stage = Stage::with(|plan| plan.set("corsPreflight", json!("forward"))).await;
    let mut browser = stage.logged_in().await;
    browser.send("OPTIONS", &stage.url("/admin/"), &preflight, b"").await.expect(200);
    let received = stage.app.last();
    assert!(received.text().starts_with("OPTIONS /admin/ "));
    assert_eq!(
        (received.header("x-user"), received.header("cookie")),
        (vec![], vec![]),
        "{}",
        received.text()
    );
    let count = stage.app.count();
    let upgrade = [("connection", "upgrade"), ("upgrade", "echo")];
    for other in [&preflight[..1], &preflight[1..], &[preflight, upgrade].concat()] {
        let answer = stage.browser().send("OPTIONS", &stage.url("/app/upgrade"), other, b"").await;
        assert_eq!(answer.status, 401);
    }
    assert_eq!(stage.app.count(), count);
}

/// 405 consumes nothing; the paths are exact.
#[tokio::test]
async fn reserved_paths_have_methods() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    for (path, allow) in [
        (callback.as_str().to_owned(), "GET"),
        (stage.url("/aporeto/oidc/login"), "GET"),
        (stage.url("/aporeto/oidc/session"), "GET"),
        (stage.url("/aporeto/oidc/logout"), "GET, POST"),
    ] {
        for method in ["PUT", "DELETE", "OPTIONS"] {
            let answer = browser.send(method, &path, &FETCH, b"").await;
            problem(&answer, 405);
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
        }
    }
    problem(&browser.send("POST", callback.as_str(), &FETCH, b"").await, 405);
    browser.navigate(callback.as_str()).await.expect(303);
    assert_eq!(stage.app.count(), 0);
}

/// `mode: observe` forwards what a user may not, says so everywhere, and changes nothing else.
#[tokio::test]
async fn observing_only() {
    let stage = Stage::with(|plan| plan.set("mode", json!("observe"))).await;
    let warned = |line: &Value| line["level"] == "warning" && line.to_string().contains("observe");
    stage.proxy.line("a warning at the start", warned).await;
    let mut browser = stage.logged_in().await;
    for (path, reason) in
        [("/admin/", "policy"), ("/closed/", "policy"), ("/no-such-rule", "api"), ("/strong/", "policy")]
    {
        browser.navigate(&stage.url(path)).await.expect(200);
        let id = stage.app.last().header("x-request-id").concat();
        let record = stage.proxy.record(&id).await;
        assert_eq!(
            (&record["action"], &record["dropReason"]),
            (&json!("Observe"), &json!(reason)),
            "{path}: {record}"
        );
        assert_eq!(stage.app.last().header("x-user"), ["alice"]);
    }
    stage.browser().navigate(&stage.url("/admin/")).await.expect(302);
    problem(&stage.browser().fetch(&stage.url("/admin/")).await, 401);
    assert!(stage.admin("/readyz").await.text().contains("observe"), "readyz shows the mode");
    assert!(stage.admin("/metrics").await.text().contains("observe"), "a metric shows the mode");
}

/// WEB-11: nothing of the app is seen without a session, whatever the request.
#[tokio::test]
async fn nothing_leaks_without_a_session() {
    let stage = Stage::usual().await;
    let headers: [Pairs<'_>; 5] = [
        &[],
        &[("range", "bytes=0-10")],
        &[("if-none-match", "\"x\"")],
        &[("authorization", "Bearer AAAA")],
        &[("authorization", "Basic YTpi")],
    ];
    for method in
        ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "GETX"]
    {
        for headers in headers {
            let answer = stage.browser().send(method, &stage.url("/app/"), headers, b"").await;
            assert!((400..500).contains(&answer.status), "{method} {headers:?}: {answer:?}");
            assert_eq!(answer.header("x-app"), "");
        }
    }
    assert_eq!(stage.app.count(), 0);
}

/// HEAD is decided as GET; a method that no rule names is denied.
#[tokio::test]
async fn methods_are_exact() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    let status = async |browser: &mut Browser, method: &str| {
        browser.send(method, &stage.url("/staff/"), &FETCH, b"").await.status
    };
    for (method, wanted) in [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 200),
        ("PUT", 403),
        ("get", 403),
        ("GETX", 403),
        ("OPTIONS", 403),
        ("TRACE", 403),
        ("PROPFIND", 403),
        ("PATCH", 403),
        ("DELETE", 403),
    ] {
        assert_eq!(status(&mut browser, method).await, wanted, "{method}");
    }
    let long = "X".repeat(1024);
    assert!(matches!(status(&mut browser, &long).await, 400 | 403 | 501));
    // HEAD is decided as GET where no rule names it, also where GET is refused.
    for (path, wanted) in [("/admin/", 403), ("/closed/", 403), ("/no-such-rule", 403), ("/public/", 200)] {
        for method in ["GET", "HEAD"] {
            let answer = browser.send(method, &stage.url(path), &FETCH, b"").await;
            assert_eq!(answer.status, wanted, "{method} {path}");
        }
    }
    assert!(stage.app.received().iter().all(|request| !request.target().starts_with("/admin")));
}

/// The session endpoint is for scripts: JSON, whatever they say of themselves.
#[tokio::test]
async fn the_session_endpoint_answers_in_json() {
    let stage = Stage::usual().await;
    let session = stage.url("/aporeto/oidc/session");
    for headers in [&[][..], &FETCH, &[("accept", "*/*")]] {
        let answer = stage.browser().send("GET", &session, headers, b"").await;
        problem(&answer, 401);
    }
    let mut browser = stage.logged_in().await;
    assert_eq!(browser.send("GET", &session, &[], b"").await.expect(200).json()["subject"], "alice");
}

/// A provider that answers `max_age` with the login it already has: what the login accepts, the rule accepts too,
/// and what it does not accept ends in one page. Nobody goes round in circles.
#[tokio::test]
async fn an_old_login_is_accepted_or_refused_once() {
    for (age, accepted) in [(850, true), (930, true), (1100, false)] {
        let stage = Stage::with(|plan| {
            plan.behaviour.claims = Arc::new(move |claims: &mut Value| {
                claims["auth_time"] = json!(claims["iat"].as_u64().unwrap() - age);
            });
        })
        .await;
        let mut browser = stage.browser();
        let back = stage.login(&mut browser, "/fresh/").await;
        if accepted {
            back.clone().expect(303);
            browser.navigate(&stage.url("/fresh/")).await.expect(200);
        } else {
            page(&back, 403);
            assert_eq!(stage.app.count(), 0);
        }
        assert_eq!(stage.idp.login_calls().0, 1, "one login for an age of {age} s");
    }
}
