//! What the application receives and what comes back: headers, bodies, streams, WebSocket.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::app::App;
use crate::support::client::{Browser, FETCH, Raw, connect};
use crate::support::expect::problem;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// HDR-01 to HDR-04, and product section 8's list.
#[tokio::test]
async fn what_the_app_never_gets_from_a_client() {
    let stage = Stage::usual().await;
    let browser = stage.logged_in().await;
    let names = [
        "X-User",
        "x-user",
        "X_User",
        "X.User",
        "X-USER",
        "x_groups",
        "X_USER",
        "x.groups",
        "X~User",
        "X!User",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X_Forwarded_For",
        "X-Forwarded-Anything",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Original-URL",
        "X-Original-Anything",
        "X-Rewrite-URL",
        "X-Request-Id",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Keep-Alive",
        "TE",
        "Upgrade",
    ];
    let mut head =
        format!("GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nX-Kept: 1\r\n", browser.cookies(HOST));
    names.iter().for_each(|name| head.push_str(&format!("{name}: forged-by-the-client\r\n")));
    Raw::ask(stage.port, HOST, format!("{head}\r\n")).await.expect(200);
    let received = stage.app.last();
    assert!(!received.text().contains("forged-by-the-client"), "{}", received.text());
    assert_eq!(received.header("x-kept"), ["1"]);
    assert_eq!(received.header("x-user"), ["alice"]);
    // On a public path too, where nobody is known.
    let head = head.replace("/app/", "/public/").replace("Cookie", "X-No-Cookie");
    Raw::ask(stage.port, HOST, format!("{head}\r\n")).await.expect(200);
    let received = stage.app.last();
    assert!(!received.text().contains("forged-by-the-client"), "{}", received.text());
    assert_eq!(received.header("x-user"), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_app_gets_from_us() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    for http2 in [false, true] {
        let mut browser = if http2 { browser.clone().http2() } else { browser.clone() };
        let answer = browser.fetch(&stage.url("/app/x")).await.expect(200);
        let received = stage.app.last();
        assert!(received.text().starts_with("GET /app/x HTTP/1.1\r\n"), "{}", received.text());
        let authority = format!("{HOST}:{}", stage.port);
        for (name, value) in [
            ("host", authority.as_str()),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", &authority),
            ("x-forwarded-port", &stage.port.to_string()),
            ("x-user", "alice"),
            ("x-groups", "staff"),
        ] {
            assert_eq!(received.header(name), [value], "{name}: {}", received.text());
        }
        let forwarded = received.header("forwarded").concat();
        for part in ["for=127.0.0.1", "proto=https", "host="] {
            assert!(forwarded.contains(part), "{forwarded}");
        }
        let id = received.header("x-request-id").concat();
        assert!(id.len() >= 16, "{id}");
        stage.proxy.record(&id).await;
        assert_eq!(answer.header("cache-control"), "private");
    }
    // A public path with a session knows who it is; without Cache-Control it stays as it was.
    let answer = browser.fetch(&stage.url("/public/")).await.expect(200);
    assert_eq!(stage.app.last().header("x-user"), ["alice"]);
    assert_eq!(answer.header("cache-control"), "");
    assert_eq!(answer.header("vary"), "Cookie", "a shared cache must not show it to somebody else");
    assert_eq!(
        browser.fetch(&stage.url("/app/caching")).await.expect(200).header("cache-control"),
        "public, max-age=60"
    );
}

/// HDR-03: Connection names what is for one hop, and takes nothing away that we set.
#[tokio::test]
async fn connection_takes_only_the_clients_headers_away() {
    let stage = Stage::usual().await;
    let browser = stage.logged_in().await;
    let request = format!(
        "GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nX-Hop: 1\r\nX-End: 2\r\n\
         Connection: close, X-Hop, X-User, X-Groups, X-Forwarded-For, X-Request-Id, Forwarded, Host\r\n\r\n",
        browser.cookies(HOST)
    );
    Raw::ask(stage.port, HOST, request).await.expect(200);
    let received = stage.app.last();
    for name in ["x-user", "x-groups", "x-forwarded-for", "x-request-id", "forwarded", "host"] {
        assert_eq!(received.header(name).len(), 1, "{name}: {}", received.text());
    }
    assert_eq!((received.header("x-hop"), received.header("x-end")), (vec![], vec!["2".into()]));
    let answer = Raw::ask(stage.port, HOST, format!("GET /public/hop HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await
        .expect(200);
    assert_eq!(
        (answer.header("x-private"), answer.header("keep-alive"), answer.header("x-public")),
        ("", "", "2")
    );
}

/// HDR-06, and the encoding of claims in headers.
#[tokio::test]
async fn claims_become_headers() {
    let stage = Stage::with(|plan| {
        plan.behaviour.user["https://acme.com/roles"] = json!(["a,b", "c%d", "e\r\nX-Evil: 1", "ä"]);
        plan.behaviour.user["dotted.name"] = json!("x\u{0}y");
        plan.behaviour.user["admin"] = json!(true);
        plan.behaviour.user["long"] = json!("z".repeat(9_000));
        let mapping = |claim: &str, header: &str| json!({ "claimName": claim, "targetHTTPHeader": header });
        plan.set(
            "claimsToHTTPHeaderMappings",
            json!([
                mapping("https://acme.com/roles", "X-Roles"),
                mapping("dotted.name", "X-Dotted"),
                mapping("admin", "X-Admin"),
                mapping("long", "X-Long"),
                mapping("absent", "X-Absent"),
                mapping("sub", "X-User"),
            ]),
        );
    })
    .await;
    let mut browser = stage.logged_in().await;
    let forged = ["x-roles", "x-absent", "x-long", "x-admin"].map(|name| (name, "forged"));
    browser.send("GET", &stage.url("/app/"), &forged, b"").await.expect(200);
    let received = stage.app.last();
    assert_eq!(received.header("x-roles"), ["a%2Cb,c%25d,e%0D%0AX-Evil: 1,%C3%A4"]);
    assert_eq!(received.header("x-dotted"), ["x%00y"]);
    assert_eq!(received.header("x-admin"), ["true"]);
    assert!(!received.text().contains("forged"), "{}", received.text());
    for absent in ["x-long", "x-absent", "x-evil"] {
        assert_eq!(received.header(absent), Vec::<String>::new(), "{absent}");
    }
    let told = |line: &serde_json::Value| line["event"].is_string() && line.to_string().contains("long");
    stage.proxy.line("the claim that was too long", told).await;
}

/// SES-11.
#[tokio::test]
async fn the_apps_cookies_pass_and_ours_do_not() {
    let stage = Stage::usual().await;
    let browser = stage.logged_in().await;
    let (name, value) = browser.session().remove(0);
    let request = format!(
        "GET /app/cookies HTTP/1.1\r\nHost: {HOST}\r\nCookie: b=\"2 x\"; {name}={value};a=1;  c=; \
         __Host-portcullis-login.x=1; __Host-portcullis.1=y; d=%20é=; b=3\r\n\r\n"
    );
    let answer = Raw::ask(stage.port, HOST, request).await.expect(200);
    let received = stage.app.last();
    let cookies = received.header("cookie").concat();
    assert!(!cookies.contains("__Host-portcullis"), "{cookies}");
    let pairs: Vec<&str> = cookies.split(';').map(str::trim).filter(|pair| !pair.is_empty()).collect();
    assert_eq!(pairs, ["b=\"2 x\"", "a=1", "c=", "d=%20é=", "b=3"]);
    let set = answer.set_cookies();
    assert!(set.iter().any(|cookie| cookie.starts_with("app=1")), "{set:?}");
    assert!(!set.iter().any(|cookie| cookie.contains("from-the-app")), "the app sets our cookie: {set:?}");
    // Over HTTP/2 the pairs may come apart, and are one field again.
    let mut headers = vec![("cookie", "x=1"), ("cookie", "y=2")];
    let own = format!("{name}={value}");
    headers.push(("cookie", &own));
    let mut two = Browser::new(stage.secrets()).http2();
    two.send("GET", &stage.url("/app/"), &headers, b"").await.expect(200);
    assert_eq!(stage.app.last().header("cookie"), ["x=1; y=2"]);
}

#[tokio::test]
async fn bodies_go_up_whole() {
    let stage = Stage::usual().await;
    let body = vec![b'x'; 300_000];
    for http2 in [false, true] {
        let mut browser = if http2 { stage.browser().http2() } else { stage.browser() };
        let answer = browser.send("POST", &stage.url("/public/up"), &FETCH, &body).await.expect(200);
        assert_eq!(answer.json()["bodyBytes"], 300_000);
        assert_eq!(stage.app.last().body, body);
    }
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("POST /public/up HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")).await;
    raw.answer().await.unwrap().expect(200);
    assert_eq!(stage.app.last().body, b"hello world");
    // An empty body stays one, and the connection is good for the next request.
    raw.send(format!("POST /public/up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\nGET /public/next HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    raw.answer().await.unwrap().expect(200);
    raw.answer().await.unwrap().expect(200);
    assert_eq!(stage.app.last().target(), "/public/next");
}

/// `Expect: 100-continue` is answered before the body is sent.
#[tokio::test]
async fn a_client_may_wait_for_leave_to_send() {
    let stage = Stage::usual().await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!(
        "POST /public/up HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ))
    .await;
    let interim = raw.any_answer().await.unwrap();
    assert_eq!(interim.status, 100);
    raw.send("hello").await;
    raw.answer().await.unwrap().expect(200);
    assert_eq!(stage.app.last().body, b"hello");
}

/// The first part arrives while the app still holds the rest.
#[tokio::test]
async fn answers_stream() {
    let stage = Stage::usual().await;
    let cookie = stage.logged_in().await.cookies(HOST);
    for (path, first, rest) in
        [("/app/held", "first part, ", "second part"), ("/app/sse", "data: first\n\n", "data: second\n\n")]
    {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n\r\n"
        ))
        .await;
        assert!(raw.until(first).await.is_some_and(|seen| !seen.contains(rest)), "{path}");
        stage.app.release();
        raw.until(rest).await.expect("the rest");
    }
    // The same over HTTP/2.
    let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(stage.url("/app/sse"))
        .header("cookie", &cookie)
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    let mut answer = soon("a head", sender.send_request(request)).await.unwrap().into_body();
    let first = soon("the first event", answer.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: first\n\n");
    stage.app.release();
    let rest = soon("the rest", answer.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "data: second\n\n");
}

/// A request body reaches the app while the client still holds the rest, and the answer may come first.
#[tokio::test]
async fn requests_stream() {
    let stage = Stage::usual().await;
    let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let body = futures_util::stream::unfold(body, |mut body| async move {
        body.recv().await.map(|part| (Ok::<_, std::io::Error>(Frame::data(part)), body))
    });
    let request = http::Request::post(stage.url("/public/up"))
        .body(http_body_util::BodyExt::boxed(StreamBody::new(body)))
        .unwrap();
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    let connections = stage.app.connections();
    parts.send(Bytes::from_static(b"first ")).unwrap();
    let more = async {
        while stage.app.connections() == connections {
            tokio::task::yield_now().await;
        }
    };
    soon("the app to see the connection before the end of the body", more).await;
    parts.send(Bytes::from_static(b"second")).unwrap();
    drop(parts);
    let answer = soon("an answer", answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(stage.app.last().body, b"first second");
}

/// REL-09: what was cut is not made whole, and what there was of it arrives: a client that gets nothing at all on a
/// connection that it has used before repeats the request.
#[tokio::test]
async fn a_cut_answer_is_seen_as_cut() {
    let stage = Stage::usual().await;
    for (method, path) in [("GET", "/public/cut"), ("POST", "/public/cut"), ("GET", "/public/cut-chunked")] {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(format!("GET /public/first HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        raw.answer().await.unwrap();
        raw.send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n")).await;
        let text = String::from_utf8(raw.rest().await).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {path}: {text}");
        assert!(text.contains("only this") && !text.ends_with("0\r\n\r\n"), "{method} {path}: {text}");
        let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get(stage.url(path)).body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let answer = soon("a head", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let body = soon("the end", answer.into_body().collect()).await;
        assert!(body.is_err(), "{path}: a whole answer over HTTP/2");
    }
}

/// REL-10: one retry of what may be retried, where the app had closed the connection; of nothing else.
#[tokio::test]
async fn only_safe_requests_are_sent_again() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    browser.fetch(&stage.url("/public/first")).await.expect(200);
    // The pooled connection breaks at this request; a new one answers it.
    browser.fetch(&stage.url("/public/stale")).await.expect(200);
    let targets: Vec<String> = stage.app.received().iter().map(|received| received.target()).collect();
    assert_eq!(targets, ["/public/first", "/public/stale", "/public/stale"]);
    let count = stage.app.count();
    problem(&browser.send("POST", &stage.url("/public/stale"), &FETCH, b"x").await, 502);
    assert_eq!(stage.app.count(), count + 1, "a POST was sent again");
    // A fresh connection that breaks is no reason either.
    let count = stage.app.count();
    problem(&browser.fetch(&stage.url("/public/close")).await, 502);
    assert!(stage.app.count() <= count + 2);
}

/// A client that goes away takes its request along.
#[tokio::test]
async fn a_client_that_leaves_ends_the_request() {
    let stage = Stage::usual().await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("GET /public/hang HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    stage.app.wait_for(1).await;
    drop(raw);
    stage.app.wait_for_ends(1).await;
}

#[tokio::test]
async fn an_app_on_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("app.sock");
    let app = App::start_unix(&socket).await;
    let stage = Stage::with(|plan| plan.set("upstream", json!(format!("unix:{}", socket.display())))).await;
    stage.browser().fetch(&stage.url("/public/x")).await.expect(200);
    assert_eq!(app.last().target(), "/public/x");
    assert_eq!(stage.app.count(), 0);
}

#[tokio::test]
async fn other_answers_pass_as_they_are() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let answer = browser.fetch(&stage.url("/public/redirect")).await.expect(302);
    assert_eq!(answer.header("location"), "https://elsewhere.example/");
    for status in [204, 304, 401, 404, 418, 500, 503] {
        let name = format!("/public/status-{status}");
        assert_eq!(browser.send("HEAD", &stage.url(&name), &FETCH, b"").await.status, status);
    }
    browser.fetch(&stage.url("/public/early")).await.expect(200);
    browser.fetch(&stage.url("/public/trailers")).await.expect(200);
    let head = browser.send("HEAD", &stage.url("/public/x"), &FETCH, b"").await.expect(200);
    assert!(head.body.is_empty());
    assert_ne!(head.header("content-length"), "");
}

/// WS-01, WS-02.
#[tokio::test]
async fn a_websocket_is_a_tunnel() {
    let stage = Stage::with(|plan| plan.set("allowedOrigins", json!(["https://ui.test"]))).await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let handshake = async |cookie: &str, origin: Option<&str>| {
        let tls = connect(stage.port, Some(HOST), &[b"http/1.1"]).await.unwrap();
        let mut request = format!("wss://{HOST}:{}/app/ws?x=1", stage.port).into_client_request().unwrap();
        if !cookie.is_empty() {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        soon("a handshake", tokio_tungstenite::client_async(request, tls)).await
    };
    let status = |error: tokio_tungstenite::tungstenite::Error| match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => response.status().as_u16(),
        other => panic!("{other}"),
    };
    assert_eq!(status(handshake("", None).await.unwrap_err()), 401);
    for origin in
        ["https://evil.test", "null", &format!("http://{HOST}:{}", stage.port), &format!("https://{HOST}")]
    {
        assert_eq!(status(handshake(&cookie, Some(origin)).await.unwrap_err()), 403, "{origin}");
    }
    let before = stage.app.count();
    assert_eq!(before, 1);
    for origin in [None, Some(stage.origin.as_str()), Some("https://ui.test")] {
        let (mut socket, _) = handshake(&cookie, origin).await.unwrap();
        let received = stage.app.last();
        assert_eq!(
            (received.target().as_str(), received.header("x-user")),
            ("/app/ws?x=1", vec!["alice".into()])
        );
        assert_eq!(received.header("cookie"), Vec::<String>::new());
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let message = Message::binary(vec![b'x'; size]);
            soon("room", socket.send(message.clone())).await.unwrap();
            assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), message, "{size} bytes");
        }
        socket.send(Message::text("grüße")).await.unwrap();
        assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("grüße"));
        socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
        assert_eq!(
            soon("the pong", socket.next()).await.unwrap().unwrap(),
            Message::Pong(Bytes::from_static(b"p"))
        );
        socket.close(None).await.unwrap();
        soon("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    }
}

/// WS-04, SMG-16: no tunnel without a good handshake and the app's own 101; what follows is judged.
#[tokio::test]
async fn a_handshake_that_fails_opens_no_tunnel() {
    let stage = Stage::usual().await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let head = |path: &str, extra: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{extra}\r\n"
        )
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let before = stage.app.count();
    for extra in [
        format!("Sec-WebSocket-Version: 777\r\n{key}"),
        version.to_owned(),
        key.to_owned(),
        format!("{version}Sec-WebSocket-Key: short\r\n"),
    ] {
        let answer = Raw::ask(stage.port, HOST, head("/app/ws", &extra)).await;
        assert_eq!(answer.status, 400, "{extra}");
        // RFC 6455 section 4.4.
        let hint = if extra.contains(version) { "" } else { "13" };
        assert_eq!(answer.header("sec-websocket-version"), hint, "{extra}");
    }
    assert_eq!(stage.app.count(), before);
    // The app refuses to switch; the pipelined request is one of its own.
    let smuggled = format!("GET /admin/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n");
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(head("/app/not-ws", &format!("{version}{key}")) + &smuggled).await;
    raw.answer().await.unwrap().expect(200);
    if let Some(next) = raw.answer().await {
        next.expect(403);
    }
    // Another protocol: the app's 101 makes the tunnel, its 200 makes none.
    let other = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(other("/app/plain") + &smuggled).await;
    raw.answer().await.unwrap().expect(200);
    if let Some(next) = raw.answer().await {
        next.expect(403);
    }
    assert!(stage.app.received().iter().all(|received| !received.target().starts_with("/admin")));
    // h2c is never offered to the app.
    let h2c = format!(
        "GET /app/x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
    );
    let answer = Raw::ask(stage.port, HOST, h2c).await;
    assert_ne!(answer.status, 101);
    assert!(
        stage
            .app
            .received()
            .iter()
            .all(|received| received.header("upgrade").iter().all(|value| value != "h2c"))
    );
}

/// `bodyIdleTimeout`, on both sides.
#[tokio::test]
async fn a_stalled_body_ends() {
    let stage = Stage::with(|plan| plan.limit("bodyIdleTimeout", json!("300ms"))).await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("POST /public/up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nonly this"))
        .await;
    if let Some(answer) = raw.answer().await {
        assert!((400..=504).contains(&answer.status), "{answer:?}");
    }
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("GET /public/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(raw.answer().await.is_none(), "a stalled answer was made whole");
    stage.browser().fetch(&stage.url("/public/canary")).await.expect(200);
}
