//! Behind load balancers: whom the record and the application take for the client, and that nobody can forge it.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{Answer, Raw};
use crate::support::ports::free_port;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// The client of the last request, by the application's headers and by the record.
async fn seen(stage: &Stage, answer: Answer) -> String {
    answer.expect(200);
    let received = stage.app.last();
    let told = received.header("x-forwarded-for").concat();
    let record = stage.proxy.record(&received.header("x-request-id").concat()).await;
    assert_eq!(record["client"], told, "the record and the application differ");
    let forwarded = received.header("forwarded").concat();
    let node = if told.contains(':') { format!("for=\"[{told}]\"") } else { format!("for={told}") };
    assert!(forwarded.starts_with(&node), "{forwarded}");
    told
}

fn get(extra: &str) -> String {
    format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n{extra}Connection: close\r\n\r\n")
}

/// `X-Forwarded-For` lines that a client at 127.0.0.1 sends, and whom we take for the client.
#[tokio::test]
async fn forwarded_addresses_count_from_trusted_proxies_only() {
    let trusting = Stage::with(|plan| {
        plan.set("trustedProxies", json!(["127.0.0.1", "10.0.0.0/8", "2001:db8:cd::/48"]));
    })
    .await;
    let strict = Stage::with(|plan| plan.set("trustedProxies", json!(["10.0.0.0/8"]))).await;
    for (lines, client) in [
        (&[][..], "127.0.0.1"),
        (&["203.0.113.7"], "203.0.113.7"),
        // A chain of ours, and what the client wrote left of it.
        (&["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["203.0.113.7, 10.0.0.3, 10.0.0.2"], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["10.9.9.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["127.0.0.1, 203.0.113.7"], "203.0.113.7"),
        // Several fields are one list.
        (&["6.6.6.6", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        (&["6.6.6.6, 203.0.113.7", "10.0.0.2, 10.0.0.3"], "203.0.113.7"),
        // All of them ours: the farthest.
        (&["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
        // Ports, brackets, and IPv4 in IPv6.
        (&["203.0.113.7:4711, 10.0.0.2:443"], "203.0.113.7"),
        (&["[2001:db8::7]:4711, [2001:db8:cd::1]:443"], "2001:db8::7"),
        (&["[2001:db8::7], 2001:db8:cd::1"], "2001:db8::7"),
        (&["6.6.6.6, ::ffff:203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
        // What can't be read ends the walk: whatever stands left of it is anybody's.
        (&["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, , 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, 203.0.113.7:x, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, 203.0.113.007, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, 203.0.113.7.example, 10.0.0.2"], "10.0.0.2"),
        (&["6.6.6.6, fe80::1%eth0"], "127.0.0.1"),
        (&["6.6.6.6, \"203.0.113.7\""], "127.0.0.1"),
        (&["6.6.6.6", ""], "127.0.0.1"),
    ] {
        let lines: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        // Other spellings and other fields are nobody's, nor is `Forwarded` beside the usual one.
        let beside = if lines.is_empty() { "" } else { "Forwarded: for=6.6.6.6\r\n" };
        let others = "X_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
        let request = get(&format!("{lines}{others}{beside}"));
        let answer = Raw::ask(trusting.port, HOST, &request).await;
        assert_eq!(seen(&trusting, answer).await, client, "{lines}");
        let answer = Raw::ask(strict.port, HOST, &request).await;
        assert_eq!(seen(&strict, answer).await, "127.0.0.1", "from nobody's proxy: {lines}");
    }
    let request = get("Forwarded: for=6.6.6.6, for=203.0.113.7;proto=https, for=10.0.0.2\r\n");
    for (stage, client) in [(&trusting, "203.0.113.7"), (&strict, "127.0.0.1")] {
        let answer = Raw::ask(stage.port, HOST, &request).await;
        assert_eq!(seen(stage, answer).await, client, "Forwarded alone");
    }
}

const FROM_CLIENT: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 51000 443\r\n";
const FROM_CDN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x05\xc0\0\x02\x01\xc7\x38\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The PROXY protocol: the address in the header is the client, and the one that `trustedProxies` are about.
#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let redirect = free_port();
    let checks = free_port();
    let stage = Stage::with(|plan| {
        plan.set("proxyProtocolEnabled", json!(true));
        plan.set("proxyProtocolSubnets", json!(["127.0.0.0/8"]));
        plan.set("trustedProxies", json!(["10.0.0.0/8", "127.0.0.1"]));
        plan.set("httpRedirectPort", json!(redirect));
        plan.set("publicApplicationPort", json!(checks));
    })
    .await;
    for (header, forwarded_for, client) in [
        (FROM_CLIENT, "", "203.0.113.9"),
        // The load balancer passes on what the client wrote, so its own address lends no trust.
        (FROM_CLIENT, "6.6.6.6", "203.0.113.9"),
        (FROM_CDN, "", "10.0.0.5"),
        (FROM_CDN, "6.6.6.6, 198.51.100.3", "198.51.100.3"),
        (LOCAL, "", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "", "127.0.0.1"),
    ] {
        let mut raw = Raw::behind(header, stage.port, HOST).await.unwrap();
        let line = match forwarded_for {
            "" => String::new(),
            list => format!("X-Forwarded-For: {list}\r\n"),
        };
        raw.send(get(&line)).await;
        assert_eq!(seen(&stage, raw.answer().await.unwrap()).await, client, "{forwarded_for}");
    }
    let plain = async |port: u16, header: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(&[header, get("").as_bytes()].concat()).await.unwrap();
        let mut answer = String::new();
        let _ = soon("the end", stream.read_to_string(&mut answer)).await;
        answer
    };
    // The redirect port is behind the load balancer too; that for its checks is not.
    let answer = plain(redirect, FROM_CLIENT).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert_eq!(plain(redirect, b"").await, "");
    let answer = plain(checks, b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = plain(checks, FROM_CLIENT).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Nothing is guessed: a connection of the load balancer without a header is refused.
    assert!(Raw::behind(b"", stage.port, HOST).await.is_err());
    let refused = stage.proxy.event("handshake-failed").await;
    assert!(refused.to_string().contains("no PROXY header"), "{refused}");
}

/// Whoever is not a load balancer can't say that it speaks for somebody.
#[tokio::test]
async fn a_forged_proxy_header_is_refused() {
    let stage = Stage::with(|plan| {
        plan.set("proxyProtocolEnabled", json!(true));
        plan.set("proxyProtocolSubnets", json!(["192.0.2.0/24", "2001:db8::/32"]));
    })
    .await;
    let answer = Raw::ask(stage.port, HOST, get("")).await;
    assert_eq!(seen(&stage, answer).await, "127.0.0.1");
    let before = stage.app.count();
    for header in [FROM_CLIENT, FROM_CDN] {
        assert!(Raw::behind(header, stage.port, HOST).await.is_err());
    }
    assert_eq!(stage.app.count(), before);
}
