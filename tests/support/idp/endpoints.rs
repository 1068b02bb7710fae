//! The provider's endpoints: the usual answers, the checks of what was asked, and the unusual answers.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value, json};

use super::behaviour::{Behaviour, ClientAuthentication, Parameters, Reply, Signer, set};
use super::keys::{encode, hs256, random};
use super::refresh;
use super::{Call, Endpoint, Grant, Shared, find};

/// An answer with a body that may misbehave.
pub type Response = http::Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// Answers a call.
pub async fn answer(shared: &Shared, call: &Call) -> Response {
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let unusual = match call.endpoint {
        Endpoint::Discovery => behaviour.discovery_reply.clone(),
        Endpoint::Jwks => behaviour.jwks_reply.clone(),
        Endpoint::Token if find(&call.form, "grant_type") == Some("refresh_token") => {
            behaviour.refresh_reply.clone()
        }
        Endpoint::Token => behaviour.token_reply.clone(),
        Endpoint::UserInfo => behaviour.user_info_reply.clone(),
        Endpoint::Authorize | Endpoint::Revoke | Endpoint::EndSession | Endpoint::Other(_) => None,
    };
    if let (Some("refresh_token"), Some(barrier)) =
        (find(&call.form, "grant_type"), &behaviour.refresh_barrier)
    {
        barrier.acquire().await.unwrap().forget();
    }
    // A code counts as used even when the answer goes wrong.
    let usual = match &call.endpoint {
        Endpoint::Discovery => discovery(shared, &behaviour),
        Endpoint::Jwks => jwks(&behaviour),
        Endpoint::Authorize => authorize(shared, &behaviour, call),
        Endpoint::Token if find(&call.form, "grant_type") == Some("refresh_token") => {
            refresh::token(shared, call)
        }
        Endpoint::Token => token(shared, call),
        Endpoint::Revoke => refresh::revoke(shared, &behaviour, call),
        Endpoint::EndSession => end_session(call),
        Endpoint::UserInfo => user_info(shared, &behaviour, call),
        Endpoint::Other(_) => Reply::text(404, "text/plain", "no such endpoint"),
    };
    send(unusual.unwrap_or(usual)).await
}

fn discovery(shared: &Shared, behaviour: &Behaviour) -> Reply {
    let issuer = &shared.issuer;
    let algorithms: Vec<&str> = behaviour.published.iter().map(|key| key.algorithm.name()).collect();
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}{}", shared.jwks_path),
        "scopes_supported": ["openid", "profile", "email", "address", "phone"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    (behaviour.discovery)(&mut document);
    Reply::json(200, &document)
}

fn jwks(behaviour: &Behaviour) -> Reply {
    let mut document = json!({ "keys": behaviour.published.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
    (behaviour.jwks)(&mut document);
    Reply::json(200, &document)
}

/// Approves at once, and sends the browser back.
fn authorize(shared: &Shared, behaviour: &Behaviour, call: &Call) -> Reply {
    let get = |name: &str| call.parameter(name).unwrap_or_default().to_owned();
    let expect = |what: &str, holds: bool| {
        if !holds {
            shared.wrong(format!("authorization request: {what}: {:?}", call.query));
        }
    };
    expect("GET", call.method == http::Method::GET);
    expect("response_type=code", get("response_type") == "code");
    expect("the client's id", get("client_id") == behaviour.client_id);
    expect("openid in scope", get("scope").split(' ').any(|scope| scope == "openid"));
    expect("code_challenge_method=S256", get("code_challenge_method") == "S256");
    expect("a challenge of 43 characters", get("code_challenge").len() == 43);
    expect("a nonce of 128 bits and more", get("nonce").len() >= 22);
    expect("a state of 128 bits and more", get("state").len() >= 22);
    expect("an https redirect_uri", get("redirect_uri").starts_with("https://"));
    let mut names: Vec<&String> = call.query.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    expect("no parameter twice", names.len() == call.query.len());

    let code = random();
    shared.secrets.add(&code);
    let grant = Grant {
        redirect_uri: get("redirect_uri"),
        challenge: get("code_challenge"),
        nonce: get("nonce"),
        scope: get("scope"),
        acr_values: call.parameter("acr_values").map(str::to_owned),
        max_age: call.parameter("max_age").map(str::to_owned),
    };
    shared.grants.lock().unwrap().insert(code.clone(), grant);
    let mut parameters: Parameters = vec![
        ("code".into(), code),
        ("state".into(), get("state")),
        ("iss".into(), shared.issuer.clone()),
        ("session_state".into(), "of-no-meaning-here".into()),
    ];
    (behaviour.callback)(&mut parameters);
    let mut back = url::Url::parse(&get("redirect_uri")).unwrap();
    back.query_pairs_mut().extend_pairs(parameters);
    Reply::redirect(302, back.as_str())
}

fn token(shared: &Shared, call: &Call) -> Reply {
    let field = |name: &str| find(&call.form, name).unwrap_or_default();
    let grant = shared.grants.lock().unwrap().remove(field("code"));
    let mut behaviour = shared.behaviour.lock().unwrap();
    if call.method != http::Method::POST || field("grant_type") != "authorization_code" {
        shared.wrong(format!("token call: {} with grant_type {:?}", call.method, field("grant_type")));
    }
    if !authenticated(call, &behaviour) {
        shared.wrong("token call: the client's authentication is wrong");
        return Reply::json(401, &json!({ "error": "invalid_client" }));
    }
    let Some(grant) = grant else {
        // A wrong code is the relying party's mistake only where a test says so.
        return Reply::json(400, &json!({ "error": "invalid_grant" }));
    };
    if grant.redirect_uri != field("redirect_uri") {
        shared.wrong("token call: another redirect_uri than in the authorization request");
        return Reply::json(400, &json!({ "error": "invalid_grant" }));
    }
    let verifier = digest::digest(&digest::SHA256, field("code_verifier").as_bytes());
    if encode(verifier) != grant.challenge {
        shared.wrong("token call: the code_verifier is not that of the challenge");
        return Reply::json(400, &json!({ "error": "invalid_grant" }));
    }
    if let Some(key) = behaviour.rotate_at_token.take() {
        behaviour.rotate(key);
    }
    let mut response = issue(shared, &behaviour, &grant, |_| {});
    if grant.scope.split(' ').any(|scope| scope == "offline_access") {
        response["refresh_token"] = json!(refresh::begin(shared, &grant));
    }
    (behaviour.token_response)(&mut response);
    Reply::json(200, &response)
}

/// An access token and an ID token.
pub(super) fn issue(
    shared: &Shared,
    behaviour: &Behaviour,
    grant: &Grant,
    change: impl FnOnce(&mut Value),
) -> Value {
    let access = random();
    let id_token = id_token(shared, behaviour, grant, change);
    shared.secrets.add(&access);
    shared.secrets.add(&id_token);
    shared.access.lock().unwrap().insert(access.clone(), grant.scope.clone());
    json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": behaviour.token_lifetime,
        "id_token": id_token,
    })
}

/// Sends the browser back, with the state.
fn end_session(call: &Call) -> Reply {
    let Some(back) = call.parameter("post_logout_redirect_uri") else {
        return Reply::text(200, "text/html", "signed out");
    };
    let mut back = url::Url::parse(back).unwrap();
    if let Some(state) = call.parameter("state") {
        back.query_pairs_mut().append_pair("state", state);
    }
    Reply::redirect(302, back.as_str())
}

pub(super) fn logout_token(shared: &Shared, change: impl FnOnce(&mut Value)) -> String {
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let now = now().saturating_add_signed(behaviour.seconds_ahead);
    let mut claims = json!({
        "iss": shared.issuer,
        "aud": behaviour.client_id,
        "iat": now,
        "exp": now + 120,
        "jti": random(),
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        "sub": behaviour.user["sub"],
    });
    change(&mut claims);
    let token = signed(&behaviour, &claims);
    shared.secrets.add(&token);
    token
}

/// RFC 6749 section 2.3.1: Basic with form-encoded id and secret, or both in the body; never both ways.
pub(super) fn authenticated(call: &Call, behaviour: &Behaviour) -> bool {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(&behaviour.client_id), encoded(&behaviour.client_secret));
    let header = call.headers.get("authorization").map(|value| value.as_bytes());
    let posted = find(&call.form, "client_secret");
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    match behaviour.client_authentication {
        ClientAuthentication::Any if header.is_some() => header == Some(basic.as_bytes()) && posted.is_none(),
        ClientAuthentication::Basic => header == Some(basic.as_bytes()) && posted.is_none(),
        ClientAuthentication::Any | ClientAuthentication::Post => {
            header.is_none()
                && posted == Some(behaviour.client_secret.as_str())
                && find(&call.form, "client_id") == Some(behaviour.client_id.as_str())
        }
    }
}

fn id_token(
    shared: &Shared,
    behaviour: &Behaviour,
    grant: &Grant,
    change: impl FnOnce(&mut Value),
) -> String {
    let now = now().saturating_add_signed(behaviour.seconds_ahead);
    let mut claims = json!({
        "iss": shared.issuer,
        "aud": behaviour.client_id,
        "iat": now,
        "exp": now + behaviour.token_lifetime,
        "nonce": grant.nonce,
    });
    for (name, value) in behaviour.user.as_object().unwrap() {
        claims[name.as_str()] = value.clone();
    }
    if behaviour.honours_step_up {
        if let Some(acr) = grant.acr_values.as_deref().and_then(|values| values.split(' ').next()) {
            claims["acr"] = json!(acr);
        }
        if grant.max_age.is_some() {
            claims["auth_time"] = json!(now);
        }
    }
    (behaviour.claims)(&mut claims);
    change(&mut claims);
    (behaviour.token)(signed(behaviour, &claims))
}

/// The token, signed as the behaviour says.
fn signed(behaviour: &Behaviour, claims: &Value) -> String {
    let mut header = match &behaviour.signer {
        Signer::Key(key) => json!({ "alg": key.algorithm.name(), "kid": key.id(), "typ": "JWT" }),
        Signer::Disguised(key, name) => json!({ "alg": name, "kid": key.id() }),
        Signer::Hmac(_) => json!({ "alg": "HS256", "kid": behaviour.published[0].id() }),
        Signer::Unsigned(Some(name)) => json!({ "alg": name }),
        Signer::Unsigned(None) => json!({ "typ": "JWT" }),
    };
    (behaviour.header)(&mut header);
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = match &behaviour.signer {
        Signer::Key(key) | Signer::Disguised(key, _) => key.sign(message.as_bytes()),
        Signer::Hmac(secret) => hs256(secret, message.as_bytes()),
        Signer::Unsigned(_) => Vec::new(),
    };
    format!("{message}.{}", encode(signature))
}

/// The claims that the granted scopes give (OpenID Connect Core section 5.4), and all that no scope names.
fn user_info(shared: &Shared, behaviour: &Behaviour, call: &Call) -> Reply {
    let bearer =
        call.headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let scope = bearer.and_then(|token| shared.access.lock().unwrap().get(token).cloned());
    if call.parameter("access_token").is_some() {
        shared.wrong("UserInfo call: the access token is in the URL");
    }
    let Some(scope) = scope else {
        shared.wrong("UserInfo call: no access token of ours in Authorization");
        return Reply::json(401, &json!({ "error": "invalid_token" }));
    };
    let mut claims: Map<String, Value> = behaviour.user_info.as_object().cloned().unwrap_or_default();
    claims.retain(|name, _| match scope_of(name) {
        Some(needed) => scope.split(' ').any(|granted| granted == needed),
        None => true,
    });
    let mut claims = Value::Object(claims);
    set(&mut claims, "updated_at", json!(1_700_000_000.25));
    Reply::json(200, &claims)
}

fn scope_of(claim: &str) -> Option<&'static str> {
    match claim {
        "email" | "email_verified" => Some("email"),
        "phone_number" | "phone_number_verified" => Some("phone"),
        "address" => Some("address"),
        "name" | "given_name" | "family_name" => Some("profile"),
        _ => None,
    }
}

async fn send(reply: Reply) -> Response {
    let response = http::Response::builder().header("content-type", "application/json");
    let never = |never: Infallible| match never {};
    match reply {
        Reply::Fixed { status, headers, body } => {
            let mut response = http::Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Full::new(body).map_err(never).boxed_unsync()).unwrap()
        }
        Reply::Huge(bytes) => {
            let start = stream::once(async { Bytes::from_static(b"{\"filling\":\"") });
            let filling = stream::repeat(Bytes::from_static(&[b'x'; 16_384])).take(bytes / 16_384 + 1);
            let body = start.chain(filling).map(|data| Ok(Frame::data(data)));
            response.body(StreamBody::new(body).boxed_unsync()).unwrap()
        }
        Reply::Drip => {
            let body = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
            });
            response.body(StreamBody::new(body).boxed_unsync()).unwrap()
        }
        Reply::Cut => {
            let parts = [
                Ok(Frame::data(Bytes::from_static(b"{\"access_token\""))),
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            ];
            response
                .header("content-length", "4096")
                .body(StreamBody::new(stream::iter(parts)).boxed_unsync())
                .unwrap()
        }
        Reply::Hang => std::future::pending().await,
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
