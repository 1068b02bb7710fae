//! RP-18, SES-06: what a browser keeps longer than it should is refused here, by the second.

use std::time::Duration;

use crate::support::client::Browser;
use crate::support::inside::Inside;

/// A login that was begun more than ten minutes ago starts again; no token call, no session.
#[tokio::test]
async fn a_login_that_takes_too_long_starts_again() {
    let inside = Inside::with(|_| {}).await;
    for (seconds, works) in [(599, true), (600, true), (601, false), (86_400, false)] {
        let mut browser = Browser::new(inside.idp.secrets());
        let callback = browser.authorize(&inside.url("/app/page")).await;
        let calls = inside.idp.login_calls();
        inside.advance(Duration::from_secs(seconds));
        let answer = browser.navigate(callback.as_str()).await;
        if works {
            assert_eq!(answer.expect(303).location().as_str(), inside.url("/app/page"), "after {seconds} s");
            continue;
        }
        assert_eq!(answer.status, 302, "after {seconds} s: {answer:?}");
        assert!(answer.location().as_str().starts_with(&inside.idp.issuer), "{answer:?}");
        assert!(!answer.sets_session());
        assert_eq!(inside.idp.login_calls(), calls, "after {seconds} s");
        // The new one ends where the old one would have.
        let callback = browser.navigate(answer.location().as_str()).await.location();
        let back = browser.navigate(callback.as_str()).await.expect(303);
        assert_eq!(back.location().as_str(), inside.url("/app/page"));
    }
}

/// A cookie of a session that is not used, or used all the time: the bounds are those of the configuration.
#[tokio::test]
async fn a_session_is_over_at_its_bounds() {
    let plain = |plan: &mut crate::support::stage::Plan| {
        plan.set("OIDCScopes", serde_json::json!(["openid", "email", "profile"]));
    };
    let inside = Inside::with(plain).await;
    let hour = Duration::from_secs(3600);
    let mut browser = inside.logged_in().await;
    inside.advance(hour - Duration::from_secs(2));
    browser.clone().fetch(&inside.url("/app/")).await.expect(200);
    // The copy from before the last use is as old as ever.
    inside.advance(Duration::from_secs(3));
    let copy = browser.clone().fetch(&inside.url("/app/")).await;
    assert_eq!(copy.status, 401, "an hour without use: {copy:?}");

    let mut used = inside.logged_in().await;
    for round in 0..24 {
        let answer = used.fetch(&inside.url("/app/")).await;
        assert_eq!(answer.status, 200, "half-hour {round}: {answer:?}");
        inside.advance(hour / 2);
    }
    inside.advance(Duration::from_secs(1));
    let late = used.fetch(&inside.url("/app/")).await;
    assert_eq!(late.status, 401, "twelve hours after the login: {late:?}");
    browser.fetch(&inside.url("/app/")).await.expect(401);
}
