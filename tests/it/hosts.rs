//! Which service a request belongs to: Host, SNI, several hosts and services, and the listeners beside the main one.

use serde_json::json;

use crate::support::client::{Answer, Browser, FETCH, Raw, connect};
use crate::support::expect::{own, page, problem};
use crate::support::ports::free_port;
use crate::support::stage::{HOST, Stage};

/// One request over plain TCP.
async fn plain(port: u16, request: &str) -> Answer {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let text = crate::support::soon("an answer over plain TCP", exchange).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut headers = http::HeaderMap::new();
    for (name, value) in head.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.trim().parse().unwrap());
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers, body: body.to_owned().into(), url: format!("http://127.0.0.1:{port}/") }
}

/// A request to this host over TLS with that SNI.
async fn ask(stage: &Stage, sni: &str, head: &str) -> Answer {
    Raw::ask(stage.port, sni, format!("{head}\r\nConnection: close\r\n\r\n")).await
}

/// AZ-11: how a host may be written.
#[tokio::test]
async fn a_host_is_matched_by_name() {
    let stage = Stage::usual().await;
    let port = stage.port;
    for (head, status) in [
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}"), 200),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}:{port}"), 200),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}:1"), 200),
        ("GET /public/ HTTP/1.1\r\nHost: APP.Test".into(), 200),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}."), 200),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}.:{port}"), 200),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}.."), 421),
        ("GET /public/ HTTP/1.1\r\nHost: other.test".into(), 421),
        (format!("GET /public/ HTTP/1.1\r\nHost: x.{HOST}"), 421),
        (format!("GET /public/ HTTP/1.1\r\nHost: {HOST}.evil.test"), 421),
        ("GET /public/ HTTP/1.1\r\nHost: 127.0.0.1".into(), 421),
    ] {
        let answer = ask(&stage, HOST, &head).await;
        assert_eq!(answer.status, status, "{head}: {answer:?}");
        if status == 421 {
            problem(&answer, 421);
        }
    }
    let count = stage.app.count();
    for head in [
        "GET /public/ HTTP/1.1".to_owned(),
        "GET /public/ HTTP/1.1\r\nHost: ".to_owned(),
        format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}"),
        format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\nHost: other.test"),
        format!("GET /public/ HTTP/1.1\r\nHost: {HOST}, other.test"),
        format!("GET /public/ HTTP/1.1\r\nHost: user@{HOST}"),
        format!("GET /public/ HTTP/1.1\r\nHost: {HOST}:x"),
        format!("GET /public/ HTTP/1.1\r\nHost: {HOST}/x"),
        "GET https://other.test/public/ HTTP/1.1\r\nHost: app.test".to_owned(),
        "GET http://user@app.test/public/ HTTP/1.1\r\nHost: app.test".to_owned(),
    ] {
        let answer = ask(&stage, HOST, &head).await;
        assert!(matches!(answer.status, 400 | 421), "{head}: {answer:?}");
    }
    assert_eq!(stage.app.count(), count);
}

/// TLS-02: two services on one port.
#[tokio::test]
async fn sni_and_host_name_the_same_service() {
    let stage = Stage::with(|plan| {
        plan.second("other", "other.test");
    })
    .await;
    for (sni, host, status) in [
        (HOST, HOST, 200),
        ("other.test", "other.test", 200),
        (HOST, "other.test", 421),
        ("other.test", HOST, 421),
        ("unknown.test", HOST, 421),
        ("unknown.test", "unknown.test", 421),
    ] {
        // An unknown name may also be refused by TLS itself.
        let Ok(_) = connect(stage.port, Some(sni), &[b"http/1.1"]).await else {
            assert_eq!((sni, status), ("unknown.test", 421));
            continue;
        };
        let answer = ask(&stage, sni, &format!("GET /public/ HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!(answer.status, status, "SNI {sni}, Host {host}: {answer:?}");
    }
    // A second request of the same connection for the other service.
    let mut raw = Raw::connect(stage.port, HOST).await;
    for (host, status) in [(HOST, 200), ("other.test", 421), (HOST, 200)] {
        raw.send(format!("GET /public/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        match raw.answer().await {
            Some(answer) => assert_eq!(answer.status, status, "{host}"),
            None => panic!("{host}: no answer"),
        }
    }
    // Without SNI: any host, with the certificate of the first service.
    for host in [HOST, "other.test"] {
        let tls = connect(stage.port, None, &[b"http/1.1"]).await.unwrap();
        let (_, session) = tls.get_ref();
        assert_eq!(names(session.peer_certificates().unwrap()), [HOST]);
        let mut raw = Raw::over(tls);
        raw.send(format!("GET /public/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        raw.answer().await.unwrap().expect(200);
    }
    let tls = connect(stage.port, Some("other.test"), &[b"h2", b"http/1.1"]).await.unwrap();
    let (_, session) = tls.get_ref();
    assert_eq!(names(session.peer_certificates().unwrap()), ["other.test"]);
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        session.negotiated_key_exchange_group().map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
}

/// The same over HTTP/2, where the host is in `:authority`, and a connection may be used for another host.
#[tokio::test]
async fn http2_names_the_same_service_too() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stage = Stage::with(|plan| {
        plan.second("other", "other.test");
    })
    .await;
    let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for (authority, host, statuses) in [
        (HOST, None, &[200][..]),
        (HOST, Some(HOST), &[200]),
        ("other.test", None, &[421]),
        ("unknown.test", None, &[421]),
        (HOST, Some("other.test"), &[400, 421]),
        ("other.test", Some(HOST), &[400, 421]),
        (HOST, None, &[200]),
    ] {
        let mut request = http::Request::get(format!("https://{authority}/public/"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = crate::support::soon("an answer", sender.send_request(request)).await.unwrap();
        assert!(statuses.contains(&answer.status().as_u16()), "{authority}, Host {host:?}: {answer:?}");
    }
    assert_eq!(stage.app.count(), 3);
}

/// The DNS names of the leaf.
fn names(chain: &[rustls::pki_types::CertificateDer<'_>]) -> Vec<String> {
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let extension = leaf.subject_alternative_name().unwrap().unwrap();
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

/// With several hosts, that of the callback is where logins happen.
#[tokio::test]
async fn the_callbacks_host_is_canonical() {
    let stage = Stage::with(|plan| plan.set("hosts", json!(["www.app.test", HOST]))).await;
    let other = |path: &str| stage.url(path).replace(HOST, "www.app.test");
    let mut browser = stage.browser();
    browser.navigate(&other("/public/")).await.expect(200);
    let answer = browser.navigate(&other("/app/x?y=%2F")).await;
    own(&answer, 302);
    assert_eq!(answer.header("location"), stage.url("/app/x?y=%2F"));
    assert_eq!(answer.set_cookies(), Vec::<&str>::new());
    let document = problem(&browser.fetch(&other("/app/")).await, 401);
    assert!(document["login"].as_str().unwrap().starts_with(&stage.origin), "{document}");
}

/// SES-04: a session is of the host that it began on. No browser takes its cookie to another one.
#[tokio::test]
async fn a_session_is_of_the_canonical_host() {
    let stage = Stage::with(|plan| plan.set("hosts", json!(["www.app.test", HOST]))).await;
    let browser = stage.logged_in().await;
    let cookie = browser.cookies(HOST);
    let before = stage.app.count();
    let ask = async |host: &str, method: &str, path: &str, accept: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}:{}\r\nCookie: {cookie}; theirs=1\r\n\
             Sec-Fetch-Site: same-origin\r\n{accept}Connection: close\r\n\r\n",
            stage.port
        );
        Raw::ask(stage.port, host, request).await
    };
    ask(HOST, "GET", "/app/", "").await.expect(200);
    let page = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    problem(&ask("www.app.test", "GET", "/app/", "").await, 401);
    problem(&ask("www.app.test", "GET", "/aporeto/oidc/session", "").await, 401);
    let moved = ask("www.app.test", "GET", "/app/", page).await.expect(302);
    assert_eq!(moved.header("location"), stage.url("/app/"));
    assert_eq!(stage.app.count(), before + 1);
    ask("www.app.test", "GET", "/public/", "").await.expect(200);
    assert_eq!(stage.app.last().header("cookie"), ["theirs=1"], "and no application sees it");
    ask("www.app.test", "POST", "/aporeto/oidc/logout", "").await;
    ask(HOST, "GET", "/app/", "").await.expect(200);
}

/// `httpRedirectPort`.
#[tokio::test]
async fn plain_http_leads_to_https() {
    let port = free_port();
    let stage = Stage::with(|plan| plan.set("httpRedirectPort", json!(port))).await;
    let answer =
        plain(port, &format!("GET /app/x?y=%2F HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), stage.url("/app/x?y=%2F"));
    for host in ["other.test", "evil.test:80"] {
        let answer =
            plain(port, &format!("GET /app/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 421, "{host}");
    }
    let answer =
        plain(port, &format!("GET //evil.test/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.status == 400 || answer.header("location").starts_with(&stage.origin), "{answer:?}");
    assert_eq!(stage.app.count(), 0);
}

/// `publicApplicationPort`: public endpoints, and no credentials.
#[tokio::test]
async fn the_public_port_reads_no_credentials() {
    let port = free_port();
    let stage = Stage::with(|plan| plan.set("publicApplicationPort", json!(port))).await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let ask = async |path: &str, host: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}; x=1\r\nConnection: close\r\n\r\n"
        );
        plain(port, &request).await
    };
    let count = stage.app.count();
    ask("/public/health", HOST).await.expect(200);
    let received = stage.app.last();
    assert_eq!(
        (received.header("x-user"), received.header("x-forwarded-proto")),
        (vec![], vec!["http".into()])
    );
    assert_eq!(received.header("cookie"), ["x=1"]);
    for path in [
        "/app/",
        "/staff/",
        "/aporeto/oidc/login",
        "/aporeto/oidc/session",
        "/aporeto/oidc/callback?code=x&state=y",
        "/no-such-rule",
    ] {
        let answer = ask(path, HOST).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert_eq!(answer.set_cookies(), Vec::<&str>::new());
    }
    assert_eq!(stage.app.count(), count + 1);
}

/// A preflight carries no credentials, but what is not public does not pass the public port all the same.
#[tokio::test]
async fn a_forwarded_preflight_does_not_open_the_public_port() {
    let port = free_port();
    let stage = Stage::with(|plan| {
        plan.set("publicApplicationPort", json!(port));
        plan.set("corsPreflight", json!("forward"));
    })
    .await;
    let request = format!(
        "OPTIONS /app/ HTTP/1.1\r\nHost: {HOST}\r\nOrigin: https://other.test\r\n\
         Access-Control-Request-Method: PUT\r\nConnection: close\r\n\r\n"
    );
    plain(port, &request).await.expect(403);
    assert_eq!(stage.app.count(), 0);
}

/// `TLSType: None` behind a trusted proxy that speaks TLS.
#[tokio::test]
async fn a_trusted_proxy_terminates_tls() {
    let stage = Stage::with(|plan| {
        plan.set("TLSType", json!("None"));
        plan.set("trustedProxies", json!(["127.0.0.0/8"]));
        plan.set("hsts", json!("365d"));
    })
    .await;
    let ask = async |path: &str, extra: &str| {
        plain(
            stage.port,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n{extra}Connection: close\r\n\r\n"
            ),
        )
        .await
    };
    let https = "X-Forwarded-Proto: https\r\n";
    ask("/public/", &format!("{https}X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: evil.test\r\n"))
        .await
        .expect(200);
    let received = stage.app.last();
    assert!(received.header("x-forwarded-for").concat().contains("192.0.2.7"), "{}", received.text());
    assert_eq!(received.header("x-forwarded-proto"), ["https"]);
    assert!(!received.text().contains("evil.test"), "{}", received.text());
    let login = ask("/app/", https).await.expect(302);
    assert!(login.set_cookies()[0].contains("Secure"), "{login:?}");
    assert!(login.header("strict-transport-security").starts_with("max-age="), "{login:?}");
    for extra in ["", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: http, https\r\n"] {
        let answer = ask("/public/x", extra).await;
        assert_eq!(answer.status, 308, "{extra}");
        assert_eq!(answer.header("location"), stage.url("/public/x"));
        // RFC 6797 section 7.2.
        assert_eq!(answer.header("strict-transport-security"), "", "{extra}");
    }
    let stage = Stage::with(|plan| {
        plan.set("TLSType", json!("None"));
        plan.set("trustedProxies", json!(["192.0.2.0/24"]));
    })
    .await;
    let request = format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n{https}Connection: close\r\n\r\n");
    assert_eq!(plain(stage.port, &request).await.status, 308);
    assert_eq!(stage.app.count(), 0);
}

/// Two services of one host get cookies of their own.
#[tokio::test]
async fn services_of_one_host_do_not_share_cookies() {
    let second_port = free_port();
    let stage = Stage::with(|plan| {
        let service = plan.second("other", HOST);
        service["exposedPort"] = json!(second_port);
        service["OIDCCallbackURL"] = json!(format!("https://{HOST}:{second_port}"));
    })
    .await;
    let mut browser = stage.browser();
    browser.follow(&stage.url("/app/")).await.expect(200);
    browser.follow(&format!("https://{HOST}:{second_port}/app/")).await.expect(200);
    let mut names: Vec<String> = browser.session().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["__Host-portcullis-app", "__Host-portcullis-other"]);
    browser.fetch(&stage.url("/app/")).await.expect(200);
    assert_eq!(stage.app.last().header("cookie"), Vec::<String>::new());
    browser.send("POST", &stage.url("/aporeto/oidc/logout"), &[("sec-fetch-site", "same-origin")], b"").await;
    browser.fetch(&format!("https://{HOST}:{second_port}/app/")).await.expect(200);
    problem(&browser.fetch(&stage.url("/app/")).await, 401);
}

/// `hsts`.
#[tokio::test]
async fn strict_transport_where_set() {
    let stage = Stage::with(|plan| plan.set("hsts", json!("365d"))).await;
    for path in ["/public/", "/app/"] {
        let answer = stage.browser().send("GET", &stage.url(path), &FETCH, b"").await;
        assert!(answer.header("strict-transport-security").starts_with("max-age=31536000"), "{answer:?}");
    }
    let stage = Stage::usual().await;
    let answer = Browser::new(stage.secrets()).fetch(&stage.url("/public/")).await;
    assert_eq!(answer.header("strict-transport-security"), "");
}

/// The public host is told by a page to a person who came by another.
#[tokio::test]
async fn a_person_at_a_wrong_host_gets_a_page() {
    let stage = Stage::usual().await;
    let head = "GET / HTTP/1.1\r\nHost: wrong.test\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document";
    page(&ask(&stage, HOST, head).await, 421);
}
