//! The login as browsers live it: deep links, tabs, reloads, lost cookies, strangers' links.

use serde_json::json;
use url::Url;

use crate::support::client::{Browser, Raw};
use crate::support::expect::{accepted_login, no_session, page, problem};
use crate::support::idp::{Endpoint, find};
use crate::support::stage::{HOST, Stage};

const LOGIN_COOKIE: &str = "__Host-portcullis-login.";

/// RP-01.
#[tokio::test]
async fn a_deep_link_comes_back_byte_for_byte() {
    let stage = Stage::usual().await;
    for target in
        ["/app/x?a=1&b=%2F%26", "/app/%C3%A4?q=%20+&r", "/app/a%2Cb;v=1/?", "/app/$&'()*+,=:@!~?x=/../y//"]
    {
        let mut browser = stage.browser();
        let before = stage.idp.calls().len();
        let callback = browser.authorize(&stage.url(target)).await;
        let back = browser.navigate(callback.as_str()).await;
        assert!(matches!(back.status, 302 | 303), "{back:?}");
        let location = back.header("location").trim_start_matches(&stage.origin).to_owned();
        assert_eq!(location, target);
        assert_eq!(back.header("cache-control"), "no-store");
        assert_eq!(back.header("referrer-policy"), "no-referrer");
        assert!(
            back.text().is_empty()
                || !back
                    .text()
                    .contains(find(&stage.idp.calls_of(&Endpoint::Token)[0].form, "code").unwrap())
        );
        // As a browser sends it, without the URL parser of the test.
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies(HOST));
        Raw::ask(stage.port, HOST, &request).await.expect(200);
        assert_eq!(stage.app.last().target(), target);
        let between = stage.idp.calls().len() - before;
        Raw::ask(stage.port, HOST, &request).await.expect(200);
        assert_eq!(stage.idp.calls().len() - before, between, "the second request asks the provider");
    }
    assert_eq!(stage.idp.login_calls(), (4, 0));
    assert_eq!(stage.idp.wrongs(), Vec::<String>::new());
}

/// `state`, `nonce` and the challenge are new every time.
#[tokio::test]
async fn nothing_of_a_login_is_used_again() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    for _ in 0..3 {
        browser.authorize(&stage.url("/app/")).await;
    }
    let calls = stage.idp.calls_of(&Endpoint::Authorize);
    for name in ["state", "nonce", "code_challenge"] {
        let mut values: Vec<&str> = calls.iter().filter_map(|call| call.parameter(name)).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 3, "{name}");
    }
    let redirect_uri = format!("{}/aporeto/oidc/callback", stage.origin);
    assert!(calls.iter().all(|call| call.parameter("redirect_uri") == Some(&redirect_uri)), "{calls:?}");
}

/// SES-01 for the transaction.
#[tokio::test]
async fn the_transaction_cookie_is_bound_and_goes_away() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let start = browser.navigate(&stage.url("/app/")).await.expect(302);
    let [cookie] = start.set_cookies()[..] else { panic!("one cookie: {start:?}") };
    assert!(cookie.starts_with(LOGIN_COOKIE), "{cookie}");
    let lower = cookie.to_lowercase();
    for attribute in ["; secure", "; httponly", "; samesite=lax", "; path=/", "; max-age=600"] {
        assert!(lower.contains(attribute), "{attribute}: {cookie}");
    }
    assert!(!lower.contains("domain"), "{cookie}");
    let callback = browser.navigate(start.location().as_str()).await.location();
    browser.navigate(callback.as_str()).await.expect(303);
    assert_eq!(browser.named(LOGIN_COOKIE), [], "the transaction's cookie after its use");
    assert!(!browser.session().is_empty());
}

/// RP-18, WEB-05: what is not a transaction of this browser costs no token call and gives no session.
#[tokio::test]
async fn a_foreign_callback_logs_nobody_in() {
    let stage = Stage::usual().await;
    let mut attacker = stage.browser();
    let callback = attacker.authorize(&stage.url("/app/")).await;

    let mut victim = stage.browser();
    let restarted = victim.navigate(callback.as_str()).await.expect(302);
    assert!(restarted.location().as_str().starts_with(&stage.idp.issuer), "{restarted:?}");
    assert!(!restarted.sets_session());

    let without_state = with_query(&callback, |pairs| pairs.retain(|(name, _)| name != "state"));
    let garbled = with_query(&callback, |pairs| {
        pairs.iter_mut().filter(|(name, _)| name == "state").for_each(|(_, value)| value.insert(5, 'x'));
    });
    let none = with_query(&callback, Vec::clear);
    for odd in [without_state, garbled, none] {
        let mut browser = stage.browser();
        let answer = browser.navigate(odd.as_str()).await;
        assert!(answer.status == 302 || (400..500).contains(&answer.status), "{odd}: {answer:?}");
        no_session(&stage, &mut browser, &answer).await;
    }
    assert_eq!(stage.idp.login_calls(), (0, 0), "calls after a foreign callback");

    // Whose login it is may still finish it; and the victim's own login works too.
    attacker.navigate(callback.as_str()).await.expect(303);
    let callback = victim.navigate(restarted.location().as_str()).await.location();
    victim.navigate(callback.as_str()).await.expect(303);
    victim.navigate(&stage.url("/app/")).await.expect(200);
}

/// RP-18: a provider that loses the state, shortens it or sends always the same starts no login over and over.
#[tokio::test]
async fn a_login_is_begun_anew_once() {
    let stage = Stage::usual().await;
    type Change = fn(&mut Vec<(String, String)>);
    let changes: [(&str, Change); 6] = [
        ("no state", |pairs| pairs.retain(|(name, _)| name != "state")),
        ("an empty state", |pairs| {
            pairs.iter_mut().filter(|(name, _)| name == "state").for_each(|(_, value)| value.clear());
        }),
        ("half a state", |pairs| {
            let states = pairs.iter_mut().filter(|(name, _)| name == "state");
            states.for_each(|(_, value)| value.truncate(value.len() / 2));
        }),
        ("another state", |pairs| {
            pairs.iter_mut().filter(|(name, _)| name == "state").for_each(|(_, value)| *value = "xyz".into());
        }),
        ("nothing", Vec::clear),
        ("always the same", |_| {}),
    ];
    for (what, change) in changes {
        let mut browser = stage.browser();
        let first = match what {
            "always the same" => Some(stage.browser().authorize(&stage.url("/app/")).await),
            _ => None,
        };
        let mut at = stage.url("/app/");
        for round in 0..3 {
            let callback = browser.authorize(&at).await;
            let callback = with_query(first.as_ref().unwrap_or(&callback), change);
            let answer = browser.navigate(callback.as_str()).await;
            if round == 0 {
                assert_eq!(answer.status, 302, "{what}: {answer:?}");
                at = answer.location().to_string();
                // To the provider, and from there to the callback again.
                let callback = browser.navigate(&at).await.location();
                let callback = with_query(first.as_ref().unwrap_or(&callback), change);
                let again = browser.navigate(callback.as_str()).await;
                assert!((400..500).contains(&again.status), "{what}: {again:?}");
                page(&again, again.status);
            } else {
                // Whoever asks again is told at once.
                assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
            }
            at = stage.url("/app/");
        }
        assert!(browser.session().is_empty(), "{what}");
    }
    assert_eq!(stage.idp.login_calls(), (0, 0));
    // A refusal is one also without its state.
    let refusal = stage.url("/aporeto/oidc/callback?error=access_denied");
    let answer = stage.browser().navigate(&refusal).await;
    page(&answer, 403);
    // Who is logged in goes on.
    let mut browser = stage.logged_in().await;
    browser.navigate(&refusal).await.expect(303);
}

/// The transaction of one service, of another browser, or a session's cookie in its place: nothing.
#[tokio::test]
async fn a_transaction_cookie_is_not_forged() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    let mut other = stage.browser();
    other.authorize(&stage.url("/app/")).await;
    let (name, _) = browser.named(LOGIN_COOKIE).remove(0);
    let (_, stolen) = other.named(LOGIN_COOKIE).remove(0);
    for value in [stolen, "AAAA".to_owned(), String::new(), "x".repeat(3_000)] {
        let mut forger = stage.browser();
        forger.jar.push((HOST.to_owned(), name.clone(), value));
        let answer = forger.navigate(callback.as_str()).await;
        assert!(answer.status < 500, "{answer:?}");
        no_session(&stage, &mut forger, &answer).await;
    }
    assert_eq!(stage.idp.login_calls(), (0, 0));
}

/// RP-29: the callback's URL again, by reload or the back button.
#[tokio::test]
async fn a_reloaded_callback_goes_to_the_page() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/page?x=1")).await;
    browser.navigate(callback.as_str()).await.expect(303);
    let session = browser.session();
    let again = browser.navigate(callback.as_str()).await.expect(303);
    assert_eq!(again.location().as_str(), stage.url("/app/page?x=1"));
    assert_eq!(browser.session(), session);
    assert_eq!(stage.idp.login_calls().0, 1, "token calls");
}

/// RP-18: the code of a login that is over, with the transaction brought back.
#[tokio::test]
async fn a_transaction_is_used_once() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    let kept = browser.jar.clone();
    browser.navigate(callback.as_str()).await.expect(303);
    browser.jar = kept;
    let answer = browser.navigate(callback.as_str()).await;
    assert_eq!(answer.status, 302, "the login starts again: {answer:?}");
    assert!(!answer.sets_session());
    assert_eq!(stage.idp.login_calls().0, 1, "token calls");
}

/// WEB-06, RP-29: two tabs, finished in either order.
#[tokio::test]
async fn two_tabs_both_end_at_their_page() {
    let stage = Stage::usual().await;
    for order in [[0, 1], [1, 0]] {
        let mut browser = stage.browser();
        let before = stage.idp.login_calls().0;
        let pages = ["/app/one", "/app/two"].map(|path| stage.url(path));
        let tabs = [browser.authorize(&pages[0]).await, browser.authorize(&pages[1]).await];
        for tab in order {
            let back = browser.navigate(tabs[tab].as_str()).await.expect(303);
            assert_eq!(back.location().as_str(), pages[tab]);
            browser.navigate(&pages[tab]).await.expect(200);
        }
        assert!(stage.idp.login_calls().0 - before <= 2, "a code was exchanged twice");
    }
}

/// WEB-06: at most four transactions, the oldest goes; every tab gets where it wants to.
#[tokio::test]
async fn twenty_tabs_leave_four_transactions() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let mut tabs = Vec::new();
    for index in 0..20 {
        tabs.push(browser.authorize(&stage.url(&format!("/app/{index}"))).await);
        assert!(browser.named(LOGIN_COOKIE).len() <= 4, "{:?}", browser.named(LOGIN_COOKIE));
    }
    for (index, tab) in tabs.iter().enumerate().rev() {
        let back = browser.navigate(tab.as_str()).await.expect(303);
        assert_eq!(back.location().as_str(), stage.url(&format!("/app/{index}")));
    }
    assert!(stage.idp.login_calls().0 <= 4, "{:?}", stage.idp.login_calls());

    // Without any other login, the oldest tab logs in anew and comes to its page.
    let mut browser = stage.browser();
    let mut tabs = Vec::new();
    for index in 0..5 {
        tabs.push(browser.authorize(&stage.url(&format!("/app/{index}"))).await);
    }
    let page = browser.follow(tabs[0].as_str()).await.expect(200);
    assert_eq!(page.json()["target"], "/app/0");
}

/// The loop detector: a browser that keeps no cookies is told so at the second try.
#[tokio::test]
async fn lost_cookies_end_in_a_page_that_says_so() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let mut url = Url::parse(&stage.url("/app/")).unwrap();
    let mut answers = Vec::new();
    for _ in 0..5 {
        browser.jar.clear();
        let answer = browser.navigate(url.as_str()).await;
        if answer.status == 302 {
            url = answer.location();
        }
        answers.push(answer);
    }
    // The page, the provider, the callback, the provider again, the callback again.
    assert_eq!(answers[..4].iter().map(|answer| answer.status).collect::<Vec<_>>(), [302; 4], "{answers:?}");
    let second = answers.remove(4);
    assert!((400..500).contains(&second.status), "{second:?}");
    page(&second, second.status);
    assert!(second.text().to_lowercase().contains("cookie"), "{}", second.text());
    assert_eq!(stage.idp.login_calls(), (0, 0));
}

/// WEB-01, WEB-02: whatever is asked as the target, a browser stays on this origin.
#[tokio::test]
async fn the_return_target_is_of_this_origin() {
    let stage = Stage::usual().await;
    let hosts = ["evil.test", "evil.test:443", "user@evil.test", "evil.test/app/"];
    let starts = [
        "//",
        "///",
        "////",
        "/\\",
        "\\\\",
        "\\/",
        "/\t/",
        "\t//",
        "/\n/",
        "/\r\n/",
        "http://",
        "https://",
        "https:",
        "https:/",
        "HTTPS://",
        "//app.test@",
        "/%09/",
        "/%2f",
        "/%5c",
        "/.//",
        "/..//",
        "/;//",
        "/?//",
        "/#//",
        " //",
        "javascript:",
        "data:text/html,",
        "//\u{3002}",
        "/\u{2028}/",
        "",
        "@",
        "/app/..//",
        "/app/%2e%2e//",
    ];
    for (index, start) in starts.iter().enumerate() {
        let wanted = format!("{start}{}", hosts[index % hosts.len()]);
        let encoded: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
        let mut browser = stage.browser();
        let started = browser.navigate(&stage.url(&format!("/aporeto/oidc/login?return={encoded}"))).await;
        if started.status == 400 {
            continue;
        }
        let callback = browser.navigate(started.expect(302).location().as_str()).await.location();
        let back = browser.navigate(callback.as_str()).await.expect(303);
        let raw = back.header("location");
        assert_eq!(
            back.location().origin().ascii_serialization(),
            stage.origin,
            "{wanted:?} leads to {raw:?}"
        );
        assert!(!raw.chars().any(|character| character.is_control()), "{raw:?}");
    }
    for target in [
        "//evil.test/",
        "/\\evil.test",
        "/%09/evil.test",
        "/%5cevil.test",
        "http://evil.test/",
        "https://evil.test/app/",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n"
        );
        let answer = Raw::ask(stage.port, HOST, &request).await;
        assert!(matches!(answer.status, 400 | 421), "{target}: {answer:?}");
    }
}

/// WEB-04: a target that is too long is dropped, and the login works.
#[tokio::test]
async fn a_long_target_becomes_the_root() {
    let stage = Stage::usual().await;
    for (length, kept) in [(900, true), (1_900, true), (2_100, false), (8_000, false)] {
        let target = format!("/app/?x={}", "y".repeat(length));
        let mut browser = stage.browser();
        let back = stage.login(&mut browser, &target).await.expect(303);
        let wanted = if kept { target.as_str() } else { "/" };
        assert_eq!(back.location().as_str(), stage.url(wanted), "{length}");
    }
}

/// The reserved path that starts a login, also for somebody who is logged in.
#[tokio::test]
async fn the_login_path_starts_a_login() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let page = browser.follow(&stage.url("/aporeto/oidc/login?return=/app/after%3Fx%3D1")).await.expect(200);
    assert_eq!(page.json()["target"], "/app/after?x=1");
    let back = stage.login(&mut browser, "/aporeto/oidc/login").await.expect(303);
    assert_eq!(back.location().as_str(), stage.url("/"));
}

/// `OIDCAuthorizationParameters`, and `openid` in the scope without being asked for.
#[tokio::test]
async fn parameters_of_the_authorization_request() {
    let stage = Stage::with(|plan| {
        plan.set("OIDCScopes", json!(["email"]));
        plan.set(
            "OIDCAuthorizationParameters",
            json!({ "prompt": "login", "max_age": "600", "instance_id": "a b&c" }),
        );
    })
    .await;
    accepted_login(&stage).await;
    let call = stage.idp.calls_of(&Endpoint::Authorize).remove(0);
    let mut scopes: Vec<&str> = call.parameter("scope").unwrap().split(' ').collect();
    scopes.sort_unstable();
    assert_eq!(scopes, ["email", "openid"]);
    for (name, value) in [("prompt", "login"), ("max_age", "600"), ("instance_id", "a b&c")] {
        assert_eq!(call.parameter(name), Some(value));
    }
    // max_age was asked for, so auth_time is verified.
    for wrong in [None, Some(json!(1_000_000_000)), Some(json!("now"))] {
        stage.idp.change(|behaviour| {
            let wrong = wrong.clone();
            behaviour.claims = std::sync::Arc::new(move |claims| match &wrong {
                Some(value) => claims["auth_time"] = value.clone(),
                None => drop(claims.as_object_mut().unwrap().remove("auth_time")),
            });
        });
        let mut browser = stage.browser();
        let answer = stage.login(&mut browser, "/app/").await;
        assert!((400..500).contains(&answer.status), "{wrong:?}: {answer:?}");
        no_session(&stage, &mut browser, &answer).await;
    }
}

/// REL-01: the provider is not there at the start.
#[tokio::test]
async fn a_provider_that_comes_later() {
    let stage = Stage::with(|plan| plan.idp_is_up = false).await;
    let mut browser = stage.browser();
    browser.navigate(&stage.url("/public/")).await.expect(200);
    let answer = browser.navigate(&stage.url("/app/")).await;
    page(&answer, 503);
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    let ready = stage.admin("/readyz").await.expect(200).json();
    assert!(ready.to_string().contains("degraded"), "{ready}");
    assert_eq!(stage.admin("/readyz?service=app").await.json()["status"], "degraded");
    stage.idp.up().await;
    eventually_logs_in(&stage, &mut browser).await;
    assert_eq!(stage.admin("/readyz?service=app").await.expect(200).json()["status"], "ready");
}

/// REL-02: it goes away later; who is logged in notices nothing.
#[tokio::test]
async fn a_provider_that_goes_away() {
    let stage = Stage::usual().await;
    let mut user = stage.logged_in().await;
    let mut late = stage.browser();
    let callback = late.authorize(&stage.url("/app/")).await;
    stage.idp.stop().await;
    for _ in 0..5 {
        user.navigate(&stage.url("/app/")).await.expect(200);
    }
    let answer = late.navigate(callback.as_str()).await;
    page(&answer, 503);
    assert_ne!(answer.header("retry-after"), "");
    no_session(&stage, &mut late, &answer).await;
    user.navigate(&stage.url("/app/")).await.expect(200);
    stage.idp.up().await;
    eventually_logs_in(&stage, &mut late).await;
}

/// A login works within five seconds.
async fn eventually_logs_in(stage: &Stage, browser: &mut Browser) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let mut answer = browser.navigate(&stage.url("/app/")).await;
    while answer.status == 503 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = browser.navigate(&stage.url("/app/")).await;
    }
    browser.follow(answer.expect(302).location().as_str()).await.expect(200);
}

/// Discovery is asked once, however many want to log in at once.
#[tokio::test]
async fn a_storm_of_logins_asks_discovery_once() {
    let stage = Stage::usual().await;
    let logins = (0..20).map(|_| accepted_one(&stage));
    futures_util::future::join_all(logins).await;
    assert_eq!(stage.idp.count(&Endpoint::Discovery), 1);
    assert!(stage.idp.count(&Endpoint::Jwks) <= 1, "{}", stage.idp.count(&Endpoint::Jwks));
    assert_eq!(stage.idp.count(&Endpoint::Token), 20);
}

async fn accepted_one(stage: &Stage) {
    stage.browser().follow(&stage.url("/app/")).await.expect(200);
}

/// Programs are told where a login starts, and it leads to where they were.
#[tokio::test]
async fn a_program_learns_where_to_log_in() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let document = problem(&browser.fetch(&stage.url("/app/data")).await, 401);
    let login = document["login"].as_str().unwrap().to_owned();
    assert!(login.starts_with(&stage.url("/aporeto/oidc/login")), "{login}");
    let target = stage.idp.count(&Endpoint::Authorize);
    browser.follow(&login).await.expect(200);
    assert_eq!(stage.idp.count(&Endpoint::Authorize), target + 1);
    browser.fetch(&stage.url("/app/data")).await.expect(200);
}

fn with_query(url: &Url, change: impl FnOnce(&mut Vec<(String, String)>)) -> Url {
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    change(&mut pairs);
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url
}
