//! Refresh: once however many ask, new tags for everybody, and sessions that outlive a provider that is away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::client::Browser;
use crate::support::idp::{Behaviour, Reply, set};
use crate::support::inside::Inside;
use crate::support::soon;
use crate::support::stage::Plan;

/// As long as the provider's tokens live, so that the next request is due.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

fn two_workers(plan: &mut Plan) {
    plan.limit("workers", json!(2));
}

/// The user from now on, for refreshes.
fn refreshed_as(inside: &Inside, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    inside.idp.change(|behaviour| behaviour.refresh_claims = Arc::new(change));
}

/// One request each from `clients`, all at once, each on a connection of its own.
async fn at_once(inside: &Inside, clients: &[Browser]) -> Vec<(u16, bool)> {
    let url = inside.url("/app/");
    let requests = clients.iter().cloned().map(|mut browser| {
        let url = url.clone();
        async move {
            let answer = browser.fetch(&url).await;
            (answer.status, answer.sets_session())
        }
    });
    join_all(requests).await
}

/// REL-14: 200 requests at the expiry, one call, no logout, and the new cookie for all of them.
#[tokio::test]
async fn two_hundred_requests_at_expiry_are_one_refresh() {
    let inside = Inside::with(two_workers).await;
    let mut browser = inside.logged_in().await;
    inside.advance(TOKEN_LIFETIME);
    let barrier = Arc::new(Semaphore::new(0));
    inside.idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
    let clients = vec![browser.clone(); 200];
    let release = async {
        inside.idp.wait_for_refreshes(1).await;
        barrier.add_permits(1_000);
    };
    let (answers, ()) = tokio::join!(at_once(&inside, &clients), release);
    assert!(answers.iter().all(|answer| *answer == (200, true)), "{answers:?}");
    assert_eq!(inside.idp.refreshes(), 1);
    // The old cookie is as good as the new one for a while.
    for (status, sets) in at_once(&inside, &clients[..20]).await {
        assert_eq!((status, sets), (200, true));
    }
    browser.fetch(&inside.url("/app/")).await.expect(200);
    let answer = browser.fetch(&inside.url("/app/")).await.expect(200);
    assert!(!answer.sets_session(), "the new cookie is not replaced again");
    assert_eq!(inside.idp.refreshes(), 1);
    assert_eq!(inside.events("refresh").len(), 1);
}

/// The same a thousand times in a row: every round redeems the token of the round before.
#[tokio::test]
async fn a_thousand_rounds_lose_nobody() {
    const ROUNDS: usize = 1_000;
    let inside = Inside::with(|plan| {
        two_workers(plan);
        plan.config["session"] = json!({ "idleTimeout": "1d", "maxLifetime": "30d" });
    })
    .await;
    let mut browser = inside.logged_in().await;
    let barrier = Arc::new(Semaphore::new(0));
    inside.idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
    for round in 1..=ROUNDS {
        inside.advance(TOKEN_LIFETIME);
        let clients = vec![browser.clone(); 3];
        let release = async {
            inside.idp.wait_for_refreshes(round).await;
            barrier.add_permits(1);
        };
        let (answers, ()) = tokio::join!(at_once(&inside, &clients), release);
        assert!(answers.iter().all(|answer| *answer == (200, true)), "round {round}: {answers:?}");
        browser.fetch(&inside.url("/app/")).await.expect(200);
        assert_eq!(inside.idp.refreshes(), round, "round {round}");
    }
}

/// A slow token endpoint: everybody goes on with the old tags after 2 s, and the refresh still counts.
#[tokio::test]
async fn a_slow_provider_holds_nobody_up() {
    let inside = Inside::with(two_workers).await;
    let mut browser = inside.logged_in().await;
    for round in 1..=5 {
        inside.advance(TOKEN_LIFETIME);
        let barrier = Arc::new(Semaphore::new(0));
        inside.idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
        let began = std::time::Instant::now();
        let answers = at_once(&inside, &vec![browser.clone(); 40]).await;
        assert!(answers.iter().all(|answer| answer.0 == 200), "round {round}: {answers:?}");
        let waited = began.elapsed();
        assert!((2.0..6.0).contains(&waited.as_secs_f64()), "round {round}: {waited:?}");
        // Whoever comes later has no need to wait at all.
        let began = std::time::Instant::now();
        browser.clone().fetch(&inside.url("/app/")).await.expect(200);
        assert!(began.elapsed() < Duration::from_secs(1), "round {round}: {:?}", began.elapsed());
        barrier.add_permits(1);
        let refreshed = async {
            while inside.events("refresh").len() < round {
                tokio::task::yield_now().await;
            }
        };
        soon("the refresh to end", refreshed).await;
        let answer = browser.fetch(&inside.url("/app/")).await.expect(200);
        assert!(answer.sets_session(), "round {round}");
        assert_eq!(inside.idp.refreshes(), round);
    }
}

/// Whoever leaves a group loses access with the next refresh, and the record says why; headers change too.
#[tokio::test]
async fn new_tags_count_from_the_refresh_on() {
    let inside = Inside::with(two_workers).await;
    let mut browser = inside.logged_in().await;
    browser.fetch(&inside.url("/staff/")).await.expect(200);
    refreshed_as(&inside, |claims| set(claims, "groups", json!(["guests", "a,b"])));
    browser.fetch(&inside.url("/staff/")).await.expect(200);
    inside.advance(TOKEN_LIFETIME);
    let answer = browser.fetch(&inside.url("/staff/")).await.expect(403);
    assert!(answer.sets_session(), "a refusal brings the new cookie too");
    browser.fetch(&inside.url("/app/")).await.expect(200);
    let request = inside.app.last();
    assert_eq!(request.header("x-groups"), ["guests,a%2Cb"]);
    let record = inside.line("a 403", |line| line["status"] == 403).await;
    assert_eq!(record["dropReason"], "policy");
    assert!(record["detail"].as_str().unwrap().contains("refresh at"), "{record}");
    let event = inside.events("refresh").pop().expect("an event");
    assert_eq!(event["message"], "changed claims: groups");
}

/// RP-33: what ends the session, and never brings the old token to the provider again.
#[tokio::test]
async fn a_refused_refresh_ends_the_session() {
    type Change = Box<dyn Fn(&mut Behaviour) + Send>;
    let claim = |name: &'static str, value: Value| -> Change {
        Box::new(move |behaviour| {
            let value = value.clone();
            behaviour.refresh_claims = Arc::new(move |claims| set(claims, name, value.clone()));
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        ("another sub", claim("sub", json!("mallory"))),
        ("another iss", claim("iss", json!("https://evil.example"))),
        ("another aud", claim("aud", json!("somebody-else"))),
        ("a second aud", claim("aud", json!(["client-of-the-tests", "somebody-else"]))),
        ("another nonce", claim("nonce", json!("of-another-login"))),
        ("an expired ID token", claim("exp", json!(1_000_000))),
        (
            "a broken signature",
            Box::new(|behaviour| {
                behaviour.token = Arc::new(|token| crate::support::idp::break_signature(&token));
            }),
        ),
        (
            "invalid_grant",
            Box::new(|behaviour| {
                behaviour.refresh_reply = Some(Reply::json(400, &json!({ "error": "invalid_grant" })));
            }),
        ),
    ];
    let inside = Inside::with(two_workers).await;
    for (name, change) in cases {
        inside.idp.change(|behaviour| {
            let ahead = behaviour.seconds_ahead;
            *behaviour = Behaviour::good(crate::support::idp::Algorithm::Es256);
            behaviour.seconds_ahead = ahead;
        });
        let mut browser = inside.logged_in().await;
        let mut bystander = inside.logged_in().await;
        inside.advance(TOKEN_LIFETIME);
        bystander.fetch(&inside.url("/app/")).await.expect(200);
        let before = inside.idp.refreshes();
        inside.idp.change(|behaviour| change(behaviour));
        let answers = at_once(&inside, &vec![browser.clone(); 10]).await;
        assert!(answers.iter().all(|answer| answer.0 == 401), "{name}: {answers:?}");
        browser.fetch(&inside.url("/app/")).await.expect(401);
        assert_eq!(inside.idp.refreshes() - before, 1, "{name}");
        bystander.fetch(&inside.url("/app/")).await.expect(200);
        browser.navigate(&inside.url("/app/")).await.expect(302);
    }
    assert_eq!(inside.events("refresh-refused").len(), 8);
}

/// RP-34 and what real providers answer.
#[tokio::test]
async fn answers_without_everything_are_good_answers() {
    type Change = Box<dyn Fn(&mut Value) + Send + Sync>;
    let cases: Vec<(&str, bool, Change)> = vec![
        ("no ID token", true, Box::new(|answer| set(answer, "id_token", Value::Null))),
        ("no new refresh token", false, Box::new(|answer| set(answer, "refresh_token", Value::Null))),
        ("no expires_in", true, Box::new(|answer| set(answer, "expires_in", Value::Null))),
        ("expires_in as text", true, Box::new(|answer| set(answer, "expires_in", json!("300")))),
    ];
    for (name, rotates, change) in cases {
        let inside = Inside::with(two_workers).await;
        let mut browser = inside.logged_in().await;
        inside.idp.change(|behaviour| {
            behaviour.rotates = rotates;
            behaviour.refresh_response = Arc::from(change);
        });
        for round in 1..=3 {
            inside.advance(TOKEN_LIFETIME);
            browser.fetch(&inside.url("/staff/")).await.expect(200);
            assert_eq!(inside.idp.refreshes(), round, "{name}");
        }
    }
}

/// What says nothing about the session does not end it: it goes on to its own bounds.
#[tokio::test]
async fn a_provider_that_can_not_is_no_reason_to_log_out() {
    let replies = [
        Reply::json(401, &json!({ "error": "invalid_client" })),
        Reply::json(429, &json!({ "error": "slow_down" })),
        Reply::text(500, "text/html", "oops"),
        Reply::text(200, "text/html", "maintenance"),
        Reply::json(200, &json!({})),
        Reply::Cut,
    ];
    let inside = Inside::with(two_workers).await;
    let mut browser = inside.logged_in().await;
    inside.advance(TOKEN_LIFETIME);
    for reply in replies {
        let shown = format!("{reply:?}");
        inside.idp.change(|behaviour| behaviour.refresh_reply = Some(reply));
        let answer = browser.fetch(&inside.url("/staff/")).await;
        assert_eq!(answer.status, 200, "{shown}");
    }
    inside.idp.change(|behaviour| behaviour.refresh_reply = None);
    inside.advance(Duration::from_secs(50 * 60));
    browser.fetch(&inside.url("/staff/")).await.expect(200);
    inside.advance(Duration::from_secs(12 * 3600));
    browser.fetch(&inside.url("/staff/")).await.expect(401);
}

/// REL-02: ten minutes without a provider, 500 requests each second of them, from 50 sessions: none fails, and the
/// provider is not besieged when it comes back.
#[tokio::test]
async fn ten_minutes_without_the_provider_fail_nobody() {
    let inside = Inside::with(two_workers).await;
    let mut browsers = Vec::new();
    for _ in 0..50 {
        browsers.push(inside.logged_in().await);
    }
    inside.idp.stop().await;
    let mut served = 0;
    // The clock runs through the ten minutes in steps; between two of them everybody asks.
    for _ in 0..60 {
        inside.advance(Duration::from_secs(10));
        let answers = at_once(&inside, &browsers).await;
        assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
        served += answers.len();
    }
    assert_eq!(served, 3_000);
    assert_eq!(inside.idp.refreshes(), 0);
    assert!(!inside.events("refresh-failed").is_empty());
    inside.idp.up().await;
    let back = async {
        while inside.idp.refreshes() < browsers.len() {
            let answers = at_once(&inside, &browsers).await;
            assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
        }
    };
    soon("everybody to be refreshed", back).await;
}

/// REL-11: a clock that jumps, forward or back, prolongs no session and locks nobody out: at worst there is one more
/// login, which works at once. What was ended stays ended.
#[tokio::test]
async fn a_clock_that_jumps_prolongs_nothing_and_locks_nobody_out() {
    for hours in [1, -1, 24, -24, 24 * 365 * 13, -24 * 365] {
        let inside = Inside::with(two_workers).await;
        let mut browser = inside.logged_in().await;
        let mut ended = inside.logged_in().await;
        let logout = inside.url("/aporeto/oidc/logout");
        let copy = ended.clone();
        ended.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await.expect(200);
        inside.jump(hours * 3600);
        let answer = browser.navigate(&inside.url("/app/")).await;
        // An hour back is a session from the future, an hour on has been idle for too long.
        assert_eq!(answer.status, 302, "{hours} h: {answer:?}");
        copy.clone().fetch(&inside.url("/app/")).await.expect(401);
        browser.follow(&inside.url("/app/")).await.expect(200);
        for _ in 0..3 {
            inside.advance(TOKEN_LIFETIME);
            browser.fetch(&inside.url("/app/")).await.expect(200);
        }
        inside.jump(-hours * 3600);
        copy.clone().fetch(&inside.url("/app/")).await.expect(401);
        browser.follow(&inside.url("/app/")).await.expect(200);
        browser.fetch(&inside.url("/app/")).await.expect(200);
    }
}

/// A session ends at its bounds, whatever is refreshed.
#[tokio::test]
async fn refreshes_prolong_nothing_but_themselves() {
    let inside = Inside::with(|plan| {
        two_workers(plan);
        plan.config["session"] = json!({ "maxLifetime": "1h", "idleTimeout": "30m", "boundToToken": true });
    })
    .await;
    let mut browser = inside.logged_in().await;
    for minute in (5..60).step_by(5) {
        inside.advance(Duration::from_secs(300));
        let answer = browser.fetch(&inside.url("/app/")).await;
        assert_eq!(answer.status, 200, "minute {minute}");
    }
    inside.advance(Duration::from_secs(300));
    browser.fetch(&inside.url("/app/")).await.expect(401);
    assert_eq!(inside.idp.refreshes(), 11);
}

/// An answer that the application gives late must not bring a cookie back that is older than the browser's: neither
/// one of before a refresh, whose refresh token is used up, nor one of a session that has ended meanwhile.
#[tokio::test]
async fn a_late_answer_brings_no_old_cookie_back() {
    for ended in [false, true] {
        let inside = Inside::with(|plan| {
            two_workers(plan);
            plan.config["session"] = json!({ "idleTimeout": "10m" });
        })
        .await;
        let mut browser = inside.logged_in().await;
        // Long enough for a new seal, and not yet for a refresh.
        inside.advance(Duration::from_secs(120));
        let before = inside.app.count();
        let (mut late, url) = (browser.clone(), inside.url("/app/late"));
        let late = tokio::spawn(async move { late.fetch(&url).await });
        inside.app.wait_for(before + 1).await;
        if ended {
            let logout = inside.url("/aporeto/oidc/logout");
            browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await.expect(200);
        } else {
            inside.advance(TOKEN_LIFETIME);
            let answer = browser.fetch(&inside.url("/app/")).await.expect(200);
            assert!(answer.sets_session());
        }
        inside.app.release();
        let answer = late.await.unwrap();
        assert!(!answer.sets_session(), "ended: {ended}, {:?}", answer.set_cookies());
    }
}

/// The same for an answer that was to bring the refreshed session.
#[tokio::test]
async fn a_late_answer_brings_no_refreshed_session_that_has_ended() {
    let inside = Inside::with(two_workers).await;
    let mut browser = inside.logged_in().await;
    inside.advance(TOKEN_LIFETIME);
    let before = inside.app.count();
    let (mut late, url) = (browser.clone(), inside.url("/app/late"));
    let late = tokio::spawn(async move { late.fetch(&url).await });
    inside.app.wait_for(before + 1).await;
    let logout = inside.url("/aporeto/oidc/logout");
    browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await.expect(200);
    inside.app.release();
    let answer = late.await.unwrap();
    assert!(!answer.sets_session(), "{:?}", answer.set_cookies());
}

/// A provider that gives its session another name with a refresh: its logout of that name ends the session, whichever
/// cookie comes.
#[tokio::test]
async fn the_newest_name_of_the_providers_session_counts() {
    let inside = Inside::with(two_workers).await;
    inside.idp.change(|behaviour| set(&mut behaviour.user, "sid", json!("one")));
    let mut browser = inside.logged_in().await;
    let old = browser.clone();
    refreshed_as(&inside, |claims| set(claims, "sid", json!("two")));
    inside.advance(TOKEN_LIFETIME);
    browser.fetch(&inside.url("/app/")).await.expect(200);
    let token = inside.idp.logout_token(|claims| set(claims, "sid", json!("two")));
    let back_channel = inside.url("/aporeto/oidc/backchannel-logout");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("logout_token={token}");
    Browser::new(inside.idp.secrets()).send("POST", &back_channel, &form, body.as_bytes()).await.expect(200);
    for mut browser in [browser, old] {
        browser.navigate(&inside.url("/app/")).await.expect(302);
    }
}
