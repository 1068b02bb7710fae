//! The provider and the demo app over real sockets, as a browser and a relying party use them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::{Client, DemoApp, DevIdp, RedirectUris, ServeError, demo_users};
use crate::clock::{Clock, ManualClock, UnixTime};
use crate::secret::Secret;

mod grants;

const CALLBACK: &str = "https://localhost:8443/aporeto/oidc/callback";
const SECRET: &str = "s:cr%t +x";
const START: UnixTime = UnixTime(1_800_000_000);
/// The example of RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// An answer as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The parameters of the address that it leads to.
    fn sent_back(&self) -> HashMap<String, String> {
        assert_eq!(self.status, 303, "{}", self.body);
        let target = Url::parse(self.field("location").unwrap()).unwrap();
        target.query_pairs().into_owned().collect()
    }

    /// The cookie as a browser sends it back.
    fn cookie(&self) -> String {
        self.field("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }
}

async fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if fields.iter().all(|(name, _)| *name != "Host") {
        request += &format!("Host: {address}\r\n");
    }
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| line.split_once(": ").unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned()));
    Answer { status, fields: fields.collect(), body: body.to_owned() }
}

struct Idp {
    address: SocketAddr,
    issuer: String,
    clock: ManualClock,
}

impl Idp {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = format!("http://{address}");
        let client = |id: &str| Client {
            id: id.to_owned(),
            secret: Secret::new(SECRET.to_owned()),
            redirect_uris: RedirectUris::Exactly(vec![CALLBACK.to_owned()]),
        };
        let (clock, hand) = Clock::manual(START);
        let idp = DevIdp::new(&issuer, vec![client("demo"), client("other")], demo_users(), clock).unwrap();
        tokio::spawn(idp.serve(listener));
        Self { address, issuer, clock: hand }
    }

    /// An authorization request; `change` replaces or, with an empty value, removes parameters.
    fn request(change: &[(&str, &str)]) -> String {
        let mut parameters: Vec<(&str, &str)> = vec![
            ("client_id", "demo"),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid email groups"),
            ("state", "st&te"),
            ("nonce", "n0nce"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        parameters.retain(|(name, _)| change.iter().all(|(other, _)| other != name));
        parameters.extend(change.iter().filter(|(_, value)| !value.is_empty()));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
    }

    async fn authorize(&self, change: &[(&str, &str)], cookie: &str) -> Answer {
        let target = format!("/authorize?{}", Self::request(change));
        ask(self.address, "GET", &target, &[("Cookie", cookie)], "").await
    }

    /// Sends the login page's form.
    async fn submit(&self, change: &[(&str, &str)], fields: &[(&str, &str)], cookie: &str) -> Answer {
        let request = Self::request(change);
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let form = form.append_pair("request", &request).extend_pairs(fields).finish();
        ask(self.address, "POST", "/login", &[("Cookie", cookie), ("Sec-Fetch-Site", "same-origin")], &form)
            .await
    }

    async fn code(&self, user: &str) -> String {
        self.submit(&[], &[("user", user)], "").await.sent_back().remove("code").unwrap()
    }

    async fn exchange(&self, change: &[(&str, &str)], basic: Option<(&str, &str)>) -> Answer {
        let mut parameters: Vec<(&str, &str)> = vec![
            ("grant_type", "authorization_code"),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        parameters.retain(|(name, _)| change.iter().all(|(other, _)| other != name));
        parameters.extend(change.iter().filter(|(_, value)| !value.is_empty()));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let header = basic.map(|(id, secret)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
        });
        let fields: Vec<_> = header.iter().map(|header| ("Authorization", header.as_str())).collect();
        ask(self.address, "POST", "/token", &fields, &form).await
    }

    async fn user_info(&self, token: &str) -> Answer {
        ask(self.address, "GET", "/userinfo", &[("Authorization", &format!("Bearer {token}"))], "").await
    }
}

const BASIC: Option<(&str, &str)> = Some(("demo", SECRET));

#[tokio::test]
async fn a_login_gives_a_signed_id_token_and_user_info() {
    jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().ok();
    let idp = Idp::start().await;
    let discovery = ask(idp.address, "GET", "/.well-known/openid-configuration", &[], "").await.json();
    assert_eq!(discovery["issuer"], idp.issuer);
    let keys = ask(idp.address, "GET", "/jwks", &[], "").await;
    assert_eq!(discovery["jwks_uri"], format!("{}/jwks", idp.issuer));

    let page = idp.authorize(&[], "").await;
    assert_eq!(page.status, 200);
    for user in demo_users() {
        assert!(page.body.contains(&user.full_name()) && page.body.contains(&user.may));
    }
    assert!(
        page.field("content-security-policy").unwrap().contains("form-action 'self' https://localhost:8443;")
    );

    idp.clock.advance(Duration::from_secs(5));
    let back = idp.submit(&[], &[("user", "carol")], "").await;
    assert!(back.field("location").unwrap().starts_with(&format!("{CALLBACK}?code=")));
    let cookie = back.field("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"));
    let sent = back.sent_back();
    assert_eq!((sent["state"].as_str(), sent["iss"].as_str()), ("st&te", idp.issuer.as_str()));

    let tokens = idp.exchange(&[("code", &sent["code"])], BASIC).await;
    assert_eq!((tokens.status, tokens.field("cache-control")), (200, Some("no-store")));
    let tokens = tokens.json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(300)));

    let keys: JwkSet = serde_json::from_value(keys.json()).unwrap();
    let id_token = tokens["id_token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(id_token).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["demo"]);
    validation.set_issuer(&[&idp.issuer]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(id_token, &key, &validation).unwrap().claims;
    let access_token = tokens["access_token"].as_str().unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, access_token.as_bytes());
    for (name, value) in [
        ("sub", json!("carol")),
        ("nonce", json!("n0nce")),
        ("iat", json!(START.0 + 5)),
        ("exp", json!(START.0 + 305)),
        ("auth_time", json!(START.0 + 5)),
        ("acr", json!("pwd")),
        ("email", json!("carol@example.com")),
        ("email_verified", json!(false)),
        ("groups", json!(["guests"])),
        ("at_hash", json!(BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]))),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    assert_eq!(claims.get("name"), None, "the scope profile was not asked for");

    let info = idp.user_info(access_token).await.json();
    assert_eq!((&info["sub"], &info["email"]), (&json!("carol"), &json!("carol@example.com")));
    assert_eq!(idp.user_info("x").await.status, 401);
    idp.clock.advance(Duration::from_secs(300));
    assert_eq!(idp.user_info(access_token).await.status, 401);
}

#[tokio::test]
async fn a_code_is_good_once_for_its_client_and_verifier() {
    let idp = Idp::start().await;
    for (change, basic, status, error) in [
        (vec![("client_id", "demo"), ("client_secret", SECRET)], None, 200, None),
        (vec![], None, 401, Some("invalid_client")),
        (vec![], Some(("demo", "wrong")), 401, Some("invalid_client")),
        (vec![], Some(("nobody", SECRET)), 401, Some("invalid_client")),
        (vec![("client_id", "demo"), ("client_secret", SECRET)], BASIC, 400, Some("invalid_request")),
        (vec![], Some(("other", SECRET)), 400, Some("invalid_grant")),
        (vec![("code_verifier", "wrong")], BASIC, 400, Some("invalid_grant")),
        (vec![("code_verifier", "")], BASIC, 400, Some("invalid_request")),
        (vec![("redirect_uri", "https://localhost:8443/other")], BASIC, 400, Some("invalid_grant")),
        (vec![("grant_type", "password")], BASIC, 400, Some("unsupported_grant_type")),
        (vec![("grant_type", "")], BASIC, 400, Some("invalid_request")),
    ] {
        let code = idp.code("alice").await;
        let mut parameters = vec![("code", code.as_str())];
        parameters.extend(&change);
        let answer = idp.exchange(&parameters, basic).await;
        assert_eq!(answer.status, status, "{change:?} {basic:?}");
        assert_eq!(answer.json().get("error").and_then(Value::as_str), error, "{change:?} {basic:?}");
        assert_eq!(answer.field("www-authenticate").is_some(), status == 401);
    }

    let code = idp.code("alice").await;
    let first = idp.exchange(&[("code", &code)], BASIC).await.json();
    let token = first["access_token"].as_str().unwrap();
    assert_eq!(idp.user_info(token).await.status, 200);
    assert_eq!(idp.exchange(&[("code", &code)], BASIC).await.json()["error"], "invalid_grant");
    assert_eq!(idp.user_info(token).await.status, 401, "what a stolen code gave must end");

    let code = idp.code("alice").await;
    idp.clock.advance(Duration::from_secs(60));
    assert_eq!(idp.exchange(&[("code", &code)], BASIC).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn bad_requests_are_answered_where_it_is_safe() {
    let idp = Idp::start().await;
    for change in [
        ("client_id", ""),
        ("client_id", "unknown"),
        ("redirect_uri", ""),
        ("redirect_uri", "https://evil.example/cb"),
        ("redirect_uri", "https://localhost:8443/aporeto/oidc/callback/"),
    ] {
        let answer = idp.authorize(&[change], "").await;
        assert_eq!((answer.status, answer.field("location")), (400, None), "{change:?}");
    }
    let twice = format!("/authorize?{}&client_id=other", Idp::request(&[]));
    assert_eq!(ask(idp.address, "GET", &twice, &[], "").await.status, 400);

    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "unsupported_response_type"),
        (("response_mode", "fragment"), "invalid_request"),
        (("scope", "email"), "invalid_scope"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("max_age", "soon"), "invalid_request"),
        (("prompt", "none login"), "invalid_request"),
        (("prompt", "none"), "login_required"),
        (("request", "x.y.z"), "request_not_supported"),
        (("request_uri", "https://evil.example"), "request_uri_not_supported"),
    ] {
        let sent = idp.authorize(&[change], "").await.sent_back();
        assert_eq!(sent["error"], error, "{change:?}");
        assert_eq!((sent["state"].as_str(), sent["iss"].as_str()), ("st&te", idp.issuer.as_str()));
        assert!(!sent.contains_key("code"));
    }
    let cancelled = idp.submit(&[], &[("cancel", "1")], "").await;
    assert_eq!(cancelled.sent_back()["error"], "access_denied");
    assert_eq!(cancelled.field("set-cookie"), None);
}

#[tokio::test]
async fn an_earlier_login_counts_only_if_it_is_enough() {
    let idp = Idp::start().await;
    let ordinary = idp.submit(&[], &[("user", "bob")], "").await.cookie();
    let stronger = idp.submit(&[], &[("user", "bob"), ("second_factor", "1")], "").await.cookie();
    idp.clock.advance(Duration::from_secs(300));
    for (cookie, change, enough) in [
        (&ordinary, vec![], true),
        (&ordinary, vec![("max_age", "300")], true),
        (&ordinary, vec![("max_age", "299")], false),
        (&ordinary, vec![("max_age", "0")], false),
        (&ordinary, vec![("acr_values", "mfa")], false),
        (&ordinary, vec![("acr_values", "mfa pwd")], true),
        (&stronger, vec![("acr_values", "mfa")], true),
        (&"portcullis-dev-idp=x".to_owned(), vec![], false),
    ] {
        let mut silent = change.clone();
        silent.push(("prompt", "none"));
        let sent = idp.authorize(&silent, cookie).await.sent_back();
        assert_eq!(sent.contains_key("code"), enough, "{cookie} {change:?}");
        // With a person before it, the page offers to go on, and does not believe a form that claims so.
        let page = idp.authorize(&change, cookie).await;
        assert_eq!(page.body.contains("Continue as Bob Baker"), enough, "{cookie} {change:?}");
        let on = idp.submit(&change, &[("continue", "1")], cookie).await;
        assert_eq!(on.status, if enough { 303 } else { 200 }, "{cookie} {change:?}");
    }
    assert!(!idp.authorize(&[("prompt", "login")], &ordinary).await.body.contains("Continue as"));

    let sent = idp.submit(&[], &[("continue", "1")], &stronger).await.sent_back();
    let tokens = idp.exchange(&[("code", &sent["code"])], BASIC).await.json();
    let payload = tokens["id_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!((&claims["auth_time"], &claims["acr"]), (&json!(START.0), &json!("mfa")));
    let sid = claims["sid"].as_str().unwrap();
    assert!(sid.len() == 43 && !stronger.contains(sid), "it names the login and opens nothing");
}

#[tokio::test]
async fn a_logout_ends_the_login_and_leads_only_to_a_known_origin() {
    let idp = Idp::start().await;
    let cookie = idp.submit(&[], &[("user", "bob")], "").await.cookie();
    let known =
        "/logout?post_logout_redirect_uri=https%3A%2F%2Flocalhost%3A8443%2Faporeto%2Foidc%2Flogout&state=s";
    let answer = ask(idp.address, "GET", known, &[("Cookie", &cookie)], "").await;
    assert_eq!(answer.field("location"), Some("https://localhost:8443/aporeto/oidc/logout?state=s"));
    assert!(answer.field("set-cookie").unwrap().contains("Max-Age=0"));
    let after = idp.authorize(&[("prompt", "none")], &cookie).await.sent_back();
    assert_eq!(after["error"], "login_required");
    for (client, status) in [("demo", 303), ("unknown", 200)] {
        let answer = ask(idp.address, "GET", &format!("{known}&client_id={client}"), &[], "").await;
        assert_eq!(answer.status, status, "{client}");
    }
    for target in ["https://evil.example/", "https://localhost:9999/", "javascript:alert(1)", "x"] {
        let query = format!("/logout?post_logout_redirect_uri={target}");
        let answer = ask(idp.address, "GET", &query, &[], "").await;
        assert_eq!((answer.status, answer.field("location")), (200, None), "{target}");
    }
}

#[tokio::test]
async fn other_sites_hosts_and_methods_are_turned_away() {
    let idp = Idp::start().await;
    let form = format!("request={}&user=alice", "x");
    let foreign = ask(idp.address, "POST", "/login", &[("Sec-Fetch-Site", "cross-site")], &form).await;
    assert_eq!(foreign.status, 403);
    let rebound = ask(idp.address, "GET", "/", &[("Host", "evil.example")], "").await;
    assert_eq!(rebound.status, 421);
    for (method, path, status, allow) in [
        ("GET", "/", 200, None),
        ("POST", "/", 405, Some("GET, HEAD")),
        ("GET", "/token", 405, Some("POST")),
        ("GET", "/revoke", 405, Some("POST")),
        ("GET", "/login", 405, Some("POST")),
        ("DELETE", "/userinfo", 405, Some("GET, HEAD, POST")),
        ("GET", "/nothing", 404, None),
    ] {
        let answer = ask(idp.address, method, path, &[], "").await;
        assert_eq!((answer.status, answer.field("allow")), (status, allow), "{method} {path}");
    }
    // One byte too many, so that nothing is left unread that could reset the connection.
    let large = "x".repeat(64 * 1024 + 1);
    assert_eq!(ask(idp.address, "POST", "/token", &[], &large).await.status, 413);
}

#[tokio::test]
async fn what_is_sent_cannot_become_markup() {
    let idp = Idp::start().await;
    let page = idp.authorize(&[("state", "\"><script>alert(1)</script>")], "").await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("<script"));
}

#[tokio::test]
async fn a_listener_that_others_can_reach_is_not_served() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert!(matches!(DemoApp.serve(listener).await, Err(ServeError::NotLoopback(_))));
}

async fn demo_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(DemoApp.serve(listener));
    address
}

#[tokio::test]
async fn the_demo_app_shows_who_the_proxy_says_is_there() {
    let app = demo_app().await;
    let alone = ask(app, "GET", "/", &[], "").await;
    assert!(alone.body.contains("not through Portcullis") && alone.body.contains("/aporeto/oidc/login"));

    let stamped = [
        ("X-Forwarded-Host", "localhost:8443"),
        ("X-User-Id", "zoe"),
        ("X-User-Name", "Zo%C3%AB %3Cscript%3E"),
        ("X-User-Groups", "a%2Cb,c"),
        ("User-Agent", "</code><script>alert(1)</script>"),
    ];
    let home = ask(app, "GET", "/", &stamped, "").await;
    assert!(home.body.contains("Zoë &#60;script&#62;") && home.body.contains("<code>a,b</code>"));
    assert!(!home.body.contains("not through Portcullis") && home.body.contains("/aporeto/oidc/logout"));
    let mirror = ask(app, "GET", "/whoami", &stamped, "").await;
    let (set, sent) = mirror.body.split_once("Sent by your browser").unwrap();
    assert!(set.contains("x-user-name") && !sent.contains("x-user-name"));
    assert!(sent.contains("user-agent") && !set.contains("user-agent"));
    assert!(!mirror.body.contains("<script>alert"));
}

#[tokio::test]
async fn the_demo_pages_are_allowed_their_own_style_and_script() {
    let app = demo_app().await;
    for path in ["/", "/public", "/whoami", "/verified", "/staff", "/admin", "/vault"] {
        let page = ask(app, "GET", path, &[], "").await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.field("content-security-policy").unwrap();
        for tag in ["style", "script"] {
            let Some(text) = page.body.split(&format!("<{tag}>")).nth(1) else {
                assert!(tag == "script" && path != "/");
                continue;
            };
            let text = text.split(&format!("</{tag}>")).next().unwrap();
            let source = super::answer::hash_source(text);
            assert!(policy.contains(&format!("{tag}-src {source}")), "{path} {tag}");
        }
    }
}

#[tokio::test]
async fn the_demo_app_answers_programs() {
    let app = demo_app().await;
    assert_eq!(ask(app, "GET", "/api/notes", &[], "").await.json()["notes"][0], "water the plants");
    let written = ask(app, "POST", "/api/notes", &[("X-User-Id", "alice")], "{}").await;
    assert_eq!((written.status, &written.json()["by"]), (201, &json!("alice")));
    assert_eq!(ask(app, "DELETE", "/api/notes", &[], "").await.status, 405);
    assert_eq!(ask(app, "GET", "/nothing", &[], "").await.status, 404);
    let head = ask(app, "HEAD", "/", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));

    let mut stream = TcpStream::connect(app).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: {\"event\":2}\n\n") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "the stream ended");
    }
    assert!(String::from_utf8_lossy(&seen).contains("content-type: text/event-stream"));
}
