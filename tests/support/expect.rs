//! What has to hold for every answer of a kind: our own pages, problem documents, refused logins.

use serde_json::Value;

use super::client::{Answer, Browser};
use super::idp::Endpoint;
use super::stage::Stage;

/// A page of our own with this status.
#[track_caller]
pub fn page(answer: &Answer, status: u16) {
    own(answer, status);
    assert!(answer.header("content-type").starts_with("text/html"), "a page: {answer:?}");
    let text = answer.text();
    assert!(text.contains("<html lang="), "the page names its language: {text}");
    assert!(text.contains(answer.header("x-request-id")), "the page shows the request id: {text}");
    assert!(!text.contains("<script"), "the page has a script: {text}");
}

/// A problem document (RFC 9457) with this status.
#[track_caller]
pub fn problem(answer: &Answer, status: u16) -> Value {
    own(answer, status);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    let document = answer.json();
    for field in ["type", "title", "detail", "requestId"] {
        assert!(document[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {document}");
    }
    assert_eq!(document["status"], status);
    assert_eq!(document["requestId"], answer.header("x-request-id"));
    document
}

/// Any answer of our own: it is kept by nobody, framed by nobody, and tells nobody where the user came from.
#[track_caller]
pub fn own(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}: {:?}\n{}", answer.url, answer.headers, answer.text());
    assert!(answer.header("cache-control").contains("no-store"), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{answer:?}");
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{answer:?}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(answer.header("x-request-id").len() >= 16, "{answer:?}");
    assert_eq!(answer.header("x-app"), "", "the app answered: {answer:?}");
}

/// Logs in from a page on, which must end in a page with this status: no session, no call to the provider after
/// the token call, nothing at the app.
pub async fn refused_login(stage: &Stage, status: u16, user_info_calls: usize) -> Answer {
    let mut browser = stage.browser();
    let (tokens, user_infos) = stage.idp.login_calls();
    let at_app = stage.app.count();
    let answer = stage.login(&mut browser, "/app/page").await;
    page(&answer, status);
    no_session(stage, &mut browser, &answer).await;
    assert_eq!(
        stage.idp.login_calls(),
        (tokens + 1, user_infos + user_info_calls),
        "token and UserInfo calls"
    );
    assert_eq!(stage.app.count(), at_app, "requests at the app");
    assert_eq!(stage.idp.wrongs(), Vec::<String>::new());
    assert_eq!(stage.secrets().found_in(&answer.text()), None, "a secret on the page");
    answer
}

/// Nobody is logged in, now or later.
pub async fn no_session(stage: &Stage, browser: &mut Browser, answer: &Answer) {
    assert!(!answer.sets_session(), "a session: {:?}", answer.set_cookies());
    assert_eq!(browser.session(), [], "session cookies");
    let state = browser.fetch(&stage.url("/aporeto/oidc/session")).await;
    problem(&state, 401);
}

/// A login that works: the page is reached, by one token call, and the user is who the provider says.
pub async fn accepted_login(stage: &Stage) -> Browser {
    let mut browser = stage.browser();
    let (tokens, _) = stage.idp.login_calls();
    let page = browser.follow(&stage.url("/app/page?a=1")).await.expect(200);
    assert_eq!(page.json()["target"], "/app/page?a=1");
    assert_eq!(stage.idp.count(&Endpoint::Token), tokens + 1, "token calls");
    assert_eq!(stage.app.last().header("x-user"), ["alice"]);
    assert_eq!(stage.idp.wrongs(), Vec::<String>::new());
    let state = browser.fetch(&stage.url("/aporeto/oidc/session")).await.expect(200).json();
    assert_eq!(state["subject"], "alice");
    browser
}
