//! DOS-09, RP-23, RP-27: what a provider that has gone mad, or somebody who speaks as if for it, may cost. Time and
//! memory are measured at the running process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::expect::{accepted_login, no_session};
use crate::support::idp::{Algorithm, Behaviour, Endpoint, Reply, encode, random};
use crate::support::stage::Stage;

/// RP-27: how long an answer may take, and what the process may grow by at any moment.
const BOUND: Duration = Duration::from_secs(6);
const GROWTH: u64 = 16 << 20;

/// DOS-09: what looking at one bad answer may take of the processors. The bound is 50 ms; in a development build
/// everything takes several times as long, the login around it included.
const LOOK: Duration = Duration::from_millis(300);

/// A valid gzip stream that inflates to more than a hundred times its size: one literal, and then copies of 258 bytes
/// from one byte before (RFC 1951 section 3.2.6: 258 is eight bits, a distance of one five).
fn gzip_bomb(size: usize) -> Bytes {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let (mut pending, mut count) = (0u32, 0);
    let mut put = |bits: u32, length: u32, bytes: &mut Vec<u8>| {
        pending |= bits << count;
        count += length;
        while count >= 8 {
            bytes.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            count -= 8;
        }
    };
    // The last block, with fixed codes; a space; then symbol 285 and distance 0. Codes begin with their highest bit.
    put(0b011, 3, &mut bytes);
    put(u32::from((0x30u8 + b' ').reverse_bits()), 8, &mut bytes);
    while bytes.len() < size {
        put(u32::from(0b1100_0101u8.reverse_bits()), 13, &mut bytes);
    }
    bytes.into()
}

fn packed(coding: &str, body: Bytes) -> Reply {
    let headers =
        vec![("content-type", "application/json".to_owned()), ("content-encoding", coding.to_owned())];
    Reply::Fixed { status: 200, headers, body }
}

/// Answers that are larger than they look, or cost more than they should, at any endpoint.
fn bombs() -> Vec<(&'static str, Reply)> {
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let json = |text: String| Reply::text(200, "application/json", text);
    let bomb = gzip_bomb(900 << 10);
    vec![
        ("gzip", packed("gzip", bomb.clone())),
        ("gzip twice", packed("gzip, gzip", bomb.clone())),
        ("br", packed("br", bomb.clone())),
        ("zstd", packed("zstd", bomb.clone())),
        ("gzip that is not announced", Reply::text(200, "application/json", bomb)),
        ("50 MB", Reply::Huge(50_000_000)),
        ("arrays in arrays", json(nested("[", "]"))),
        ("objects in objects", json(nested("{\"keys\":", "}"))),
        ("a string of 1 MiB", json(format!("{{\"keys\":\"{}\"}}", "\\u0041".repeat(170_000)))),
        ("a number of 900 KB", json(format!("{{\"keys\":[{}]}}", "9".repeat(900_000)))),
        ("90,000 members", json(format!("{{\"keys\":[{}0]}}", "0,".repeat(90_000)))),
        ("500,000 members", json(format!("{{\"keys\":[{}0]}}", "0,".repeat(500_000)))),
        ("a byte a second", Reply::Drip),
    ]
}

/// A login that must fail within bounds, whatever the reply does.
async fn survives(stage: &Stage, what: &str) {
    let mut browser = stage.browser();
    let callback = browser.authorize(&stage.url("/app/")).await;
    stage.proxy.forget_peak();
    let (memory, used, started) = (stage.proxy.memory(), stage.proxy.processor_time(), Instant::now());
    let answer = browser.navigate(callback.as_str()).await;
    let (took, used) = (started.elapsed(), stage.proxy.processor_time() - used);
    let grown = stage.proxy.peak_memory().saturating_sub(memory);
    eprintln!("{what}: {} after {took:?}, {used:?} of the processors, grown by {grown} bytes", answer.status);
    assert!(matches!(answer.status, 400 | 503), "{what}: {answer:?}");
    assert!(took < BOUND, "{what}: {took:?}");
    assert!(used < LOOK, "{what}: {used:?} of the processors");
    assert!(grown < GROWTH, "{what}: grown by {grown} bytes");
    no_session(stage, &mut browser, &answer).await;
}

#[tokio::test]
async fn bombs_of_the_token_endpoint_are_bounded() {
    let stage = Stage::usual().await;
    accepted_login(&stage).await;
    for (what, reply) in bombs() {
        stage.idp.change(|current| current.token_reply = Some(reply));
        survives(&stage, what).await;
        stage.idp.change(|current| current.token_reply = None);
    }
    accepted_login(&stage).await;
}

#[tokio::test]
async fn bombs_instead_of_keys_are_bounded() {
    for (what, reply) in bombs() {
        let mut behaviour = Behaviour::good(Algorithm::Es256);
        behaviour.jwks_reply = Some(reply);
        survives(&Stage::misbehaving(behaviour).await, what).await;
    }
}

#[tokio::test]
async fn bombs_instead_of_user_info_are_bounded() {
    for (what, reply) in bombs() {
        let mut behaviour = Behaviour::good(Algorithm::Es256);
        // What the rules need is only there.
        behaviour.user = json!({ "sub": "alice" });
        behaviour.user_info_reply = Some(reply);
        survives(&Stage::misbehaving(behaviour).await, what).await;
    }
}

/// DOS-09: tokens that are too large, or packed, or signed with keys that take too long; sets of too many keys.
#[tokio::test]
async fn large_tokens_and_keys_are_bounded() {
    let stage = Stage::usual().await;
    accepted_login(&stage).await;
    let header = |value: Value| encode(value.to_string());
    let packed = header(json!({ "alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF" }));
    let body = encode(gzip_bomb(600 << 10));
    for (what, token) in [
        (
            "a token of 900 KB",
            format!("{}.{}.AAAA", header(json!({ "alg": "ES256" })), "e".repeat(900 << 10)),
        ),
        ("a packed JWE", format!("{packed}.AAAA.AAAA.{body}.AAAA")),
        ("a packed JWS", format!("{}.{body}.AAAA", header(json!({ "alg": "ES256", "zip": "DEF" })))),
        ("200,000 parts", "e30.".repeat(200_000)),
        (
            "a header of 500 KB",
            format!("{}.e30.AAAA", header(json!({ "alg": "ES256", "kid": "k".repeat(380_000) }))),
        ),
    ] {
        stage.idp.change(|current| current.token = Arc::new(move |_| token.clone()));
        survives(&stage, what).await;
    }
    stage.idp.change(|current| current.token = Arc::new(|token| token));
    drop(stage);

    let rsa = |bytes: usize| json!({ "kty": "RSA", "kid": "rs256-0", "use": "sig", "alg": "RS256", "e": "AQAB", "n": encode(vec![0xff; bytes]) });
    let many = |count: usize| (0..count).map(|_| json!({ "kty": "EC", "kid": random() })).collect::<Vec<_>>();
    for (what, keys) in [
        ("a modulus of 16,384 bits", vec![rsa(2048)]),
        ("a modulus of 4 million bits", vec![rsa(500_000)]),
        ("10,000 keys", many(10_000)),
        ("200 moduli of 16,384 bits", (0..200).map(|_| rsa(2048)).collect()),
    ] {
        let mut behaviour = Behaviour::good(Algorithm::Rs256);
        behaviour.jwks_reply = Some(Reply::json(200, &json!({ "keys": keys })));
        let stage = Stage::misbehaving(behaviour).await;
        survives(&stage, what).await;
    }
}

/// RP-23: a thousand forged tokens, each with a key id of its own, within ten seconds: the provider is asked for its
/// keys at most twice, and users log in meanwhile.
#[tokio::test]
async fn a_storm_of_key_ids_asks_the_provider_for_little() {
    let stage = Stage::with(|plan| plan.behaviour = Behaviour::good(Algorithm::Es256).with_logout()).await;
    accepted_login(&stage).await;
    let before = stage.idp.count(&Endpoint::Jwks);
    let token = stage.idp.logout_token(|_| {});
    let (_, claims) = token.split_once('.').unwrap();
    let url = stage.url("/aporeto/oidc/backchannel-logout");
    let started = Instant::now();
    let storm = async {
        for _ in 0..20 {
            join_all((0..50).map(|_| async {
                let header = json!({ "alg": "ES256", "typ": "logout+jwt", "kid": random() });
                let body = format!("logout_token={}.{claims}", encode(header.to_string()));
                let form = [("content-type", "application/x-www-form-urlencoded")];
                let answer = stage.browser().send("POST", &url, &form, body.as_bytes()).await;
                assert!(matches!(answer.status, 400 | 503), "{answer:?}");
            }))
            .await;
        }
    };
    let users = async {
        for _ in 0..10 {
            accepted_login(&stage).await;
        }
    };
    tokio::join!(storm, users);
    let fetches = stage.idp.count(&Endpoint::Jwks) - before;
    eprintln!("a thousand forged tokens in {:?}, {fetches} fetches", started.elapsed());
    // Two in any fifteen seconds.
    let windows = 1 + usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    assert!((1..=2 * windows).contains(&fetches), "{fetches} fetches for forged key ids");
}
