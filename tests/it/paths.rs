//! Targets: what is refused, and that the path that was judged is byte for byte the path that the app receives.

use serde_json::json;

use crate::support::client::{Answer, Raw};
use crate::support::stage::{HOST, Stage};

async fn ask(stage: &Stage, method: &str, target: &str) -> Answer {
    Raw::ask(stage.port, HOST, format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await
}

/// Everything is public, so that whatever is not refused reaches the app.
async fn open_stage(fields: &[(&str, serde_json::Value)]) -> Stage {
    Stage::with(|plan| {
        plan.endpoints(json!([{ "URI": "/*", "methods": ["*"], "public": true }]));
        fields.iter().for_each(|(name, value)| plan.set(name, value.clone()));
    })
    .await
}

/// Each target reaches the app in this form, or gets 400.
async fn hold(stage: &Stage, table: &[(&str, Option<&str>)]) {
    for (target, wanted) in table {
        let before = stage.app.count();
        let answer = ask(stage, "GET", target).await;
        match wanted {
            Some(wanted) => {
                assert_eq!(answer.status, 200, "{target}: {answer:?}");
                assert_eq!(stage.app.last().target(), *wanted, "{target}");
                assert_eq!(stage.app.count(), before + 1);
            }
            None => {
                assert_eq!(answer.status, 400, "{target}: {answer:?}");
                assert_eq!(stage.app.count(), before, "{target} reached the app");
            }
        }
    }
    ask(stage, "GET", "/canary").await.expect(200);
}

/// AZ-03 to AZ-13.
#[tokio::test]
async fn one_form_of_a_target() {
    let stage = open_stage(&[]).await;
    let table = [
        ("/", Some("/")),
        ("/a/b", Some("/a/b")),
        ("/a/b/", Some("/a/b/")),
        ("/a?", Some("/a?")),
        ("/a?b=%2F%2e%2e/..//\\&c=%zz", Some("/a?b=%2F%2e%2e/..//\\&c=%zz")),
        ("/a%41%7e%2D%5f", Some("/aA~-_")),
        ("/%7Euser/%61", Some("/~user/a")),
        ("/a%20b", Some("/a%20b")),
        ("/%c3%a4/%C3%A4", Some("/%c3%a4/%C3%A4")),
        ("/a%2Bb+c%3d=", Some("/a%2Bb+c%3d=")),
        ("/a;b=1/c;d", Some("/a;b=1/c;d")),
        ("/a%3bb", Some("/a%3bb")),
        ("/$&'()*+,=:@!~", Some("/$&'()*+,=:@!~")),
        ("/%252e%252e/x", Some("/%252e%252e/x")),
        ("/%25%32%66", Some("/%252f")),
        ("/...", Some("/...")),
        ("/..a/.b/c..", Some("/..a/.b/c..")),
        ("/ADMIN/admin.", Some("/ADMIN/admin.")),
        ("/a%3f/b", Some("/a%3f/b")),
        ("/a%23b", Some("/a%23b")),
        // A full-width slash is a letter like any other.
        ("/public%ef%bc%8fadmin", Some("/public%ef%bc%8fadmin")),
        ("/%ef%bc%8e%ef%bc%8e/a", Some("/%ef%bc%8e%ef%bc%8e/a")),
        // Empty segments.
        ("//", None),
        ("//admin", None),
        ("///admin", None),
        ("/a//b", None),
        ("/a//", None),
        ("/;/a", None),
        ("/;x=1/a", None),
        ("/%3b/a", None),
        // Dot segments, in every spelling.
        ("/.", None),
        ("/..", None),
        ("/a/.", None),
        ("/a/../b", None),
        ("/./a", None),
        ("/a/b/../../admin/..", None),
        ("/%2e", None),
        ("/%2E%2e/a", None),
        ("/.%2E/a", None),
        ("/a/%2e/", None),
        ("/public/..;/admin", None),
        ("/public/.;x=1/admin", None),
        ("/public/%2e%2e;a/admin", None),
        ("/public/..%3b/admin", None),
        // Separators that another parser could see.
        ("/a\\b", None),
        ("/\\evil", None),
        ("/a%2fb", None),
        ("/a%2Fb", None),
        ("/a%5cb", None),
        ("/a%5Cb", None),
        // Controls, raw and escaped.
        ("/a%00", None),
        ("/%0d%0aSet-Cookie:x", None),
        ("/a%09b", None),
        ("/a%7f", None),
        ("/a%1Bb", None),
        ("/a\tb", None),
        ("/a\u{7f}b", None),
        ("/a#b", None),
        // What is not an escape, and not UTF-8.
        ("/a%", None),
        ("/a%4", None),
        ("/a%zz", None),
        ("/%u002e", None),
        ("/%c0%ae%c0%ae/a", None),
        ("/%e0%80%af", None),
        ("/%ff", None),
        ("/%C3", None),
        ("/%ed%a0%80", None),
        ("/ä", None),
        ("/public\u{ff0f}admin", None),
        ("/%c1%9cadmin", None),
        ("/%f0%80%80%af", None),
        ("/%uff0fadmin", None),
        ("/%", None),
        // A raw space ends a target, and what follows is no version.
        ("/a b", None),
        // Other forms of a target.
        ("*", None),
        ("admin", None),
        ("?a", None),
    ];
    hold(&stage, &table).await;
    let answer =
        Raw::ask(stage.port, HOST, [b"GET /\xff HTTP/1.1\r\nHost: ", HOST.as_bytes(), b"\r\n\r\n"].concat())
            .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn slashes_are_merged_where_set() {
    let stage = open_stage(&[("mergeSlashes", json!(true))]).await;
    let table = [
        ("//", Some("/")),
        ("//admin", Some("/admin")),
        ("///admin//x///", Some("/admin/x/")),
        ("/a//?b=//c", Some("/a/?b=//c")),
        ("/a//../b", None),
        ("/%2f/a", None),
    ];
    hold(&stage, &table).await;
}

#[tokio::test]
async fn encoded_slashes_are_kept_where_set() {
    let stage = open_stage(&[("encodedSlashes", json!("keep"))]).await;
    let table = [
        ("/a%2Fb", Some("/a%2Fb")),
        ("/a%2fb%5Cc", Some("/a%2fb%5Cc")),
        ("/a/%2F", None),
        ("/%2F%2F", None),
        ("/a%2F..", None),
        ("/a%2f%2e%2e%2fb", None),
        ("/..%2Fa", None),
        ("/a%5c..%5cb", None),
        ("/a%2F%2Fb", None),
        ("/a\\b", None),
        ("//a", None),
    ];
    hold(&stage, &table).await;
}

/// Where slashes are kept, an application that decodes them serves nothing that a more specific rule guards.
#[tokio::test]
async fn a_kept_slash_gets_around_no_rule() {
    let stage = Stage::with(|plan| {
        plan.set("encodedSlashes", json!("keep"));
        plan.endpoints(json!([
            { "URI": "/public/*", "methods": ["*"], "public": true },
            { "URI": "/public/secret/*", "methods": ["*"], "allowedScopes": [["email=*"]] },
        ]));
    })
    .await;
    let table = [
        ("/public/secret%2Fx", None),
        ("/public/secret%2f", None),
        ("/%70ublic/s%65cret%2fx/y", None),
        ("/public/secret%5Cx", None),
        ("/public/secret;v%2Fx", None),
        ("/public/a%2Fsecret", Some("/public/a%2Fsecret")),
        ("/public/secrets%2Fx", Some("/public/secrets%2Fx")),
        ("/public/secret%252Fx", Some("/public/secret%252Fx")),
    ];
    for (target, wanted) in table {
        let answer = ask(&stage, "GET", target).await;
        assert_eq!(answer.status, if wanted.is_some() { 200 } else { 400 }, "{target}: {answer:?}");
        if let Some(wanted) = wanted {
            assert_eq!(stage.app.last().target(), wanted);
        }
    }
    assert_eq!(stage.app.count(), 3);
}

/// However the public prefix is left, no path gets to the app that the rules give to nobody.
#[tokio::test]
async fn no_spelling_gets_around_a_rule() {
    for (merge, encoded) in [(false, "refuse"), (true, "refuse"), (false, "keep")] {
        let stage = Stage::with(|plan| {
            plan.set("mergeSlashes", json!(merge));
            plan.set("encodedSlashes", json!(encoded));
            plan.endpoints(json!([
                { "URI": "/public/*", "methods": ["GET"], "public": true },
                { "URI": "/admin/*", "methods": ["*"], "allowedScopes": [] },
            ]));
        })
        .await;
        let up = [
            "..",
            ".",
            "%2e%2e",
            ".%2e",
            "..;",
            "..;x=1",
            "%2e%2e%3b",
            "..%00",
            "..%2f",
            "..%5c",
            "\\..",
            "%252e%252e",
            "..%c0%af",
            "....",
        ];
        let separators = ["/", "//", "%2f", "\\", "%5c", "/;/", "/./", "/%2e/"];
        let mut raw = Raw::connect(stage.port, HOST).await;
        for up in up {
            for separator in separators {
                for target in [
                    format!("/public/{up}{separator}admin"),
                    format!("/public{separator}{up}{separator}admin/x"),
                    format!("{separator}admin{separator}{up}/public"),
                    format!("/public/x{separator}{up}/{up}{separator}admin"),
                ] {
                    raw.send(format!(
                        "GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n\r\n"
                    ))
                    .await;
                    let Some(answer) = raw.answer().await else { panic!("{target}: no answer") };
                    assert!(matches!(answer.status, 200 | 400 | 401), "{target}: {answer:?}");
                    if answer.header("connection") == "close" {
                        raw = Raw::connect(stage.port, HOST).await;
                    }
                }
            }
        }
        for received in stage.app.received() {
            let target = received.target();
            assert!(target.starts_with("/public"), "{target}");
            let once = percent_encoding::percent_decode_str(&target).decode_utf8_lossy().into_owned();
            for segment in once.split(['/', '\\']) {
                let name = segment.split(';').next().unwrap();
                assert!(name != ".." && name != ".", "{target}");
            }
        }
    }
}

/// The path that is judged over HTTP/2 is the same.
#[tokio::test]
async fn http2_has_the_same_paths() {
    let stage = open_stage(&[]).await;
    for (target, status) in
        [("/a%41?x=%2F", 200), ("/a//b", 400), ("/a%2fb", 400), ("/%2e%2e/a", 400), ("/a%00", 400)]
    {
        let uri = format!("https://{HOST}:{}{target}", stage.port);
        let answer = http2(&stage, &uri).await;
        assert_eq!(answer, status, "{target}");
    }
    assert_eq!(stage.app.count(), 1);
    assert_eq!(stage.app.last().target(), "/aA?x=%2F");
}

/// A request whose target no URL parser has touched.
async fn http2(stage: &Stage, uri: &str) -> u16 {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let tls = crate::support::client::connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(uri).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    crate::support::soon("an answer", sender.send_request(request)).await.unwrap().status().as_u16()
}

/// Returned to after login, judged and forwarded: one form.
#[tokio::test]
async fn a_login_returns_to_the_same_form() {
    let stage = Stage::usual().await;
    let mut browser = stage.browser();
    let back = stage.login(&mut browser, "/app/%41%7E?x=%41").await.expect(303);
    assert_eq!(back.header("location").trim_start_matches(&stage.origin), "/app/A~?x=%41");
}

/// The query takes no part in a decision.
#[tokio::test]
async fn only_the_path_decides() {
    let stage = Stage::usual().await;
    for target in [
        "/admin?x=/public",
        "/admin?/public/",
        "/public%3f/../admin",
        "/admin/?_method=GET",
        "/publicx",
        "/PUBLIC/",
    ] {
        let answer = ask(&stage, "GET", target).await;
        assert!(matches!(answer.status, 400 | 401), "{target}: {answer:?}");
    }
    assert_eq!(stage.app.count(), 0);
    ask(&stage, "GET", "/public/?x=/admin").await.expect(200);
}

/// AZ-14: what is spelt in another way is another path, and default deny: for nobody, and for who may see the one.
#[tokio::test]
async fn another_spelling_is_another_path() {
    let stage = Stage::with(|plan| {
        plan.endpoints(json!([
            { "URI": "/public/*", "methods": ["GET"], "public": true },
            { "URI": "/staff", "methods": ["GET"], "allowedScopes": [["groups=staff"]] },
            { "URI": "/app/*", "methods": ["GET"], "allowedScopes": [["email=*"]] },
        ]));
    })
    .await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let before = stage.app.count();
    for (target, status) in [
        ("/STAFF", 403),
        ("/Staff", 403),
        ("/staff.", 403),
        ("/staff%20", 403),
        ("/%20staff", 403),
        ("/staff%2520", 403),
        ("/staff~", 403),
        ("/staff/x", 403),
        ("/staff/index.html/..", 400),
        ("/staff;v=1", 400),
        ("/staffs", 403),
        ("/staf", 403),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n");
        let known = Raw::ask(stage.port, HOST, format!("{head}Cookie: {cookie}\r\n\r\n")).await;
        assert_eq!(known.status, status, "{target}: {known:?}");
        let nobody = Raw::ask(stage.port, HOST, format!("{head}\r\n")).await;
        assert_eq!(nobody.status, if status == 403 { 401 } else { 400 }, "{target}: {nobody:?}");
    }
    assert_eq!(stage.app.count(), before);
    // A slash at the end, and an escape of a letter, are the same path.
    for target in ["/staff", "/staff/", "/st%61ff"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n");
        Raw::ask(stage.port, HOST, request).await.expect(200);
    }
}

/// AZ-17: no header moves the decision to another path or method.
#[tokio::test]
async fn headers_do_not_name_the_target() {
    let stage = Stage::usual().await;
    for name in [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-Forwarded-Path",
        "X-Original-Host",
        "X-Forwarded-Method",
        "X-HTTP-Method-Override",
        "X-Forwarded-Host",
        "X-Original-Uri",
        "X_Original_URL",
        "X-Original_URL",
        "x.rewrite.url",
    ] {
        let request = format!("GET /admin/ HTTP/1.1\r\nHost: {HOST}\r\n{name}: /public/\r\n\r\n");
        Raw::ask(stage.port, HOST, &request).await.expect(401);
        let request = format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n{name}: /admin/\r\n\r\n");
        Raw::ask(stage.port, HOST, &request).await.expect(200);
        if name != "X-HTTP-Method-Override" {
            let seen = stage.app.last().header(name);
            assert!(!seen.contains(&"/admin/".to_owned()), "{name} reached the app");
        }
    }
}
