//! Two proxies, one Redis, and a balancer that gives each connection to the next of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::support::app::App;
use crate::support::client::Browser;
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Idp, find, set};
use crate::support::inside::Inside;
use crate::support::ports::free_port;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::soon;
use crate::support::stage::{self, HOST, Plan};

const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

fn in_redis(plan: &mut Plan, redis: &Redis) {
    plan.config["session"]["store"] = json!("redis");
    plan.config["session"]["redis"] = json!({ "url": redis.url() });
}

async fn two(redis: &Redis) -> Inside {
    let stage = Inside::replicas(2, |plan| {
        in_redis(plan, redis);
        plan.behaviour = Behaviour::good(Algorithm::Es256).with_logout();
    })
    .await;
    let connected = async {
        while stage.events("store-available").len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("both to reach Redis", connected).await;
    stage
}

/// One fetch from each replica.
async fn statuses(stage: &Inside, browser: &Browser) -> [u16; 2] {
    let mut all = [0; 2];
    for (replica, status) in all.iter_mut().enumerate() {
        *status = browser.clone().fetch(&stage.url_of(replica, "/app/")).await.status;
    }
    all
}

/// Waits until both replicas answer so, and says how long that took.
async fn both_answer(stage: &Inside, browser: &Browser, wanted: u16) -> Duration {
    let began = Instant::now();
    let until = async {
        while statuses(stage, browser).await != [wanted; 2] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(&format!("{wanted} from both"), until).await;
    began.elapsed()
}

/// REL-14 over two replicas: 200 requests at the expiry are one refresh, and whoever asks which replica later gets the
/// new tags without another.
#[tokio::test]
async fn a_refresh_is_one_call_of_all_replicas() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    for round in 1..=100 {
        stage.advance(TOKEN_LIFETIME);
        stage.idp.change(|behaviour| {
            behaviour.refresh_claims = Arc::new(move |claims| {
                set(claims, "groups", json!([format!("round-{round}"), "staff"]));
            });
        });
        let barrier = Arc::new(Semaphore::new(0));
        stage.idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
        let clients = if round == 1 { 200 } else { 8 };
        let requests = (0..clients).map(|client| {
            let (mut browser, url) = (browser.clone(), stage.url_of(client % 2, "/staff/"));
            async move { browser.fetch(&url).await.status }
        });
        let release = async {
            stage.idp.wait_for_refreshes(round).await;
            barrier.add_permits(100);
        };
        let (answers, ()) = tokio::join!(join_all(requests), release);
        assert!(answers.iter().all(|status| *status == 200), "round {round}: {answers:?}");
        for replica in 0..2 {
            browser.clone().fetch(&stage.url_of(replica, "/staff/")).await.expect(200);
            assert_eq!(
                stage.app.last().header("x-groups"),
                [format!("round-{round},staff")],
                "replica {replica}"
            );
        }
        assert_eq!(stage.idp.refreshes(), round);
    }
}

/// A provider that takes five seconds: the replica that asks and the one that waits go on with the old tags after 2 s,
/// later requests do not wait at all, and it is one call.
#[tokio::test]
async fn a_slow_provider_holds_no_replica_up() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    stage.advance(TOKEN_LIFETIME);
    let barrier = Arc::new(Semaphore::new(0));
    stage.idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
    let requests = async || {
        let requests = (0..20).map(|client| {
            let (mut browser, url) = (browser.clone(), stage.url_of(client % 2, "/app/"));
            async move { browser.fetch(&url).await.status }
        });
        let began = Instant::now();
        assert!(join_all(requests).await.iter().all(|status| *status == 200));
        began.elapsed()
    };
    let waited = requests().await;
    assert!((2.0..5.0).contains(&waited.as_secs_f64()), "{waited:?}");
    let waited = requests().await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    barrier.add_permits(10);
    let refreshed = async {
        while stage.events("refresh").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the refresh to end", refreshed).await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    assert_eq!(stage.idp.refreshes(), 1);
}

/// Logout, back-channel logout and a refused refresh at one replica end the session at the other within a second.
#[tokio::test]
async fn an_end_is_heard_everywhere() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let browser = stage.logged_in().await;
    let bystander = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    let logout = stage.url_of(0, "/aporeto/oidc/logout");
    let answer = browser.clone().send("POST", &logout, &[SAME_ORIGIN], b"").await.expect(303);
    let query: Vec<(String, String)> = answer.location().query_pairs().into_owned().collect();
    assert!(query.iter().any(|(name, _)| name == "id_token_hint"), "{query:?}");
    let took = both_answer(&stage, &browser, 401).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(statuses(&stage, &bystander).await, [200; 2]);

    let token = format!("logout_token={}", stage.idp.logout_token(|_| {}));
    let back_channel = stage.url_of(1, "/aporeto/oidc/backchannel-logout");
    Browser::new(stage.idp.secrets())
        .send("POST", &back_channel, &[FORM], token.as_bytes())
        .await
        .expect(200);
    let took = both_answer(&stage, &bystander, 401).await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    let third = stage.logged_in().await;
    assert_eq!(statuses(&stage, &third).await, [200; 2]);
    stage.advance(TOKEN_LIFETIME);
    stage.idp.change(|behaviour| {
        behaviour.refresh_claims = Arc::new(|claims| set(claims, "sub", json!("mallory")))
    });
    third.clone().fetch(&stage.url_of(0, "/app/")).await.expect(401);
    let took = both_answer(&stage, &third, 401).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// An end that the other replicas can't be told of is not called done, and may be sent again.
#[tokio::test]
async fn an_end_that_nobody_hears_of_is_not_called_done() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    let token = format!("logout_token={}", stage.idp.logout_token(|_| {}));
    let back_channel = stage.url_of(0, "/aporeto/oidc/backchannel-logout");
    let tell = async || {
        Browser::new(stage.idp.secrets()).send("POST", &back_channel, &[FORM], token.as_bytes()).await
    };
    redis.freeze();
    let answer = tell().await.expect(503);
    assert!(!answer.header("retry-after").is_empty());
    let logout = stage.url_of(0, "/aporeto/oidc/logout");
    let answer = browser.clone().send("POST", &logout, &[SAME_ORIGIN], b"").await;
    assert!(matches!(answer.status, 303 | 503), "{answer:?}");
    redis.thaw();
    let told = async { while tell().await.status != 200 {} };
    soon("the token to be taken", told).await;
    let took = both_answer(&stage, &browser, 401).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    tell().await.expect(400);
}

/// The refresh token that is given back at a logout is the latest, whichever replica got it; and nothing of a logout is
/// left undone because the client does not wait for its answer.
#[tokio::test]
async fn a_logout_is_whole_wherever_and_however_it_comes() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    stage.advance(TOKEN_LIFETIME);
    browser.clone().fetch(&stage.url_of(0, "/app/")).await.expect(200);
    assert_eq!(stage.idp.refreshes(), 1);
    let logout = stage.url_of(1, "/aporeto/oidc/logout");
    browser.clone().send("POST", &logout, &[SAME_ORIGIN], b"").await.expect(303);
    stage.idp.wait_for(&Endpoint::Revoke, 1).await;
    let revoked = stage.idp.calls_of(&Endpoint::Revoke);
    let used: Vec<_> = stage.idp.calls_of(&Endpoint::Token).into_iter().flat_map(|call| call.form).collect();
    let token = |form: &[(String, String)], name: &str| find(form, name).map(str::to_owned);
    assert_ne!(token(&revoked[0].form, "token"), token(&used, "refresh_token"), "it was used up");

    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    // The end can't be written now, so the answer has to wait, and the client does not.
    redis.freeze();
    let (mut gone, logout) = (browser.clone(), stage.url_of(0, "/aporeto/oidc/logout"));
    let asked = tokio::spawn(async move { gone.send("POST", &logout, &[SAME_ORIGIN], b"").await });
    let over = async { while browser.clone().fetch(&stage.url_of(0, "/app/")).await.status == 200 {} };
    soon("the session to end", over).await;
    asked.abort();
    redis.thaw();
    stage.idp.wait_for(&Endpoint::Revoke, 2).await;
    assert_eq!(stage.events("logout").len(), 2);
    let took = both_answer(&stage, &browser, 401).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Down, hung, read-only: 503 with Retry-After for whoever may have a session, no login loop, and recovery by itself.
#[tokio::test]
async fn without_the_store_nobody_is_sent_to_log_in() {
    let mut redis = Redis::start().await;
    let stage = two(&redis).await;
    let mut browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    for trouble in ["hung", "read-only", "down"] {
        match trouble {
            "hung" => redis.freeze(),
            "read-only" => drop(redis.call("REPLICAOF 127.0.0.1 1").await),
            _ => redis.kill(),
        }
        let took = both_answer(&stage, &browser, 503).await;
        assert!(took < Duration::from_secs(3), "{trouble}: {took:?}");
        let calls = stage.idp.calls().len();
        let answer = browser.navigate(&stage.url("/app/")).await.expect(503);
        assert!(!answer.header("retry-after").is_empty(), "{trouble}");
        assert!(answer.set_cookies().is_empty(), "{trouble}: the session is not given up");
        let anybody = Browser::new(stage.idp.secrets()).navigate(&stage.url("/app/")).await;
        assert_eq!(anybody.status, 503, "{trouble}: a login could not be kept");
        Browser::new(stage.idp.secrets()).fetch(&stage.url("/public/")).await.expect(200);
        browser.fetch(&stage.url("/public/")).await.expect(200);
        assert_eq!(stage.idp.calls().len(), calls, "{trouble}: the provider is left alone");
        match trouble {
            "hung" => redis.thaw(),
            "read-only" => drop(redis.call("REPLICAOF NO ONE").await),
            _ => redis.start_again().await,
        }
        // What a server that was ended has forgotten, the workers still have open.
        let took = both_answer(&stage, &browser, 200).await;
        assert!(took < Duration::from_secs(5), "{trouble}: {took:?}");
    }
    // They need the server again for a refresh: then the person logs in anew, once.
    stage.advance(TOKEN_LIFETIME);
    stage.advance(Duration::from_secs(600));
    let answer = browser.navigate(&stage.url("/app/")).await;
    assert_eq!(answer.status, 302);
    browser.follow(&stage.url("/app/")).await.expect(200);
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
}

/// What is in Redis opens nothing and names nobody; the cookie is small whatever the session holds; and the session
/// lives by use.
#[tokio::test]
async fn a_stolen_dump_opens_nothing() {
    let redis = Redis::start().await;
    let stage = two(&redis).await;
    let groups: Vec<String> = (0..3000).map(|number| format!("department-of-redundancy-{number}")).collect();
    stage.idp.change(move |behaviour| set(&mut behaviour.user, "groups", json!(groups)));
    let browser = stage.logged_in().await;
    assert_eq!(statuses(&stage, &browser).await, [200; 2]);
    let cookie: usize = browser.session().iter().map(|(_, value)| value.len()).sum();
    assert!(cookie < 400, "{cookie} bytes");
    let dump = redis.dump().await;
    let text = String::from_utf8_lossy(&dump);
    for word in ["alice", "acme.com", "department-of", "refresh-", "client-of-the-tests"] {
        assert!(!text.contains(word), "{word}");
    }
    assert!(stage.idp.secrets().found_in(&text).is_none());
}

/// The replica that refreshes is killed in the middle of it, before the provider has answered or after: the other one
/// takes over when the lease is over. At worst, where the new token died with its only owner, there is one clean login.
#[tokio::test]
async fn the_one_who_refreshes_is_killed() {
    for answered in [false, true] {
        let redis = Redis::start().await;
        let app = App::down();
        app.up().await;
        let mut behaviour = Behaviour::good(Algorithm::Es256);
        // Due after six seconds.
        behaviour.token_lifetime = 12;
        let idp = Idp::start(behaviour).await;
        let state = Arc::new(TempDir::new().unwrap());
        std::fs::write(state.path().join("keys"), STANDARD.encode([7; 32])).unwrap();
        let ports = [free_port(), free_port()];
        let start = async |port: u16| {
            let mut config = stage::config(port, free_port());
            let service = &mut config["services"][0];
            service["OIDCScopes"] = json!(["openid", "email", "profile", "offline_access"]);
            service["OIDCCallbackURL"] = json!(format!("https://{HOST}:{}", ports[0]));
            config["session"] = json!({
                "store": "redis", "redis": { "url": redis.url() }, "keyFile": state.path().join("keys"),
            });
            stage::fill(&mut config, &idp, &app);
            let config = serde_yaml::to_string(&config).unwrap();
            let proxy = Proxy::start_in(Arc::new(TempDir::new().unwrap()), &config, &[]).await;
            let proxy = proxy.unwrap_or_else(|finished| panic!("{finished:#?}"));
            proxy.event("store-available").await;
            proxy
        };
        let url = |replica: usize| format!("https://{HOST}:{}/app/", ports[replica]);
        let (first, _second) = (start(ports[0]).await, start(ports[1]).await);
        idp.wait_for(&Endpoint::Discovery, 2).await;
        let mut browser = Browser::new(idp.secrets());
        browser.follow(&url(0)).await.expect(200);
        let barrier = Arc::new(Semaphore::new(0));
        idp.change(|behaviour| behaviour.refresh_barrier = Some(barrier.clone()));
        let asked = async {
            while idp.refreshes() == 0 {
                browser.clone().fetch(&url(0)).await.expect(200);
            }
        };
        soon("the refresh to begin", asked).await;
        if answered {
            redis.freeze();
            barrier.add_permits(1);
            // It has the new tokens, and nowhere to put them.
            first.event("refresh").await;
        }
        first.kill().await;
        redis.thaw();
        barrier.add_permits(100);
        let mut logins = 0;
        let over = async {
            // The second replica has asked, and everybody is served again.
            while idp.refreshes() < 2 || browser.clone().fetch(&url(1)).await.status != 200 {
                let answer = browser.navigate(&url(1)).await;
                match answer.status {
                    200 | 503 => {}
                    302 => {
                        logins += 1;
                        let callback =
                            browser.navigate(answer.location().as_str()).await.expect(302).location();
                        // The callback's host is that of the replica that is gone.
                        let back = callback.as_str().replace(&ports[0].to_string(), &ports[1].to_string());
                        browser.navigate(&back).await.expect(303);
                    }
                    other => panic!("{other}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the other to take over", over).await;
        // None where the old token was not redeemed, or the new one had reached Redis all the same.
        assert!(logins <= 1, "answered: {answered}, {logins} logins");
    }
}
