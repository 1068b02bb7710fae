//! What is ended stays ended: over restarts and kills, on every worker, whoever asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Answer, Browser, Pairs};
use crate::support::expect::problem;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::stage::{Plan, Stage};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const LEDGER: &str = "revocations.redb";

/// The same again, after the old process was ended so.
async fn again(stage: Stage, state: &Arc<TempDir>, end: impl AsyncFnOnce(Proxy)) -> Stage {
    let Stage { proxy, idp, app, port, origin, admin, config } = stage;
    let secrets = proxy.secrets.clone();
    end(proxy).await;
    let mut proxy =
        Proxy::start_in(state.clone(), &serde_yaml::to_string(&config).unwrap(), &[]).await.unwrap();
    proxy.secrets = secrets;
    Stage { proxy, idp, app, port, origin, admin, config }
}

async fn stop(proxy: Proxy) {
    assert_eq!(proxy.stop().await.code, Some(0));
}

async fn log_out(stage: &Stage, browser: &mut Browser) {
    let logout = stage.url("/aporeto/oidc/logout");
    let done = browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await;
    assert_eq!(done.header("clear-site-data"), "\"cache\"", "{done:?}");
}

async fn lives(stage: &Stage, browser: &Browser) -> bool {
    let answer = browser.clone().fetch(&stage.url("/app/")).await;
    if answer.status != 200 {
        problem(&answer, 401);
    }
    answer.status == 200
}

/// Waits for an event about revocations that says this.
async fn told(stage: &Stage, words: &str) -> Value {
    let wanted = |line: &Value| {
        line["event"] == "revocations" && line["message"].as_str().unwrap_or_default().contains(words)
    };
    stage.proxy.line(words, wanted).await
}

/// A logout is durable before it is answered.
#[tokio::test]
async fn a_restart_revives_nobody() {
    let state = Arc::new(TempDir::new().unwrap());
    let mut stage = Stage::build(|_| {}, state.clone()).await.unwrap();
    let bystander = stage.logged_in().await;
    let mut dead = Vec::new();
    for kill in [false, true, true] {
        let mut browser = stage.logged_in().await;
        dead.push(browser.clone());
        log_out(&stage, &mut browser).await;
        stage = match kill {
            true => again(stage, &state, Proxy::kill).await,
            false => again(stage, &state, stop).await,
        };
        for copy in &dead {
            assert!(!lives(&stage, copy).await, "revived (killed: {kill})");
        }
        assert!(lives(&stage, &bystander).await, "killed: {kill}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(state.path().join(LEDGER)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let record = dead[0].clone().fetch(&stage.url("/app/")).await;
    let record = stage.proxy.record(record.header("x-request-id")).await;
    assert!(record["detail"].as_str().unwrap().contains("logged out"), "{record}");
}

/// With sessions in Redis: what is ended while it does not answer is not called done, and is over at the next start too.
#[tokio::test]
async fn a_restart_revives_nobody_whose_end_redis_missed() {
    let redis = Redis::start().await;
    let state = Arc::new(TempDir::new().unwrap());
    let in_redis = |plan: &mut Plan| {
        plan.config["session"]["store"] = json!("redis");
        plan.config["session"]["redis"] = json!({ "url": redis.url() });
    };
    let stage = Stage::build(in_redis, state.clone()).await.unwrap();
    let [browser, bystander] = [stage.logged_in().await, stage.logged_in().await];
    let login = stage.proxy.line("the login", |line| line["event"] == "login").await;
    redis.freeze();
    let ended = format!("service=app&session={}", login["session"].as_str().unwrap());
    let answer = call(&stage, &[FORM], &ended).await.expect(503);
    assert!(answer.text().contains("send this again"), "{}", answer.text());
    redis.thaw();
    let mut stage = stage;
    for kill in [true, false] {
        stage = match kill {
            true => again(stage, &state, Proxy::kill).await,
            false => again(stage, &state, stop).await,
        };
        let available = |line: &Value| line["event"] == "store-available";
        stage.proxy.line("Redis", available).await;
        assert!(!lives(&stage, &browser).await, "revived (killed: {kill})");
        assert!(lives(&stage, &bystander).await);
    }
    call(&stage, &[FORM], &ended).await.expect(200);
}

/// A rolling restart on one host: the new process starts while the old one still has the file.
#[tokio::test]
async fn a_locked_file_is_waited_for_and_then_read() {
    let state = Arc::new(TempDir::new().unwrap());
    let old = Stage::build(|_| {}, state.clone()).await.unwrap();
    let mut browser = old.logged_in().await;
    let gone = browser.clone();
    log_out(&old, &mut browser).await;
    let service = old.config["services"][0].clone();
    let same_service = |plan: &mut Plan| {
        plan.wait_for_discovery = false;
        for field in ["OIDCProviderURL", "OIDCClientID", "OIDCClientSecret"] {
            plan.set(field, service[field].clone());
        }
    };
    let new = Stage::build(same_service, state.clone()).await.unwrap();
    let warned = told(&new, "is used by another process").await;
    assert_eq!(warned["level"], "warning");
    // Only in memory meanwhile; and what the old process ends now is known as soon as it has gone.
    let mut there = new.browser();
    there.jar = old.logged_in().await.jar;
    let there_before = there.clone();
    log_out(&new, &mut there).await;
    assert!(!lives(&new, &there_before).await);
    let mut late = old.logged_in().await;
    let late_before = late.clone();
    log_out(&old, &mut late).await;
    let Stage { proxy, idp, .. } = old;
    stop(proxy).await;
    told(&new, "can be used now").await;
    let new = again(new, &state, Proxy::kill).await;
    for dead in [&gone, &there_before, &late_before] {
        assert!(!lives(&new, dead).await);
    }
    drop(idp);
}

/// Nobody knows any more who was logged out: everybody is.
#[tokio::test]
async fn a_broken_file_ends_every_session_of_before() {
    let state = Arc::new(TempDir::new().unwrap());
    let stage = Stage::build(|_| {}, state.clone()).await.unwrap();
    let before = stage.logged_in().await;
    let file = state.path().join(LEDGER);
    let stage = again(stage, &state, async |proxy| {
        stop(proxy).await;
        std::fs::write(&file, "this was a database once\n").unwrap();
    })
    .await;
    let event = told(&stage, "is broken").await;
    assert_eq!((event["level"].as_str(), event["blame"].as_str()), (Some("error"), Some("configuration")));
    let set_aside: Vec<PathBuf> = std::fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("revocations.redb.corrupt-"))
        .collect();
    assert_eq!(set_aside.len(), 1);
    assert!(!lives(&stage, &before).await);
    let after = stage.logged_in().await;
    assert!(lives(&stage, &after).await);
    let stage = again(stage, &state, stop).await;
    assert!(!lives(&stage, &before).await && lives(&stage, &after).await, "after one more restart");
}

async fn call(stage: &Stage, headers: Pairs<'_>, body: &str) -> Answer {
    let url = format!("http://127.0.0.1:{}/sessions/end", stage.admin);
    stage.browser().send("POST", &url, headers, body.as_bytes()).await
}

/// The id of the only session so far, from the event of its login.
async fn session_id(stage: &Stage) -> String {
    let login = stage.proxy.line("the login", |line| line["event"] == "login").await;
    login["session"].as_str().expect("a session id").to_owned()
}

/// The administrator's calls, on two workers that both have the sessions open.
#[tokio::test]
async fn an_administrator_ends_sessions() {
    let stage = Stage::with(|plan| plan.limit("workers", json!(2))).await;
    let named = stage.logged_in().await;
    let id = session_id(&stage).await;
    let same_person = stage.logged_in().await;
    stage.idp.change(|behaviour| behaviour.user["sub"] = json!("bob & co"));
    let other = stage.logged_in().await;
    let everybody = [&named, &same_person, &other];
    let alive = async |expected: [bool; 3]| {
        // Connections go to both workers.
        for _ in 0..8 {
            let found = [
                lives(&stage, everybody[0]).await,
                lives(&stage, everybody[1]).await,
                lives(&stage, everybody[2]).await,
            ];
            assert_eq!(found, expected);
        }
    };
    alive([true; 3]).await;
    let subject = browser_subject(&stage, &mut named.clone()).await;

    let one = call(&stage, &[FORM], &format!("service=app&session={id}")).await.expect(200);
    assert_eq!(one.json(), json!({ "service": "app", "ended": { "session": id } }));
    alive([false, true, true]).await;
    let record = named.clone().fetch(&stage.url("/app/")).await;
    let record = stage.proxy.record(record.header("x-request-id")).await;
    assert!(record["detail"].as_str().unwrap().contains("administrator"), "{record}");

    let json = ("content-type", "application/json");
    let body = json!({ "service": "app", "subject": subject }).to_string();
    call(&stage, &[json], &body).await.expect(200);
    alive([false, false, true]).await;
    call(&stage, &[FORM], "service=app&all=true").await.expect(200);
    alive([false, false, false]).await;
    assert!(lives(&stage, &stage.logged_in().await).await, "a new login works at once");

    let ended = stage.proxy.line("who was ended", |line| {
        line["event"] == "sessions-ended" && line["subject"] == subject.as_str()
    });
    assert_eq!(ended.await["service"], "app");
    let metrics = stage.admin("/metrics").await.text();
    assert!(metrics.contains("portcullis_sessions_revoked_total 3"), "{metrics}");
}

async fn browser_subject(stage: &Stage, browser: &mut Browser) -> String {
    let told = browser.fetch(&stage.url("/aporeto/oidc/session")).await.expect(200).json();
    told["subject"].as_str().unwrap().to_owned()
}

/// Nobody else makes these calls, and a wrong one ends nothing and says what to send.
#[tokio::test]
async fn a_call_that_is_wrong_ends_nothing() {
    let directory = TempDir::new().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "token-of-the-administrator\n").unwrap();
    let stage = Stage::with(|plan| plan.config["admin"]["tokenFile"] = json!(token)).await;
    let browser = stage.logged_in().await;
    let right = ("authorization", "Bearer token-of-the-administrator");
    let all = "service=app&all=true";
    let long = format!("service=app&subject={}", "a".repeat(9000));
    let cases: [(Pairs<'_>, &str, u16); 14] = [
        (&[FORM], all, 401),
        (&[FORM, ("authorization", "Bearer token-of-the-administrato")], all, 401),
        (&[FORM, right, ("origin", "https://evil.test")], all, 403),
        (&[FORM, right, ("origin", "null")], all, 403),
        (&[right], all, 415),
        (&[("content-type", "text/plain"), right], all, 415),
        (&[FORM, right], "service=ghost&all=true", 404),
        (&[FORM, right], "all=true", 400),
        (&[FORM, right], "service=app", 400),
        (&[FORM, right], "service=app&all=true&subject=alice", 400),
        (&[FORM, right], "service=app&all=true&all=true", 400),
        (&[FORM, right], "service=app&all=true&force=1", 400),
        (&[FORM, right], "service=app&session=not-an-id", 400),
        (&[FORM, right], &long, 413),
    ];
    for (headers, body, status) in cases {
        let answer = call(&stage, headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {}: {answer:?}", &body[..body.len().min(60)]);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_ne!(answer.json()["detail"], "");
    }
    let url = format!("http://127.0.0.1:{}/sessions/end", stage.admin);
    let read = stage.browser().send("GET", &url, &[right], b"").await.expect(405);
    assert_eq!(read.header("allow"), "POST");
    // On the traffic port it is a path of the application.
    browser
        .clone()
        .send("POST", &stage.url("/sessions/end"), &[FORM, right], all.as_bytes())
        .await
        .expect(403);
    assert!(lives(&stage, &browser).await);
    let foreign = rebound(stage.admin, all).await;
    assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    assert!(lives(&stage, &browser).await);
    call(&stage, &[FORM, right], all).await.expect(200);
    assert!(!lives(&stage, &browser).await);
}

/// What a page sends whose name was made to lead here.
async fn rebound(port: u16, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let request = format!(
        "POST /sessions/end HTTP/1.1\r\nHost: evil.test\r\nAuthorization: Bearer token-of-the-administrator\r\n\
         Content-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        FORM.1,
        body.len()
    );
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    crate::support::soon("the answer of the admin listener", exchange).await
}
