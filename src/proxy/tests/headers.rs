//! What the application sees of a request, and the client of an answer.

use super::*;

/// The head of the request that the application gets when the client sends `fields`.
async fn forwarded(fields: &[(&str, &str)], terms: Terms<'_>) -> String {
    let (address, heads) = canned("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut request = Request::builder().uri("/a?b=%2f").header("host", "app.example:8443");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let path = NormalPath::parse("/a?b=%2f", &path::Options::default()).unwrap();
    forwarder(address).send(&mut request.body(Body::Empty).unwrap(), &path, terms).await.unwrap();
    heads.borrow_mut().pop().unwrap()
}

fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(n, _)| *n == name)
        .map(|(_, v)| v)
        .collect()
}

fn alice() -> Identity {
    Identity { headers: vec![(HeaderName::from_static("x-user"), HeaderValue::from_static("alice"))] }
}

#[test]
fn a_request_is_stamped() {
    worker(async {
        let head = forwarded(&[("accept", "*/*")], Terms { identity: Some(&alice()), ..terms() }).await;
        let mut lines: Vec<_> = head.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "GET /a?b=%2f HTTP/1.1");
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "accept: */*",
                "forwarded: for=192.0.2.7;host=\"app.example:8443\";proto=https",
                "host: app.example:8443",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: app.example:8443",
                "x-forwarded-port: 8443",
                "x-forwarded-proto: https",
                "x-request-id: req-1",
                "x-user: alice",
            ]
        );
    });
}

#[test]
fn forwarded_quotes_what_rfc_7239_wants_quoted() {
    for (address, host, expected) in [
        ("192.0.2.7", "app.example", "for=192.0.2.7;host=app.example;proto=https"),
        ("::ffff:192.0.2.7", "a:1", "for=192.0.2.7;host=\"a:1\";proto=https"),
        ("2001:db8::1", "[::1]:8443", "for=\"[2001:db8::1]\";host=\"[::1]:8443\";proto=https"),
        ("192.0.2.7", "a\"b", "for=192.0.2.7;proto=https"),
    ] {
        worker(async {
            let client = Client::new(&ClientInfo { address: address.parse().unwrap(), host, ..client() });
            let head = forwarded(&[], Terms { client: &client, ..terms() }).await;
            assert_eq!(values(&head, "forwarded"), [expected]);
        });
    }
}

/// Each row: a catalogue row, headers of the client, a header as the application sees it.
#[test]
fn hdr_01_to_04_and_az_17_nothing_that_is_ours_comes_from_the_client() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("HDR-01", &[("x-user", "root")], "x-user", &["alice"]),
        ("HDR-01", &[("X-USER", "root"), ("x-user", "root2")], "x-user", &["alice"]),
        ("HDR-01", &[("x-groups", "admin")], "x-groups", &[]),
        ("HDR-01", &[("x_groups", "admin")], "x_groups", &[]),
        ("HDR-02", &[("x_user", "root")], "x_user", &[]),
        ("HDR-02", &[("x.user", "root")], "x.user", &[]),
        ("HDR-02", &[("x~user", "root")], "x~user", &[]),
        ("HDR-02", &[("x_forwarded_for", "1.1.1.1")], "x_forwarded_for", &[]),
        ("HDR-02", &[("content_length", "7")], "content_length", &[]),
        ("HDR-02", &[("transfer_encoding", "chunked")], "transfer_encoding", &[]),
        ("HDR-03", &[("connection", "close, X-User, X-Request-Id")], "x-user", &["alice"]),
        ("HDR-03", &[("connection", "X-Forwarded-For")], "x-forwarded-for", &["192.0.2.7"]),
        ("HDR-03", &[("connection", "Host")], "host", &["app.example:8443"]),
        ("HDR-03", &[("connection", "x-hop"), ("x-hop", "1")], "x-hop", &[]),
        ("HDR-03", &[("connection", "keep-alive"), ("connection", "x-hop"), ("x-hop", "1")], "x-hop", &[]),
        ("HDR-03", &[("connection", "close")], "connection", &[]),
        ("HDR-04", &[("x-forwarded-for", "10.0.0.1")], "x-forwarded-for", &["192.0.2.7"]),
        ("HDR-04", &[("x-forwarded-proto", "http")], "x-forwarded-proto", &["https"]),
        ("HDR-04", &[("x-forwarded-host", "evil")], "x-forwarded-host", &["app.example:8443"]),
        ("HDR-04", &[("x-forwarded-port", "1")], "x-forwarded-port", &["8443"]),
        ("HDR-04", &[("x-forwarded-anything", "1")], "x-forwarded-anything", &[]),
        ("HDR-04", &[("x-real-ip", "10.0.0.1")], "x-real-ip", &[]),
        ("HDR-04", &[("x-request-id", "mine")], "x-request-id", &["req-1"]),
        (
            "HDR-04",
            &[("forwarded", "for=10.0.0.1"), ("forwarded", "for=10.0.0.2")],
            "forwarded",
            &["for=192.0.2.7;host=\"app.example:8443\";proto=https"],
        ),
        ("HDR-05", &[("x-portcullis-assertion", "e30.e30.")], "x-portcullis-assertion", &[]),
        ("AZ-11", &[("host", "evil.example")], "host", &["app.example:8443"]),
        ("AZ-17", &[("x-original-url", "/admin")], "x-original-url", &[]),
        ("AZ-17", &[("x-rewrite-url", "/admin")], "x-rewrite-url", &[]),
        ("AZ-17", &[("x-forwarded-uri", "/admin")], "x-forwarded-uri", &[]),
        ("AZ-17", &[("x-forwarded-prefix", "/admin")], "x-forwarded-prefix", &[]),
        ("AZ-17", &[("x-forwarded-method", "PUT")], "x-forwarded-method", &[]),
        ("AZ-17", &[("x-http-method-override", "PUT")], "x-http-method-override", &[]),
        ("AZ-17", &[("x_http_method_override", "PUT")], "x_http_method_override", &[]),
        ("AZ-17", &[("_method", "PUT")], "_method", &[]),
        ("SMG-22", &[("upgrade", "h2c"), ("http2-settings", "AAMAAABk")], "upgrade", &[]),
        ("SMG-22", &[("upgrade", "h2c"), ("http2-settings", "AAMAAABk")], "http2-settings", &[]),
        ("SMG-16", &[("connection", "upgrade"), ("upgrade", "foo")], "upgrade", &[]),
        ("section 8", &[("te", "gzip"), ("keep-alive", "timeout=5")], "te", &[]),
        ("section 8", &[("te", "gzip, trailers")], "te", &["trailers"]),
        ("section 8", &[("te", "trailers"), ("connection", "te, x-hop")], "connection", &["te"]),
        ("section 8", &[("trailer", "x-user")], "trailer", &[]),
        ("section 8", &[("proxy-authorization", "Basic eDp5")], "proxy-authorization", &[]),
        ("section 8", &[("proxy", "http://evil")], "proxy", &[]),
        // What is not ours goes on as it is.
        ("section 4", &[("authorization", "Basic eDp5")], "authorization", &["Basic eDp5"]),
        ("section 8", &[("x-users", "1"), ("x-userx", "2")], "x-users", &["1"]),
        ("section 8", &[("accept", "a"), ("accept", "b")], "accept", &["a", "b"]),
        ("section 8", &[("x_app_header", "1")], "x_app_header", &["1"]),
    ];
    for (row, sent, name, seen) in rows {
        worker(async {
            let head = forwarded(sent, Terms { identity: Some(&alice()), ..terms() }).await;
            assert_eq!(&values(&head, name), seen, "{row}: {sent:?}");
        });
    }
}

#[test]
fn hdr_01_identity_headers_are_stripped_without_an_identity_too() {
    worker(async {
        let head = forwarded(&[("x-user", "root"), ("x_user", "root")], terms()).await;
        assert!(!head.contains("root"), "{head}");
    });
}

#[test]
fn ses_11_cookies_of_others_arrive_byte_exact() {
    let replaced = CookieHeader::Replace(Some(HeaderValue::from_static("a=1;  b=\"2\"; c")));
    let rows = [
        (CookieHeader::Unchanged, &[("cookie", "a=1;  b=\"2\"; c")][..], &["a=1;  b=\"2\"; c"][..]),
        // HTTP/2 splits; the application gets one field (RFC 9113 section 8.2.3).
        (CookieHeader::Unchanged, &[("cookie", "a=1"), ("cookie", "b=2; c=3")], &["a=1; b=2; c=3"]),
        (replaced, &[("cookie", "__Host-portcullis=x; a=1;  b=\"2\"; c")], &["a=1;  b=\"2\"; c"]),
        (CookieHeader::Replace(None), &[("cookie", "__Host-portcullis=x")], &[]),
        (CookieHeader::Unchanged, &[], &[]),
    ];
    for (cookie, sent, seen) in rows {
        worker(async {
            let head = forwarded(sent, Terms { cookie, ..terms() }).await;
            assert_eq!(values(&head, "cookie"), seen, "{sent:?}");
        });
    }
}

#[test]
fn the_judged_path_is_sent_and_not_the_clients() {
    worker(async {
        let (address, heads) = canned("HTTP/1.1 204 No Content\r\n\r\n").await;
        let forwarder = forwarder(address);
        for judged in ["/a?x=%2F", "/", "/a~b/%C3%A9", "/q?", "/q?a=b?c=d&e=[]{}|"] {
            let path = NormalPath::parse(judged, &path::Options::default()).unwrap();
            let mut sent = request(Method::GET, "/sent");
            forwarder.send(&mut sent, &path, terms()).await.unwrap();
            let head = heads.borrow_mut().pop().unwrap();
            assert_eq!(head.lines().next().unwrap(), format!("GET {judged} HTTP/1.1"));
        }
    });
}

#[test]
fn the_length_is_that_of_the_body() {
    let rows = [
        (Method::GET, None, "", None),
        (Method::GET, Some("5"), "", Some("0")),
        (Method::POST, None, "", Some("0")),
        (Method::DELETE, None, "", None),
        (Method::POST, Some("999"), "abc", Some("3")),
        (Method::POST, None, "abc", Some("3")),
        (Method::GET, Some("3"), "abc", Some("3")),
    ];
    for (method, said, body, sent) in rows {
        worker(async {
            let (address, heads) = canned("HTTP/1.1 204 No Content\r\n\r\n").await;
            let mut message = request(method.clone(), "/");
            if let Some(said) = said {
                message.headers_mut().insert("content-length", HeaderValue::from_static(said));
            }
            *message.body_mut() = Body::from(body);
            send(&forwarder(address), message).await.unwrap();
            let head = heads.borrow_mut().pop().unwrap();
            assert_eq!(values(&head, "content-length"), Vec::from_iter(sent), "{method} {said:?} {body}");
            assert!(!head.contains("transfer-encoding"), "{head}");
        });
    }
}

#[test]
fn answers_are_cleaned() {
    type Row<'a> = (&'a str, bool, &'a str, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("connection: close, x-hop\r\nx-hop: 1", false, "x-hop", &[]),
        ("connection: close", false, "connection", &[]),
        ("keep-alive: timeout=5", false, "keep-alive", &[]),
        ("upgrade: h2c", false, "upgrade", &[]),
        ("proxy-authenticate: Basic", false, "proxy-authenticate", &[]),
        ("www-authenticate: Basic", false, "www-authenticate", &["Basic"]),
        ("x-a: 1\r\nx-a: 2", false, "x-a", &["1", "2"]),
        ("server: app", false, "server", &["app"]),
        ("x-a: 1", false, "cache-control", &[]),
        ("x-a: 1", true, "cache-control", &["private"]),
        ("cache-control: public", true, "cache-control", &["public"]),
        ("cache-control:\r\ncache-control: max-age=5", true, "cache-control", &["", "max-age=5"]),
        ("cache-control: , \t,", true, "cache-control", &["private"]),
        ("cache-control:", false, "cache-control", &[""]),
        ("set-cookie: a=1\r\nset-cookie: b=2", true, "set-cookie", &["a=1", "b=2"]),
        ("set-cookie: a=1\r\nset-cookie: __Host-portcullis=x; Path=/", true, "set-cookie", &["a=1"]),
        ("set-cookie: __Host-portcullis.3=x\r\nset-cookie: z=9", true, "set-cookie", &["z=9"]),
        ("set-cookie: __Host-portcullis-login.abc=x", true, "set-cookie", &[]),
        ("set-cookie:   __host-PORTCULLIS  = x", true, "set-cookie", &[]),
        ("set-cookie: =__Host-portcullis=x", true, "set-cookie", &[]),
        ("set-cookie: __Host-portcullis", true, "set-cookie", &[]),
        ("set-cookie: __Host-portcullisx=1", true, "set-cookie", &["__Host-portcullisx=1"]),
        ("set-cookie: x__Host-portcullis=1", true, "set-cookie", &["x__Host-portcullis=1"]),
    ];
    for (fields, private, name, seen) in rows {
        worker(async {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}\r\n\r\nok");
            let (address, _) = canned(answer.leak()).await;
            let path = NormalPath::parse("/", &path::Options::default()).unwrap();
            let terms = Terms { private: *private, ..terms() };
            let answer = forwarder(address).send(&mut request(Method::GET, "/"), &path, terms).await.unwrap();
            let found: Vec<_> =
                answer.headers().get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(&found, seen, "{fields}");
            assert_eq!(text(answer).await, "ok");
        });
    }
}
