//! REL-03, REL-04, REL-12, REL-22: what goes on for a while. A provider that is slow or comes and goes, more clients
//! than there are descriptors for, and mixed traffic, of which nothing may be left.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{Browser, Raw};
use crate::support::expect::{no_session, page};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Reply};
use crate::support::ports::free_port;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// How long anybody waits for a provider at most, and some time for the machine.
const ANSWER: Duration = Duration::from_millis(5_000 + 1_500);

/// REL-03: each endpoint of the provider takes longer than anybody would wait. 200 people try to log in.
#[tokio::test]
async fn a_provider_that_takes_half_a_minute_holds_nobody_up() {
    const LOGINS: usize = 200;
    let stage = Stage::usual().await;
    let mut user = stage.logged_in().await;
    // Half of them are on their way back from the provider when it grows slow, half begin then.
    let mut late = Vec::new();
    for _ in 0..LOGINS / 2 {
        let mut browser = stage.browser();
        let callback = browser.authorize(&stage.url("/app/")).await;
        late.push((browser, String::from(callback)));
    }
    let early = (0..LOGINS / 2).map(|_| (stage.browser(), stage.url("/app/")));
    stage.idp.change(|behaviour| {
        for reply in [
            &mut behaviour.discovery_reply,
            &mut behaviour.jwks_reply,
            &mut behaviour.token_reply,
            &mut behaviour.user_info_reply,
        ] {
            *reply = Some(Reply::Hang);
        }
    });
    let attempts = late.into_iter().chain(early).map(async |(mut browser, url)| {
        let since = Instant::now();
        let answer = browser.navigate(&url).await;
        (answer.status, url.contains("code="), since.elapsed())
    });
    let using = async {
        let (end, mut slowest) = (Instant::now() + Duration::from_secs(4), Duration::ZERO);
        while Instant::now() < end {
            let since = Instant::now();
            user.fetch(&stage.url("/app/")).await.expect(200);
            slowest = slowest.max(since.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(join_all(attempts), using);
    for (status, is_late, took) in answers {
        assert!(took < ANSWER, "{status} after {took:?}");
        match is_late {
            true => assert_eq!(status, 503, "after {took:?}"),
            // Sent to the provider, as long as it is not known to be gone.
            false => assert!(matches!(status, 302 | 503), "{status} after {took:?}"),
        }
    }
    assert!(slowest < Duration::from_secs(2), "a request of somebody else took {slowest:?}");
}

/// REL-04: it comes and goes, and fails in every way meanwhile. Nobody asks it all the time, and logins work as soon as
/// it is well.
#[tokio::test]
async fn a_provider_that_flaps_is_neither_lost_nor_run_over() {
    let stage = Stage::usual().await;
    let mut user = stage.logged_in().await;
    let used = stage.proxy.processor_time();
    for ill in [Some(Reply::json(500, &json!({}))), Some(Reply::Cut), None, Some(Reply::Cut), None] {
        let mut browser = stage.browser();
        let callback = browser.authorize(&stage.url("/app/")).await;
        match &ill {
            Some(reply) => stage.idp.change(|behaviour| {
                behaviour.discovery_reply = Some(reply.clone());
                behaviour.token_reply = Some(reply.clone());
            }),
            None => stage.idp.stop().await,
        }
        let asked = stage.idp.calls().len();
        let answer = browser.navigate(callback.as_str()).await;
        page(&answer, 503);
        no_session(&stage, &mut browser, &answer).await;
        user.fetch(&stage.url("/app/")).await.expect(200);
        let asked = stage.idp.calls().len() - asked;
        assert!(asked <= 3, "{asked} calls for one login: {ill:?}");
        match ill {
            Some(_) => stage.idp.change(|behaviour| {
                behaviour.discovery_reply = None;
                behaviour.token_reply = None;
            }),
            None => stage.idp.up().await,
        }
        soon("a login", logs_in(&stage)).await;
    }
    let used = stage.proxy.processor_time() - used;
    assert!(used < Duration::from_secs(5), "{used:?} of the processors");
}

/// REL-04: it is gone for a while: it is looked for now and then, and no more.
#[tokio::test]
async fn a_provider_that_is_gone_is_looked_for_now_and_then() {
    let behaviour = Behaviour { discovery_reply: Some(Reply::Cut), ..Behaviour::good(Algorithm::Es256) };
    let stage = Stage::with(|plan| {
        plan.behaviour = behaviour;
        plan.wait_for_discovery = false;
    })
    .await;
    stage.idp.wait_for(&Endpoint::Discovery, 1).await;
    let (since, used) = (Instant::now(), stage.proxy.processor_time());
    stage.idp.wait_for(&Endpoint::Discovery, 4).await;
    let (took, used) = (since.elapsed(), stage.proxy.processor_time() - used);
    assert!(took > Duration::from_secs(3), "three more attempts within {took:?}");
    assert!(used < Duration::from_millis(500), "{used:?} of the processors");
    stage.idp.change(|behaviour| behaviour.discovery_reply = None);
    soon("a login", logs_in(&stage)).await;
}

/// REL-04: a name that nobody knows is an outage like another.
#[tokio::test]
async fn a_provider_whose_name_is_unknown_is_an_outage() {
    let stage = Stage::with(|plan| {
        plan.set("OIDCProviderURL", json!("https://provider.invalid"));
        plan.wait_for_discovery = false;
    })
    .await;
    let since = Instant::now();
    page(&stage.browser().navigate(&stage.url("/app/")).await, 503);
    assert!(since.elapsed() < ANSWER, "{:?}", since.elapsed());
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
}

/// REL-04: it moves to another address of its name.
#[tokio::test]
async fn a_provider_that_moves_is_found_where_it_went() {
    let port = free_port();
    let base = format!("http://localhost:{port}");
    // It speaks of itself by the name, whatever port it has.
    let (issuer, document, callback) = (json!(base), base.clone(), base.clone());
    let behaviour = Behaviour::good(Algorithm::Es256)
        .claim("iss", issuer)
        .discovery(move |metadata| {
            for (name, value) in metadata.as_object_mut().unwrap() {
                let address = value.as_str().and_then(|text| text.strip_prefix("http://127.0.0.1:"));
                if let Some(address) = address.filter(|_| name != "authorization_endpoint") {
                    let path = address.find('/').map_or("", |at| &address[at..]);
                    *value = json!(format!("{document}{path}"));
                }
            }
        })
        .callback(move |parameters| {
            let issuer = parameters.iter_mut().find(|(name, _)| name == "iss");
            issuer.into_iter().for_each(|(_, value)| callback.clone_into(value));
        });
    let stage = Stage::with(|plan| {
        plan.behaviour = behaviour;
        plan.set("OIDCProviderURL", json!(base));
        plan.wait_for_discovery = false;
    })
    .await;
    let provider: u16 = stage.idp.issuer.rsplit(':').next().unwrap().parse().unwrap();
    let here = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let here = tokio::spawn(relay(here, provider));
    soon("a login", logs_in(&stage)).await;
    here.abort();
    assert!(here.await.is_err_and(|ended| ended.is_cancelled()));
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    page(&browser.navigate(callback.as_str()).await, 503);
    let there = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    let there = tokio::spawn(relay(there, provider));
    soon("a login", logs_in(&stage)).await;
    there.abort();
}

/// Passes each connection on, until it is dropped.
async fn relay(listener: TcpListener, port: u16) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut provider) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut provider).await;
            }
        });
    }
}

/// Tries until a login succeeds.
async fn logs_in(stage: &Stage) {
    loop {
        let mut browser = stage.browser();
        let begun = browser.navigate(&stage.url("/app/")).await;
        if begun.status == 302 && browser.follow(begun.location().as_str()).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// REL-12: 2,000 clients where the process may open 256 files. Who was there and speaks is served, who comes waits, and
/// when the crowd has gone nobody does.
#[tokio::test]
async fn more_clients_than_descriptors_fail_nobody_for_long() {
    const CLIENTS: usize = 2_000;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: own.maximum, ..own }).unwrap();
    let stage = Stage::with(|plan| plan.files = Some(256)).await;
    let mut user = stage.logged_in().await;
    let before = stage.proxy.open_files();
    let mut inside = Raw::connect(stage.port, HOST).await;
    let request = format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut crowd = Vec::new();
    for number in 0..CLIENTS {
        if number % 10 == 0 {
            inside.send(&request).await;
            inside.answer().await.expect("who speaks stays").expect(200);
        }
        // The queue of the listener may be shorter than the crowd: who finds no place in it is a client too.
        let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port));
        if let Ok(Ok(client)) = tokio::time::timeout(Duration::from_millis(20), connecting).await {
            crowd.push(client);
        }
    }
    assert!(crowd.len() > 256, "{} connections", crowd.len());
    assert!(stage.proxy.open_files() <= 256);
    let since = Instant::now();
    drop(crowd);
    user.fetch(&stage.url("/app/")).await.expect(200);
    assert!(since.elapsed() < Duration::from_secs(2), "well again after {:?}", since.elapsed());
    soon("the descriptors", async {
        while stage.proxy.open_files() > before + 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// REL-22: mixed traffic, of which one in twenty goes wrong. Of many rounds no more is left than of some.
#[tokio::test]
async fn mixed_traffic_leaves_nothing_behind() {
    const SOME: usize = 20;
    const MANY: usize = 60;
    const GROWTH: u64 = 4 << 20;
    let stage = Stage::usual().await;
    let files = stage.proxy.open_files();
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(stage.logged_in().await);
    }
    for round in 0..SOME {
        mixed(&stage, &users, round).await;
    }
    let before = stage.proxy.memory();
    for round in 0..MANY {
        mixed(&stage, &users, round).await;
    }
    let grown = stage.proxy.memory().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    soon("the descriptors", async {
        // One connection to the application is kept for later, or some.
        while stage.proxy.open_files() > files + 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A round of everything at once.
async fn mixed(stage: &Stage, users: &[Browser], round: usize) {
    let well = users.iter().map(async |user| {
        let (mut http1, mut http2) = (user.clone(), user.clone().http2());
        for _ in 0..4 {
            http1.fetch(&stage.url("/app/page")).await.expect(200);
            http2.fetch(&stage.url("/app/page")).await.expect(200);
        }
        let body = vec![b'x'; 100_000];
        http1
            .send("POST", &stage.url("/app/form"), &[("sec-fetch-site", "same-origin")], &body)
            .await
            .expect(200);
    });
    let login = async { drop(stage.logged_in().await) };
    tokio::join!(join_all(well), ill(stage, round), ill(stage, round + 1), login);
}

/// Something that goes wrong.
async fn ill(stage: &Stage, what: usize) {
    match what % 4 {
        0 => drop(stage.browser().fetch(&stage.url("/public/close")).await.expect(502)),
        1 => {
            // A client that leaves in the middle of its request.
            let mut raw = Raw::connect(stage.port, HOST).await;
            raw.send(format!("POST /public/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nx")).await;
        }
        2 => {
            let mut raw = Raw::connect(stage.port, HOST).await;
            raw.send(format!("GET /public/cut HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            assert!(raw.answer().await.is_none(), "half an answer looks whole");
        }
        _ => drop(stage.browser().fetch(&stage.url("/app/")).await.expect(401)),
    }
}
