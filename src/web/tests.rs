//! Every answer, for both audiences, against what all of them promise.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use super::Body;
use super::respond::{Audience, Because, Need, Refusal, Reply, SessionState, StepUp};
use crate::clock::UnixTime;

const HOSTILE: &str = "<script>alert('1')</script>\"&";
const LOGIN: &str = "https://app.example/aporeto/oidc/login?return=%2Fa";
const RETRY: Duration = Duration::from_secs(7);

fn reply(audience: Audience) -> Reply<'static> {
    Reply { audience, request_id: "01K9V4T7Q2M8", service: Some("private-app") }
}

fn text(response: &Response<Body>) -> String {
    match response.body() {
        Body::Full(bytes) => String::from_utf8(Bytes::clone(bytes).to_vec()).unwrap(),
        _ => String::new(),
    }
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Name (also the end of the problem type), status, answer.
fn refusals(reply: &Reply<'_>, text: &str) -> Vec<(&'static str, u16, Response<Body>)> {
    let acr = [text.to_owned()];
    let step_up = StepUp { acr_values: &acr, max_age: Some(Duration::from_secs(300)) };
    let tags = [text.to_owned()];
    let ways =
        vec![vec![Need { tag: text.to_owned(), held: false }, Need { tag: text.to_owned(), held: true }]];
    let refused = |because| {
        reply.forbidden(&Refusal { account: Some(text), sign_out: Some("/aporeto/oidc/logout"), because })
    };
    vec![
        ("login-needed", 401, reply.unauthorized(LOGIN)),
        ("stronger-login-needed", 401, reply.step_up(&step_up, LOGIN)),
        ("stronger-login-not-met", 403, reply.step_up_not_met(&step_up, LOGIN)),
        ("not-allowed", 403, reply.forbidden(&Refusal::default())),
        ("not-allowed", 403, refused(Some(Because::NoRule))),
        ("not-allowed", 403, refused(Some(Because::Nobody))),
        ("not-allowed", 403, refused(Some(Because::EmailUnverified))),
        ("not-allowed", 403, refused(Some(Because::Denied(&tags)))),
        ("not-allowed", 403, refused(Some(Because::Lacking(&ways)))),
        ("only-public-here", 403, reply.only_public_here()),
        ("origin-refused", 403, reply.origin_refused()),
        ("logout-refused", 403, reply.logout_refused("/aporeto/oidc/logout")),
        ("login-denied", 403, reply.login_denied(text, LOGIN)),
        ("login-refused", 400, reply.login_refused(LOGIN)),
        ("login-cookie-missing", 400, reply.login_cookie_missing(LOGIN)),
        ("claim-left-out", 403, reply.claim_left_out(text)),
        ("session-too-large", 403, reply.session_too_large(text)),
        ("provider-unavailable", 503, reply.provider_unavailable(LOGIN, RETRY)),
        ("bad-request", 400, reply.bad_request(text)),
        ("unknown-host", 421, reply.misdirected()),
        ("not-found", 404, reply.not_found()),
        ("no-rule", 403, reply.closed()),
        ("two-sessions", 403, reply.two_sessions("/out")),
        ("method-not-allowed", 405, reply.method_not_allowed("GET, POST")),
        ("request-timeout", 408, reply.request_timeout()),
        ("content-too-large", 413, reply.content_too_large()),
        ("uri-too-long", 414, reply.uri_too_long()),
        ("header-fields-too-large", 431, reply.header_fields_too_large()),
        ("not-implemented", 501, reply.not_implemented()),
        ("internal-error", 500, reply.internal_error()),
        ("application-unreachable", 502, reply.bad_gateway()),
        ("application-too-slow", 504, reply.gateway_timeout()),
        ("overloaded", 503, reply.overloaded(RETRY)),
    ]
}

fn others(reply: &Reply<'_>) -> Vec<(&'static str, u16, Response<Body>)> {
    let session = SessionState {
        subject: "alice",
        issuer: "https://idp.example",
        expires_at: UnixTime(1_700_043_200),
        idle_expires_at: UnixTime(1_700_003_600),
    };
    vec![
        ("found", 302, reply.found(LOGIN)),
        ("see other", 303, reply.see_other("/a?b=%2F&c")),
        ("permanent redirect", 308, reply.permanent_redirect("https://app.example/a")),
        ("session", 200, reply.session(&session)),
        ("logout form", 200, reply.logout_form("/aporeto/oidc/logout", "t0ken", None)),
        ("signed out", 200, reply.signed_out(false)),
        ("logged out", 200, reply.logged_out()),
    ]
}

fn assert_protected(name: &str, headers: &HeaderMap) {
    for (field, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("x-request-id", "01K9V4T7Q2M8"),
    ] {
        assert_eq!(headers.get(field).unwrap_or_else(|| panic!("{name}: {field}")), value, "{name}");
    }
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{name}: {part}");
    }
    assert!(!policy.contains("unsafe"), "{name}");
}

#[test]
fn every_answer_has_its_status_and_is_protected() {
    for audience in [Audience::Person, Audience::Program] {
        let reply = reply(audience);
        for (name, status, response) in refusals(&reply, "plain").into_iter().chain(others(&reply)) {
            assert_eq!(response.status(), status, "{name}");
            assert_protected(name, response.headers());
        }
    }
}

#[test]
fn a_page_is_whole_and_its_policy_allows_exactly_its_style() {
    let reply = reply(Audience::Person);
    let pages = refusals(&reply, "plain").into_iter().chain(others(&reply).into_iter().skip(4));
    for (name, _, response) in pages {
        assert_eq!(field(&response, "content-type"), Some("text/html; charset=utf-8"), "{name}");
        let page = text(&response);
        for once in ["<html lang=\"en\">", "<title>", "<main", "<h1>", "<style>", "01K9V4T7Q2M8"] {
            assert_eq!(page.matches(once).count(), 1, "{name}: {once}");
        }
        assert!(page.contains("private-app"), "{name}");
        for never in ["<script", "style=\"", " on", "src=", "url(h", "url(/"] {
            let markup: String = page.split(['<', '>']).skip(1).step_by(2).collect();
            assert!(!markup.contains(never), "{name}: {never}");
        }

        let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        let source = format!("style-src 'sha256-{}';", BASE64_STANDARD.encode(digest));
        assert!(field(&response, "content-security-policy").unwrap().contains(&source), "{name}");
    }
}

#[test]
fn a_problem_has_the_agreed_members() {
    let with_login = [
        "login-needed",
        "stronger-login-needed",
        "login-denied",
        "login-refused",
        "login-cookie-missing",
        "provider-unavailable",
    ];
    for (name, status, response) in refusals(&reply(Audience::Program), "plain") {
        assert_eq!(field(&response, "content-type"), Some("application/problem+json"), "{name}");
        let problem: Value = serde_json::from_str(&text(&response)).unwrap();
        let mut members = vec!["type", "title", "status", "detail", "requestId"];
        if with_login.contains(&name) {
            members.push("login");
            assert_eq!(problem["login"], LOGIN);
        }
        assert_eq!(problem.as_object().unwrap().keys().collect::<Vec<_>>(), members, "{name}");
        assert_eq!(problem["type"], format!("urn:portcullis:problem:{name}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["requestId"], "01K9V4T7Q2M8");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{name}");
    }
}

#[test]
fn nothing_that_came_from_outside_is_markup() {
    let person = Reply { service: Some(HOSTILE), request_id: HOSTILE, audience: Audience::Person };
    for (name, status, response) in refusals(&person, HOSTILE) {
        assert_eq!(response.status(), status, "{name}");
        let page = text(&response);
        assert!(!page.contains("<script"), "{name}");
        // In the title, above the heading and as the request id at least.
        assert!(page.matches("&#60;script&#62;").count() >= 3, "{name}");
    }
    let form = text(&person.logout_form(HOSTILE, HOSTILE, Some(HOSTILE)));
    assert!(!form.contains("<script") && !form.contains("</script>\""));
}

#[test]
fn a_provider_error_is_shown_only_as_a_code() {
    let reply = reply(Audience::Person);
    for (error, shown) in [
        ("access_denied", true),
        ("login_required", true),
        ("Please call +1 555 0100", false),
        ("<script>", false),
        ("", false),
        ("a_code_that_is_much_too_long_to_be_one_of_the_standard", false),
    ] {
        let page = text(&reply.login_denied(error, LOGIN));
        assert_eq!(page.contains(&format!("\u{201c}{error}\u{201d}")), shown, "{error}");
    }
}

#[test]
fn fields_beside_the_common_ones() {
    let acr = ["mfa".to_owned()];
    let step_up = StepUp { acr_values: &acr, max_age: None };
    for audience in [Audience::Person, Audience::Program] {
        let reply = reply(audience);
        let challenge = "Bearer realm=\"private-app\"";
        let unauthorized = reply.unauthorized(LOGIN);
        assert_eq!(field(&unauthorized, "www-authenticate"), Some(challenge));
        let stronger = reply.step_up(&step_up, LOGIN);
        let stronger = field(&stronger, "www-authenticate").unwrap();
        assert!(stronger.contains("error=\"insufficient_user_authentication\""));
        assert!(stronger.ends_with("acr_values=\"mfa\""));
        assert_eq!(field(&reply.provider_unavailable(LOGIN, RETRY), "retry-after"), Some("7"));
        assert_eq!(field(&reply.overloaded(Duration::ZERO), "retry-after"), Some("1"));
        assert_eq!(field(&reply.method_not_allowed("GET, POST"), "allow"), Some("GET, POST"));
        assert_eq!(field(&reply.logged_out(), "clear-site-data"), Some("\"cache\""));
        assert_eq!(field(&reply.signed_out(false), "clear-site-data"), None);
        assert_eq!(field(&reply.see_other("/a?b=%2F&c"), "location"), Some("/a?b=%2F&c"));
    }
}

#[test]
fn a_location_that_is_no_field_value_is_no_redirect() {
    for location in ["/a\r\nSet-Cookie: x=y", "/\0"] {
        let response = reply(Audience::Person).found(location);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(field(&response, "location"), None);
    }
}

#[test]
fn the_session_is_told_in_four_members() {
    let (.., response) = others(&reply(Audience::Program)).swap_remove(3);
    assert_eq!(field(&response, "content-type"), Some("application/json"));
    let expected = r#"{"subject":"alice","issuer":"https://idp.example","expiresAt":"2023-11-15T10:13:20Z","idleExpiresAt":"2023-11-14T23:13:20Z"}"#;
    assert_eq!(text(&response), expected);
}

#[test]
fn a_wish_for_a_stronger_login_is_put_in_words() {
    let reply = reply(Audience::Person);
    for (acr_values, max_age, words) in [
        (vec![], Some(300), "a sign-in that is at most 5 minutes old"),
        (vec![], Some(3600), "a sign-in that is at most 1 hour old"),
        (vec![], Some(90), "a sign-in that is at most 90 seconds old"),
        (vec![], Some(0), "a sign-in made just now"),
        (vec!["mfa"], None, "a sign-in of the kind \u{201c}mfa\u{201d}."),
        (
            vec!["mfa", "phr"],
            Some(60),
            "the kind \u{201c}mfa\u{201d} or \u{201c}phr\u{201d} that is at most 1 minute old",
        ),
    ] {
        let acr_values: Vec<String> = acr_values.into_iter().map(str::to_owned).collect();
        let wanted = StepUp { acr_values: &acr_values, max_age: max_age.map(Duration::from_secs) };
        let page = text(&reply.step_up_not_met(&wanted, LOGIN));
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn long_rules_are_cut_and_said_to_be() {
    let way: Vec<Need> = (0..20).map(|n| Need { tag: format!("tag={n}"), held: n % 2 == 0 }).collect();
    let ways = vec![way; 30];
    let refusal = Refusal { because: Some(Because::Lacking(&ways)), ..Refusal::default() };
    let page = text(&reply(Audience::Person).forbidden(&refusal));
    assert_eq!(page.matches("<code>tag=").count(), 12 * 12);
    assert!(page.contains("and 8 more") && page.contains("18 more ways"));
}
