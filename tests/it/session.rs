//! The session cookie over the wire: what it shows, what it stands, how long it lives.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Browser, Raw};
use crate::support::expect::{accepted_login, page, problem};
use crate::support::idp::{Algorithm, Behaviour, random};
use crate::support::ports::free_port;
use crate::support::stage::{HOST, Stage};

/// Names and values.
type Cookies = Vec<(String, String)>;

/// SES-01, SES-02.
#[tokio::test]
async fn the_cookie_is_sealed_and_strict() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let back = stage.login(&mut browser, "/app/").await.expect(303);
    assert!(back.sets_session());
    for cookie in back.set_cookies() {
        let lower = cookie.to_lowercase();
        assert!(cookie.starts_with("__Host-portcullis"), "{cookie}");
        for attribute in ["; secure", "; httponly", "; samesite=lax", "; path=/"] {
            assert!(lower.contains(attribute), "{attribute}: {cookie}");
        }
        assert!(!lower.contains("domain"), "{cookie}");
        assert!(cookie.len() <= 4096, "{} bytes", cookie.len());
    }
    for (_, value) in browser.session() {
        let bytes = URL_SAFE_NO_PAD.decode(&value).expect("base64url without padding");
        for secret in ["alice", "acme.com", "staff", "email"] {
            assert!(
                !value.contains(secret) && !value.contains(STANDARD.encode(secret).trim_end_matches('='))
            );
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
}

/// SES-03.
#[tokio::test]
async fn a_changed_cookie_is_no_session() {
    let stage = Stage::usual().await;
    let browser = stage.logged_in().await;
    let [(name, value)] = &browser.session()[..] else { panic!("one cookie: {:?}", browser.session()) };
    let mut raw = Raw::connect(stage.port, HOST).await;
    let mut status = async |value: &str| {
        let request = format!("GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: {name}={value}\r\n\r\n");
        raw.send(&request).await;
        raw.answer().await.expect("an answer on the same connection").status
    };
    assert_eq!(status(value).await, 200);
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(status(&URL_SAFE_NO_PAD.encode(flipped)).await, 401, "bit {bit}");
    }
    for length in 0..value.len() {
        assert_eq!(status(&value[..length]).await, 401, "cut to {length}");
    }
    for other in [
        format!("{value}A"),
        format!("{value}AAAA"),
        format!("{value}{value}"),
        format!("{value}="),
        format!("\"{value}"),
    ] {
        assert_eq!(status(&other).await, 401, "{other}");
    }
    assert_eq!(status(value).await, 200);
}

/// SES-04: two services that share a key, two hosts, two clients.
#[tokio::test]
async fn a_session_is_of_one_service() {
    let state = Arc::new(TempDir::new().unwrap());
    let first = Stage::build(|_| {}, state.clone()).await.unwrap();
    let browser = first.logged_in().await;
    // Its state directory is for one process at a time.
    let Stage { proxy, idp: _idp, config, .. } = first;
    proxy.stop().await;
    for (field, value) in
        [("name", "other"), ("OIDCClientID", "another"), ("OIDCProviderURL", "https://idp.example.com")]
    {
        let second = Stage::build(
            |plan| {
                plan.wait_for_discovery = false;
                plan.idp_is_up = false;
                for field in ["OIDCProviderURL", "OIDCClientID", "OIDCClientSecret"] {
                    plan.set(field, config["services"][0][field].clone());
                }
                plan.set(field, json!(value));
            },
            state.clone(),
        )
        .await
        .unwrap();
        let mut thief = second.browser();
        thief.jar = browser.jar.clone();
        let answer = thief.fetch(&second.url("/app/")).await;
        assert!(matches!(answer.status, 401 | 503), "another {field}: {answer:?}");
        assert_eq!(second.app.count(), 0, "another {field}");
    }
    // The same service again, from the same state: the session goes on.
    let again = Stage::build(
        |plan| {
            plan.idp_is_up = false;
            for field in ["OIDCProviderURL", "OIDCClientID", "OIDCClientSecret"] {
                plan.set(field, config["services"][0][field].clone());
            }
        },
        state,
    )
    .await
    .unwrap();
    let mut same = again.browser();
    same.jar = browser.jar.clone();
    same.fetch(&again.url("/app/")).await.expect(200);
}

/// SES-06, and that asking for the session does not extend it.
#[tokio::test]
async fn an_idle_session_ends() {
    let stage =
        Stage::with(|plan| plan.config["session"] = json!({ "idleTimeout": "10s", "maxLifetime": "1h" }))
            .await;
    let mut browser = stage.logged_in().await;
    let asked = browser.fetch(&stage.url("/aporeto/oidc/session")).await.expect(200);
    let mut members: Vec<String> = asked.json().as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["expiresAt", "idleExpiresAt", "issuer", "subject"]);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(14);
    loop {
        let answer = browser.fetch(&stage.url("/aporeto/oidc/session")).await;
        assert!(!answer.sets_session(), "asking extends the session");
        if answer.status == 401 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "still a session: {}", answer.text());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    problem(&browser.fetch(&stage.url("/app/")).await, 401);
    browser.navigate(&stage.url("/app/")).await.expect(302);
}

/// A used session is sealed anew before it would end, and what sets it is kept by no cache.
#[tokio::test]
async fn a_used_session_goes_on() {
    let stage =
        Stage::with(|plan| plan.config["session"] = json!({ "idleTimeout": "10s", "maxLifetime": "1h" }))
            .await;
    let mut browser = stage.logged_in().await;
    let first = browser.session();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let answer = browser.fetch(&stage.url("/app/caching")).await.expect(200);
        if answer.sets_session() {
            assert!(answer.header("cache-control").contains("private"), "{answer:?}");
            assert!(!answer.header("cache-control").contains("public"), "{answer:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "never sealed anew");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_ne!(browser.session(), first);
    browser.fetch(&stage.url("/app/")).await.expect(200);
    assert_eq!(stage.idp.login_calls().0, 1);
}

/// SES-07: a ring of keys, changed by restarts.
#[tokio::test]
async fn keys_are_rotated() {
    let state = Arc::new(TempDir::new().unwrap());
    let file = state.path().join("keys");
    let [old, new] = [STANDARD.encode([1; 32]), STANDARD.encode([2; 32])];
    let mut known: Option<(Browser, Value)> = None;
    for (keys, works) in [
        (format!("# old\n{old}\n"), true),
        (format!("{new}\n\n# old\n{old}"), true),
        (format!("{new}\n"), false),
    ] {
        std::fs::write(&file, keys).unwrap();
        let stage = Stage::build(
            |plan| {
                plan.config["session"] = json!({ "keyFile": file });
                if let Some((_, service)) = &known {
                    plan.wait_for_discovery = false;
                    for field in ["OIDCProviderURL", "OIDCClientID", "OIDCClientSecret"] {
                        plan.set(field, service[field].clone());
                    }
                }
            },
            state.clone(),
        )
        .await
        .unwrap();
        match &mut known {
            None => known = Some((stage.logged_in().await, stage.config["services"][0].clone())),
            Some((browser, _)) => {
                let answer = browser.fetch(&stage.url("/app/")).await;
                assert_eq!(answer.status == 200, works, "{answer:?}");
                // The provider of the first round is gone, so a new login gets 503 and not 401.
                assert!(works || answer.status == 503, "{answer:?}");
            }
        }
    }
}

/// SES-08: a user with 400 groups.
#[tokio::test]
async fn a_large_session_is_split() {
    let stage = Stage::usual().await;
    let groups: Vec<String> = (0..400).map(|index| format!("team-{index}-{}", random())).collect();
    let mut all = groups.clone();
    all.push("staff".into());
    stage.idp.change(|behaviour| behaviour.user["groups"] = json!(all));
    let mut browser = stage.browser();
    browser.follow(&stage.url("/staff/")).await.expect(200);
    let cookies = browser.session();
    assert!((2..=12).contains(&cookies.len()), "{}", cookies.len());
    for (index, (name, value)) in cookies.iter().enumerate() {
        let wanted =
            if index == 0 { "__Host-portcullis".to_owned() } else { format!("__Host-portcullis.{index}") };
        assert_eq!(*name, wanted);
        assert!(value.len() + name.len() < 4096);
    }
    let header: String = stage.app.last().header("x-groups").concat();
    assert!(header.is_empty() || header.len() <= 8_192, "{}", header.len());
    assert_eq!(stage.app.last().header("cookie"), Vec::<String>::new());
    browser.clone().http2().fetch(&stage.url("/staff/")).await.expect(200);

    // Parts that are missing, in excess, exchanged, or from another session.
    let mut other = stage.browser();
    other.follow(&stage.url("/staff/")).await.expect(200);
    let with = |change: &dyn Fn(&mut Cookies)| {
        let mut cookies = cookies.clone();
        change(&mut cookies);
        cookies
    };
    let foreign = other.session();
    let broken = [
        ("the first is missing", with(&|cookies| drop(cookies.remove(0)))),
        ("the last is missing", with(&|cookies| drop(cookies.pop()))),
        ("one of another session", with(&|cookies| cookies[1] = foreign[1].clone())),
        ("the first of another session", with(&|cookies| cookies[0] = foreign[0].clone())),
        (
            "two exchanged",
            with(&|cookies| {
                let (first, second) = (cookies[0].1.clone(), cookies[1].1.clone());
                cookies[0].1 = second;
                cookies[1].1 = first;
            }),
        ),
    ];
    for (what, cookies) in broken {
        let mut thief = stage.browser();
        thief.jar = cookies.into_iter().map(|(name, value)| (HOST.to_owned(), name, value)).collect();
        let answer = thief.fetch(&stage.url("/staff/")).await;
        assert_eq!(answer.status, 401, "{what}");
    }
    // Parts of numbers that no session has are not looked at.
    let mut more = browser.clone();
    more.jar.push((HOST.into(), "__Host-portcullis.99999999".into(), "AAAA".into()));
    more.jar.push((HOST.into(), "__Host-portcullis.x".into(), "AAAA".into()));
    let status = more.fetch(&stage.url("/staff/")).await.status;
    assert!(matches!(status, 200 | 401), "{status}");

    let parts =
        (cookies.len()..17).map(|index| (HOST.into(), format!("__Host-portcullis.{index}"), "AAAA".into()));
    let mut seventeen = browser.clone();
    seventeen.jar.extend(parts);
    let status = seventeen.fetch(&stage.url("/staff/")).await.status;
    assert!(matches!(status, 200 | 401), "seventeen parts: {status}");

    // A smaller session takes the parts of the larger away.
    stage.idp.change(|behaviour| behaviour.user["groups"] = json!(["staff"]));
    browser.follow(&stage.url("/aporeto/oidc/login?return=/staff/")).await.expect(200);
    assert_eq!(browser.session().len(), 1, "{:?}", browser.session());
}

/// Past the cap: no session, and the log names the claim.
#[tokio::test]
async fn a_session_that_is_too_large_is_refused() {
    let stage = Stage::usual().await;
    let groups: Vec<String> = (0..1_500).map(|index| format!("team-{index}-{}", random())).collect();
    stage.idp.change(|behaviour| behaviour.user["groups"] = json!(groups));
    let mut browser = stage.browser();
    let answer = stage.login(&mut browser, "/staff/").await;
    assert!((400..=503).contains(&answer.status), "{answer:?}");
    page(&answer, answer.status);
    assert!(!answer.sets_session());
    let told = |line: &Value| {
        line["event"].is_string() && line["level"] != "info" && line.to_string().contains("groups")
    };
    stage.proxy.line("the claim that is too large", told).await;
}

/// SES-09: cookies that somebody else tossed in.
#[tokio::test]
async fn tossed_cookies_change_nobody() {
    let stage = Stage::usual().await;
    let user = stage.logged_in().await;
    let (name, value) = user.session().remove(0);
    stage.idp.change(|behaviour| {
        behaviour.user["sub"] = json!("mallory");
        behaviour.user_info["sub"] = json!("mallory");
    });
    let attacker = stage.logged_in().await;
    let (_, tossed) = attacker.session().remove(0);
    let garbage = format!("{name}=AAAA");
    let real = format!("{name}={value}");
    let subject = async |cookies: String| {
        let request = format!("GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n\r\n");
        let answer = Raw::ask(stage.port, HOST, &request).await;
        assert!(matches!(answer.status, 200 | 401 | 403), "{answer:?}");
        (answer.status == 200).then(|| stage.app.last().header("x-user").concat())
    };
    assert_eq!(subject(format!("{garbage}; {real}")).await.as_deref(), Some("alice"), "garbage first");
    assert_eq!(subject(format!("{real}; {garbage}")).await.as_deref(), Some("alice"), "garbage last");
    let many = vec![garbage.clone(); 50].join("; ");
    let among_many = subject(format!("{many}; {real}")).await;
    assert!(among_many.is_none() || among_many.as_deref() == Some("alice"));
    // Two real ones: nobody can tell whose browser it is.
    let both = subject(format!("{real}; {name}={tossed}")).await;
    assert_eq!(both, None, "one of two sessions was chosen");
}

/// SES-10: a session that was there before the login does not survive it.
#[tokio::test]
async fn a_login_makes_a_new_session() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    let before = browser.session();
    stage.idp.change(|behaviour| behaviour.user["sub"] = json!("bob"));
    browser.follow(&stage.url("/aporeto/oidc/login?return=/app/")).await.expect(200);
    assert_ne!(browser.session(), before);
    assert_eq!(stage.app.last().header("x-user"), ["bob"]);
}

/// SES-14: whatever a Cookie header holds, it is parsed or refused.
#[tokio::test]
async fn odd_cookie_headers_are_survived() {
    let stage = Stage::usual().await;
    let user = stage.logged_in().await;
    let real = user.cookies(HOST);
    let odd: Vec<(Vec<u8>, bool)> = vec![
        (format!(";;;=;{real}").into(), true),
        (format!("a; b=; =c; {real}; \"q\"=\"x\"").into(), true),
        ([b"latin=\xe9\xff; ", real.as_bytes()].concat(), true),
        (format!("a=\"b; c\"; {real}").into(), true),
        (format!("{}{real}", "a=b; ".repeat(1_000)).into(), true),
        (format!("{real}; x={}", "y".repeat(65_536)).into(), false),
        (b"a=\0".to_vec(), false),
    ];
    for (cookies, served) in odd {
        let request =
            [format!("GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: ").as_bytes(), &cookies, b"\r\n\r\n"]
                .concat();
        let answer = Raw::ask(stage.port, HOST, request).await;
        let shown = String::from_utf8_lossy(&cookies[..cookies.len().min(40)]).into_owned();
        assert_eq!(answer.status == 200, served, "{shown}: {answer:?}");
        assert!(matches!(answer.status, 200 | 400 | 431), "{shown}: {answer:?}");
    }
}

/// Logout: a page with a form, the form's token, the cookies gone, the answers without a session.
#[tokio::test]
async fn a_user_logs_out() {
    let stage = Stage::usual().await;
    let logout = stage.url("/aporeto/oidc/logout");
    let mut nobody = stage.browser();
    page(&nobody.navigate(&logout).await, 200);

    let mut browser = stage.logged_in().await;
    let form = browser.navigate(&logout).await;
    page(&form, 200);
    assert!(!browser.session().is_empty(), "a GET alone logs out");
    let text = form.text();
    assert_eq!(text.matches("<form").count(), 1, "{text}");
    let token =
        text.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token in the form");
    let name = text
        .split("type=\"hidden\"")
        .nth(1)
        .or(Some(&text))
        .and_then(|rest| rest.split("name=\"").nth(1))
        .unwrap();
    let name = name.split('"').next().unwrap();

    // A form of another site, and one with another session's token.
    let cross = [("sec-fetch-site", "cross-site"), ("content-type", "application/x-www-form-urlencoded")];
    for body in ["", "token=AAAA", &format!("{name}=AAAA")] {
        let refused = browser.send("POST", &logout, &cross, body.as_bytes()).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        assert!(!browser.session().is_empty(), "logged out by another site");
    }
    let body: String = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, token).finish();
    let done = browser.send("POST", &logout, &cross[1..], body.as_bytes()).await;
    assert!(matches!(done.status, 200 | 302 | 303), "{done:?}");
    assert_eq!(done.header("clear-site-data"), "\"cache\"");
    assert_eq!(browser.session(), []);
    problem(&browser.fetch(&stage.url("/app/")).await, 401);
    stage.proxy.event("logout").await;

    let mut browser = stage.logged_in().await;
    let mut copy = browser.clone();
    copy.fetch(&stage.url("/app/")).await.expect(200);
    let done = browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await;
    assert!(matches!(done.status, 200 | 302 | 303), "{done:?}");
    assert_eq!(browser.session(), []);
    // A copy of the cookie is over too, on whichever worker.
    for _ in 0..8 {
        problem(&copy.fetch(&stage.url("/app/")).await, 401);
    }
    // Without a session, as a form of another site is sent, nothing is ended and nothing is said to be.
    let refused = stage.browser().send("POST", &logout, &cross, b"").await;
    assert_eq!((refused.status, refused.header("clear-site-data")), (403, ""));
}

/// A new configuration that needs a claim that the session did not keep: a new login, not a wrong decision.
#[tokio::test]
async fn a_claim_that_was_not_kept_is_asked_for_again() {
    let state = Arc::new(TempDir::new().unwrap());
    let port = free_port();
    let build = |tag: &'static str, known: Option<Value>| {
        let state = state.clone();
        async move {
            let change = |plan: &mut crate::support::stage::Plan| {
                plan.behaviour = Behaviour::good(Algorithm::Es256);
                plan.behaviour.user["department"] = json!("sales");
                plan.set("exposedPort", json!(port));
                plan.set("OIDCCallbackURL", json!(format!("https://{HOST}:{port}")));
                plan.endpoints(json!([{ "URI": "/app/*", "methods": ["*"], "allowedScopes": [[tag]] }]));
                if let Some(service) = &known {
                    plan.idp_is_up = false;
                    for field in ["OIDCProviderURL", "OIDCClientID", "OIDCClientSecret"] {
                        plan.set(field, service[field].clone());
                    }
                }
            };
            Stage::build(change, state).await.unwrap()
        }
    };
    let mut first = build("email=*", None).await;
    first.port = port;
    first.origin = format!("https://{HOST}:{port}");
    let browser = accepted_login(&first).await;
    let service = first.config["services"][0].clone();
    let Stage { proxy, idp, .. } = first;
    proxy.stop().await;
    let second = build("department=sales", Some(service)).await;
    let mut same = second.browser();
    same.jar = browser.jar.clone();
    let answer = same.fetch(&format!("https://{HOST}:{port}/app/")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    drop(idp);
}
