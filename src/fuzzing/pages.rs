//! Our own pages and problem details, filled with what strangers chose.

use std::time::Duration;

use http::Response;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};

use crate::web::Body;
use crate::web::challenge::StepUp;
use crate::web::page::{Because, Need, Refusal};
use crate::web::respond::{Audience, Reply};

/// Lines of the bytes stand for what a stranger may have a say in: service, request id, account, error, claim, and
/// then tags.
pub fn pages(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').collect();
    // The same with nothing in it that means anything, and the same branches taken.
    let tame: Vec<String> = lines.iter().map(|line| tamed(line)).collect();
    let tame: Vec<&str> = tame.iter().map(String::as_str).collect();
    let (wild_pages, tame_pages) = (answers(&lines, Audience::Person), answers(&tame, Audience::Person));
    assert_eq!(wild_pages.len(), tame_pages.len());
    for (wild, tame) in wild_pages.into_iter().zip(tame_pages) {
        check_challenge(&wild, &tame);
        assert_eq!(wild.status(), tame.status());
        assert_eq!(wild.headers().get(CONTENT_TYPE), tame.headers().get(CONTENT_TYPE));
        let (wild, tame) = (text_of(wild), text_of(tame));
        assert_eq!(markup(&wild), markup(&tame), "input became markup");
        assert_eq!(wild.matches('&').count(), references(&wild), "an ampersand that is no reference");
    }
    for answer in answers(&lines, Audience::Program) {
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        let status = answer.status().as_u16();
        let problem: serde_json::Value = serde_json::from_str(&text_of(answer)).expect("JSON");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["requestId"], *lines.get(1).unwrap_or(&""));
        assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:portcullis:problem:")));
    }
}

fn answers(lines: &[&str], audience: Audience) -> Vec<Response<Body>> {
    let line = |at: usize| lines.get(at).copied().unwrap_or_default();
    let service = lines.first().copied().filter(|name| !name.is_empty());
    let reply = Reply { audience, request_id: line(1), service };
    let tags: Vec<String> = lines.iter().skip(5).map(|tag| (*tag).to_owned()).collect();
    let ways: Vec<Vec<Need>> = tags
        .chunks(3)
        .map(|tags| {
            tags.iter().zip([true, false, true]).map(|(tag, held)| Need { tag: tag.clone(), held }).collect()
        })
        .collect();
    let refusal =
        |because| Refusal { account: Some(line(2)), sign_out: Some(line(3)), because: Some(because) };
    let wanted = StepUp { acr_values: &tags, max_age: Some(Duration::from_secs(300)) };
    vec![
        reply.forbidden(&refusal(Because::Denied(&tags))),
        reply.forbidden(&refusal(Because::Lacking(&ways))),
        reply.login_denied(line(3), line(4)),
        reply.claim_left_out(line(4)),
        reply.session_too_large(line(4)),
        reply.two_sessions(line(3)),
        reply.step_up(&wanted, line(4)),
        reply.step_up_not_met(&wanted, line(4)),
        reply.unauthorized(line(4)),
        reply.login_refused(line(3)),
    ]
}

/// As long, by characters, and harmless. What a sentence is chosen by stays: names of errors, and emptiness.
fn tamed(line: &str) -> String {
    let is_code = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if line.chars().all(is_code) { line.to_owned() } else { line.chars().map(|_| 'X').collect() }
}

/// All that makes markup, in order.
fn markup(page: &str) -> String {
    page.chars().filter(|character| matches!(character, '<' | '>' | '"' | '\'')).collect()
}

/// How many character references there are, of the few that are written.
fn references(page: &str) -> usize {
    let is_reference = |rest: &str| {
        rest.split_once(';').is_some_and(|(name, _)| match name.strip_prefix('#') {
            Some(number) => {
                (1..5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_alphanumeric())
            }
            None => ["amp", "lt", "gt", "quot", "apos"].contains(&name),
        })
    };
    page.split('&').skip(1).filter(|rest| is_reference(rest)).count()
}

/// A challenge has the parameters that it should, whatever is in them.
fn check_challenge(wild: &Response<Body>, tame: &Response<Body>) {
    let names = |response: &Response<Body>| {
        let value = response.headers().get(WWW_AUTHENTICATE)?;
        Some(parameters(value.to_str().expect("visible ASCII")))
    };
    assert_eq!(names(wild), names(tame), "input became a parameter of the challenge");
}

/// The names of the parameters (RFC 9110 section 11.2), each of whose values is a quoted-string.
fn parameters(challenge: &str) -> Vec<String> {
    let mut rest = challenge.strip_prefix("Bearer ").expect("the scheme");
    let mut names = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").expect("a quoted-string");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{challenge}");
        names.push(name.to_owned());
        let mut escaped = false;
        let end = value.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        rest = &value[end.expect("the end of a quoted-string") + 1..];
        match rest.strip_prefix(", ") {
            Some(more) => rest = more,
            None => break,
        }
    }
    assert!(rest.is_empty(), "{challenge}");
    names
}

fn text_of(response: Response<Body>) -> String {
    match response.into_body() {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).expect("UTF-8"),
        other => panic!("no text: {other:?}"),
    }
}
