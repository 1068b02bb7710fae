//! Logout: by the person, by the provider server to server, and by a frame.

use serde_json::{Value, json};

use crate::support::client::{Browser, FETCH, NAVIGATION, Raw};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Key, Signer, find, random, set};
use crate::support::stage::{HOST, Plan, Stage};

const BACKCHANNEL: &str = "/aporeto/oidc/backchannel-logout";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn refreshable(plan: &mut Plan) {
    plan.set("OIDCScopes", json!(["openid", "email", "profile", "offline_access"]));
    plan.limit("workers", json!(2));
}

/// A provider with logout endpoints.
async fn stage() -> Stage {
    Stage::with(|plan| {
        refreshable(plan);
        plan.behaviour = Behaviour::good(Algorithm::Es256).with_logout();
    })
    .await
}

/// The session of the provider that the next logins come from.
fn provider_session(stage: &Stage, sid: Option<&str>, subject: &str) {
    let sid = sid.map_or(Value::Null, |sid| json!(sid));
    let subject = subject.to_owned();
    stage.idp.change(move |behaviour| {
        set(&mut behaviour.user, "sid", sid);
        set(&mut behaviour.user, "sub", json!(subject));
        behaviour.user_info = behaviour.user.clone();
    });
}

async fn is_alive(stage: &Stage, browser: &Browser) -> bool {
    // On both workers, most likely.
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(browser.clone().fetch(&stage.url("/app/")).await.status);
    }
    match statuses[0] {
        200 | 401 if statuses.iter().all(|status| *status == statuses[0]) => statuses[0] == 200,
        _ => panic!("{statuses:?}"),
    }
}

async fn tell(stage: &Stage, token: &str) -> crate::support::client::Answer {
    let body = format!("logout_token={token}");
    stage.browser().send("POST", &stage.url(BACKCHANNEL), &[FORM], body.as_bytes()).await
}

/// RP-40 (oidcc-client-test-rp-init-logout, -other-state, -no-state).
#[tokio::test]
async fn a_logout_goes_on_at_the_provider_and_comes_back() {
    let stage = stage().await;
    let mut browser = stage.logged_in().await;
    let before = browser.clone();
    let page = browser.navigate(&stage.url("/aporeto/oidc/logout")).await.expect(200);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("form-action 'self' https: http://127.0.0.1:"), "{policy}");
    let text = page.text();
    let token = text.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let headers = [&NAVIGATION[..1], &[FORM]].concat();
    let body = format!("token={token}");
    let answer = browser.send("POST", &page.url, &headers, body.as_bytes()).await.expect(303);
    assert_eq!(answer.header("clear-site-data"), "\"cache\"");
    assert!(browser.session().is_empty(), "{:?}", browser.session());
    let location = answer.location();
    assert!(
        location.as_str().starts_with(&format!("{}/end-session?tenant=a%20b&", stage.idp.issuer)),
        "{location}"
    );
    let query: Vec<(String, String)> = location.query_pairs().into_owned().collect();
    let parameter = |name: &str| find(&query, name).unwrap_or_default();
    assert_eq!(parameter("client_id"), stage.idp.behaviour().client_id);
    assert_eq!(parameter("post_logout_redirect_uri"), stage.url("/aporeto/oidc/logout"));
    assert_eq!(parameter("id_token_hint").split('.').count(), 3);
    assert!(parameter("state").len() >= 22);
    assert!(!is_alive(&stage, &before).await, "a copy of the cookie is no session any more");
    stage.idp.wait_for(&Endpoint::Revoke, 1).await;
    let [revocation] = &stage.idp.calls_of(&Endpoint::Revoke)[..] else { panic!("one revocation") };
    assert!(find(&revocation.form, "token").is_some_and(|token| token.starts_with("refresh-")));
    assert_eq!(find(&revocation.form, "token_type_hint"), Some("refresh_token"));

    browser.follow(location.as_str()).await.expect(200);
    for state in ["", "?state=another", "?state=%3Cscript%3E&state=x"] {
        let back = browser.navigate(&stage.url(&format!("/aporeto/oidc/logout{state}"))).await.expect(200);
        assert!(back.text().contains("You are signed out") && !back.text().contains("script>"), "{state}");
    }
    assert!(stage.idp.wrongs().is_empty(), "{:?}", stage.idp.wrongs());
}

/// A script can't be sent to another origin: it is told where its page has to go. And nobody chooses that address.
#[tokio::test]
async fn a_script_is_told_where_to_go_on() {
    let stage = stage().await;
    let mut browser = stage.logged_in().await;
    let url =
        stage.url("/aporeto/oidc/logout?post_logout_redirect_uri=https://evil.example&return=//evil.example");
    let answer = browser.send("POST", &url, &FETCH, b"").await.expect(200);
    let next = answer.json()["logout"].as_str().unwrap().to_owned();
    assert!(next.starts_with(&stage.idp.issuer) && !next.contains("evil"), "{next}");
    browser.fetch(&stage.url("/app/")).await.expect(401);
}

/// A second click on the button: the browser takes the answer to that one, which must not leave the provider's own
/// session alive.
#[tokio::test]
async fn a_second_click_goes_on_at_the_provider_too() {
    let stage = stage().await;
    let browser = stage.logged_in().await;
    let url = stage.url("/aporeto/oidc/logout");
    for click in 1..=2 {
        let answer = browser.clone().send("POST", &url, &[SAME_ORIGIN], b"").await.expect(303);
        let location = answer.location();
        assert!(location.as_str().starts_with(&format!("{}/end-session?", stage.idp.issuer)), "{location}");
        let query: Vec<(String, String)> = location.query_pairs().into_owned().collect();
        // A copy of the cookie of a session that is over tells nobody anything.
        assert_eq!(find(&query, "id_token_hint").is_some(), click == 1, "{click}");
        assert_eq!(find(&query, "logout_hint"), None);
        assert!(find(&query, "client_id").is_some() && find(&query, "state").is_some());
    }
    // Without any session there is nothing to go on with.
    stage.browser().send("POST", &url, &[SAME_ORIGIN], b"").await.expect(200);
}

/// A large ID token stays out of the cookie: then the provider is told whose session it was.
#[tokio::test]
async fn a_large_id_token_is_no_hint() {
    let stage = stage().await;
    stage.idp.change(|behaviour| {
        set(&mut behaviour.user, "filling", json!("x".repeat(3000)));
    });
    let mut browser = stage.logged_in().await;
    let answer =
        browser.send("POST", &stage.url("/aporeto/oidc/logout"), &[SAME_ORIGIN], b"").await.expect(303);
    let query: Vec<(String, String)> = answer.location().query_pairs().into_owned().collect();
    assert_eq!(find(&query, "id_token_hint"), None);
    assert_eq!(find(&query, "logout_hint"), Some("alice"));
}

/// RP-36: by `sid` that session, by `sub` all of that person's; at every worker, and nobody else's.
#[tokio::test]
async fn the_provider_ends_sessions() {
    let stage = stage().await;
    provider_session(&stage, Some("one"), "alice");
    let one = stage.logged_in().await;
    provider_session(&stage, Some("two"), "alice");
    let [two, copy] = [stage.logged_in().await, stage.logged_in().await];
    provider_session(&stage, None, "bob");
    let bob = stage.logged_in().await;

    provider_session(&stage, None, "alice");
    let token = stage.idp.logout_token(|claims| set(claims, "sid", json!("one")));
    let answer = tell(&stage, &token).await.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!is_alive(&stage, &one).await);
    for alive in [&two, &copy, &bob] {
        assert!(is_alive(&stage, alive).await);
    }
    provider_session(&stage, None, "alice");
    let token = stage.idp.logout_token(|_| {});
    tell(&stage, &token).await.expect(200);
    for over in [&two, &copy] {
        assert!(!is_alive(&stage, over).await);
    }
    assert!(is_alive(&stage, &bob).await);
    // A new login of the same person at once is a new session.
    let again = stage.logged_in().await;
    assert!(is_alive(&stage, &again).await);
    // A token is taken once: it can't be kept to end sessions for ever.
    tell(&stage, &token).await.expect(400);
    assert!(is_alive(&stage, &again).await);
    // Nor does one that is late, or comes again where nobody remembers it, end what began after it was made.
    let late = |claims: &mut Value| {
        let made = claims["iat"].as_u64().unwrap() - 61;
        set(claims, "iat", json!(made));
    };
    tell(&stage, &stage.idp.logout_token(late)).await.expect(200);
    assert!(is_alive(&stage, &again).await);
    tell(&stage, &stage.idp.logout_token(|_| {})).await.expect(200);
    assert!(!is_alive(&stage, &again).await);

    // The provider goes on with a session that it has ended. Nobody is sent to it again and again for that.
    provider_session(&stage, Some("one"), "alice");
    let mut circle = stage.browser();
    let answer = stage.login(&mut circle, "/app/").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!answer.sets_session());
    let told = |line: &Value| line["event"].is_string() && line.to_string().contains("with a new `sid`");
    stage.proxy.line("why the login is good for nothing", told).await;
    provider_session(&stage, Some("three"), "alice");
    assert!(is_alive(&stage, &stage.logged_in().await).await);
}

/// RP-36: a session that came without a `sid` may be the one that is meant.
#[tokio::test]
async fn a_session_that_is_not_known_to_be_another_ends() {
    let stage = stage().await;
    let log_in = async |sid: Option<&str>, subject: &str| {
        provider_session(&stage, sid, subject);
        stage.logged_in().await
    };
    let [unplaced, placed, other] =
        [log_in(None, "bob").await, log_in(Some("five"), "bob").await, log_in(None, "alice").await];
    provider_session(&stage, Some("six"), "bob");
    let token = stage.idp.logout_token(|claims| set(claims, "sid", json!("six")));
    tell(&stage, &token).await.expect(200);
    assert!(!is_alive(&stage, &unplaced).await);
    assert!(is_alive(&stage, &placed).await && is_alive(&stage, &other).await);
}

/// RP-37 and the rest of Back-Channel Logout 1.0 section 2.6: none of these ends anything.
#[tokio::test]
async fn bad_logout_tokens_end_nothing() {
    type Change = Box<dyn Fn(&mut Value)>;
    let stage = stage().await;
    provider_session(&stage, Some("one"), "alice");
    let browser = stage.logged_in().await;
    let claim = |name: &'static str, value: Value| -> Change {
        Box::new(move |claims| set(claims, name, value.clone()))
    };
    let now = crate::support::idp::now();
    let cases: Vec<(&str, Change)> = vec![
        ("no events", claim("events", Value::Null)),
        ("another event", claim("events", json!({ "http://schemas.openid.net/event/other": {} }))),
        ("an event that is no object", claim("events", json!({ EVENT: true }))),
        ("events that are a list", claim("events", json!([EVENT]))),
        ("a nonce", claim("nonce", json!("n"))),
        ("another aud", claim("aud", json!("somebody-else"))),
        ("no aud", claim("aud", Value::Null)),
        ("another iss", claim("iss", json!("https://evil.example"))),
        ("no iss", claim("iss", Value::Null)),
        ("no jti", claim("jti", Value::Null)),
        ("no iat", claim("iat", Value::Null)),
        ("an old iat", claim("iat", json!(now - 3600))),
        ("an iat to come", claim("iat", json!(now + 3600))),
        ("no exp", claim("exp", Value::Null)),
        ("an exp in the past", claim("exp", json!(now - 120))),
        ("nobody", claim("sub", Value::Null)),
        (
            "an empty sid",
            Box::new(|claims| {
                set(claims, "sub", Value::Null);
                set(claims, "sid", json!(""));
            }),
        ),
    ];
    for (name, change) in cases {
        let token = stage.idp.logout_token(change);
        let answer = tell(&stage, &token).await;
        assert_eq!((answer.status, answer.header("cache-control")), (400, "no-store"), "{name}");
        assert!(!answer.text().contains(&token), "{name}");
    }
    let good = stage.idp.behaviour().signer;
    let stranger = Key::new(Algorithm::Es256, 1);
    for signer in [
        Signer::Unsigned(Some("none")),
        Signer::Unsigned(None),
        Signer::Key(stranger),
        Signer::Hmac(stage.idp.behaviour().client_secret.into_bytes()),
        Signer::Disguised(Key::new(Algorithm::Es256, 0), "RS256"),
    ] {
        let shown = format!("{signer:?}");
        stage.idp.change(|behaviour| behaviour.signer = signer);
        let token = stage.idp.logout_token(|_| {});
        assert_eq!(tell(&stage, &token).await.status, 400, "{shown}");
    }
    stage.idp.change(|behaviour| behaviour.signer = good);
    assert!(is_alive(&stage, &browser).await);
}

/// RP-39: what is no form with one token is refused before anything is verified, within bounds.
#[tokio::test]
async fn the_back_channel_takes_one_form_only() {
    let stage = stage().await;
    let browser = stage.logged_in().await;
    let url = stage.url(BACKCHANNEL);
    let token = stage.idp.logout_token(|_| {});
    let mut idp = stage.browser();
    let answer = idp.send("GET", &format!("{url}?logout_token={token}"), &[], b"").await.expect(405);
    assert_eq!(answer.header("allow"), "POST");
    let json = format!("{{\"logout_token\":\"{token}\"}}");
    idp.send("POST", &url, &[("content-type", "application/json")], json.as_bytes()).await.expect(400);
    let twice = format!("logout_token={token}&logout_token={token}");
    idp.send("POST", &url, &[FORM], twice.as_bytes()).await.expect(400);
    idp.send("POST", &url, &[FORM], b"").await.expect(400);
    idp.send("POST", &url, &[FORM], b"logout_token=").await.expect(400);
    idp.send("POST", &url, &[FORM], format!("logout_token={}", "x".repeat(1 << 20)).as_bytes())
        .await
        .expect(413);
    for _ in 0..50 {
        idp.send("POST", &url, &[FORM], format!("logout_token={}", random()).as_bytes()).await.expect(400);
    }
    assert_eq!(stage.idp.count(&Endpoint::Jwks), 1, "garbage asks the provider for nothing");
    assert!(is_alive(&stage, &browser).await);
    tell(&stage, &token).await.expect(200);
    assert!(!is_alive(&stage, &browser).await);
}

/// RP-41: off unless it is on; then only the exact issuer with a session of this service counts, everything else is
/// ignored, and only the provider may frame the page.
#[tokio::test]
async fn front_channel_logout() {
    let stage = stage().await;
    stage.browser().navigate(&stage.url("/aporeto/oidc/frontchannel-logout?iss=x&sid=y")).await.expect(404);
    drop(stage);
    let stage = Stage::with(|plan| {
        refreshable(plan);
        plan.set("OIDCFrontChannelLogout", json!(true));
    })
    .await;
    provider_session(&stage, Some("one"), "alice");
    let browser = stage.logged_in().await;
    let issuer = stage.idp.issuer.clone();
    let frame =
        [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), ("sec-fetch-site", "cross-site")];
    let load = async |query: &str| {
        let url = stage.url(&format!("/aporeto/oidc/frontchannel-logout?{query}"));
        let answer = stage.browser().send("GET", &url, &frame, b"").await.expect(200);
        let policy = answer.header("content-security-policy").to_owned();
        assert!(policy.contains(&format!("frame-ancestors {issuer}")), "{policy}");
        assert_eq!((answer.header("x-frame-options"), answer.header("cache-control")), ("", "no-store"));
    };
    for query in [
        "iss=https%3A%2F%2Fevil.example&sid=one".to_owned(),
        format!("iss={issuer}/&sid=one"),
        format!("iss={issuer}&sid=two"),
        format!("iss={issuer}&sid=one&sid=one"),
        format!("iss={issuer}&iss={issuer}&sid=one"),
        format!("iss={issuer}"),
        "sid=one".to_owned(),
        String::new(),
    ] {
        load(&query).await;
        assert!(is_alive(&stage, &browser).await, "{query}");
    }
    load(&format!("iss={issuer}&sid=one")).await;
    assert!(!is_alive(&stage, &browser).await);
}

/// SES-01: what a browser had of the same person before, another tab's login or a weaker one, goes on until the logout, and
/// ends with it wherever a copy is. Only so many are kept.
#[tokio::test]
async fn a_logout_ends_what_a_login_replaced() {
    let stage = stage().await;
    let mut browser = stage.browser();
    let mut copies = Vec::new();
    for _ in 0..6 {
        stage.login(&mut browser, "/aporeto/oidc/login?return=/app/").await.expect(303);
        copies.push(browser.clone());
    }
    let mut alive = Vec::new();
    for copy in &copies {
        alive.push(is_alive(&stage, copy).await);
    }
    assert_eq!(alive, [false, false, true, true, true, true], "the last one, and three that it replaced");
    let mut stream = Raw::connect(stage.port, HOST).await;
    let cookie = copies[2].cookies(HOST);
    stream.send(format!("GET /app/sse HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n")).await;
    stream.until("data: ").await.expect("an event");
    browser.send("POST", &stage.url("/aporeto/oidc/logout"), &[SAME_ORIGIN], b"").await.expect(303);
    for copy in &copies {
        assert!(!is_alive(&stage, copy).await);
    }
    stream.until("0\r\n\r\n").await.expect("the end of the events");
}

/// SES-10: a session that somebody planted is over when somebody else logs in, and was never theirs.
#[tokio::test]
async fn a_planted_session_ends_with_the_login() {
    let stage = stage().await;
    provider_session(&stage, None, "mallory");
    let planted = stage.logged_in().await;
    provider_session(&stage, None, "alice");
    let mut victim = planted.clone();
    let back = stage.login(&mut victim, "/strong/").await.expect(303);
    assert!(back.sets_session());
    assert!(is_alive(&stage, &victim).await);
    assert!(!is_alive(&stage, &planted).await);
    let session = victim.fetch(&stage.url("/aporeto/oidc/session")).await.expect(200).json();
    assert_eq!(session["subject"], "alice");
}
