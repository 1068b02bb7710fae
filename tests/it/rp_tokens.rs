//! Wrong tokens and wrong answers of the provider, class by class. After each: the right status, no session, no
//! further call. One proxy serves a whole class; the provider changes between logins.

use serde_json::{Value, json};

use crate::support::expect::{accepted_login, page, refused_login};
use crate::support::idp::{
    Algorithm, Behaviour, Endpoint, Key, Reply, Signer, break_signature, encode, random, set,
};
use crate::support::stage::Stage;

/// Every behaviour must be refused with 400 and no call after the token call; then a good login works.
async fn all_refused(stage: &Stage, wrong: Vec<(&str, Behaviour)>) {
    let good = stage.idp.behaviour();
    for (what, behaviour) in wrong {
        eprintln!("case: {what}");
        stage.idp.change(|current| *current = behaviour);
        refused_login(stage, 400, 0).await;
    }
    stage.idp.change(|current| *current = good);
    accepted_login(stage).await;
}

/// Every behaviour must be accepted.
async fn all_accepted(stage: &Stage, right: Vec<(&str, Behaviour)>) {
    for (what, behaviour) in right {
        eprintln!("case: {what}");
        stage.idp.change(|current| *current = behaviour);
        accepted_login(stage).await;
    }
}

/// UserInfo would be asked after every good token.
async fn asking_user_info() -> Stage {
    Stage::with(|plan| plan.set("OIDCUserInfo", json!("always"))).await
}

fn good() -> Behaviour {
    Behaviour::good(Algorithm::Es256)
}

fn with_claim<'a>(what: &'a str, name: &'static str, value: Value) -> (&'a str, Behaviour) {
    (what, good().claim(name, value))
}

/// A claim that is so many seconds from now.
fn at(what: &'static str, name: &'static str, seconds: i64) -> (&'static str, Behaviour) {
    (what, good().claims(move |claims| claims[name] = json!(claims["iat"].as_i64().unwrap() + seconds)))
}

/// RP-02.
#[tokio::test]
async fn the_issuer_is_exact() {
    let stage = asking_user_info().await;
    let changed = |change: fn(&str) -> String| {
        good().claims(move |claims| claims["iss"] = json!(change(claims["iss"].as_str().unwrap())))
    };
    let wrong = vec![
        with_claim("another", "iss", json!("https://idp.example.com")),
        with_claim("missing", "iss", Value::Null),
        with_claim("a number", "iss", json!(1)),
        ("an extra slash", changed(|issuer| format!("{issuer}/"))),
        ("another case", changed(|issuer| issuer.replace("http", "HTTP"))),
        ("another spelling of the host", changed(|issuer| issuer.replace("127.0.0.1", "localhost"))),
        ("an array", good().claims(|claims| claims["iss"] = json!([claims["iss"]]))),
    ];
    all_refused(&stage, wrong).await;
}

/// RP-03.
#[tokio::test]
async fn the_subject_is_there() {
    let stage = asking_user_info().await;
    let wrong = vec![
        with_claim("missing", "sub", Value::Null),
        with_claim("empty", "sub", json!("")),
        with_claim("a number", "sub", json!(7)),
        with_claim("300 characters", "sub", json!("x".repeat(300))),
        with_claim("an object", "sub", json!({ "alice": 1 })),
    ];
    all_refused(&stage, wrong).await;
}

/// RP-04, RP-05.
#[tokio::test]
async fn the_audience_is_this_client_alone() {
    let stage = asking_user_info().await;
    let me = stage.idp.behaviour().client_id;
    let wrong = vec![
        with_claim("foreign", "aud", json!("another")),
        with_claim("missing", "aud", Value::Null),
        ("null", good().claims(|claims| claims["aud"] = Value::Null)),
        with_claim("a longer name", "aud", json!(format!("{me}2"))),
        with_claim("a number", "aud", json!(1)),
        with_claim("an empty array", "aud", json!([])),
        with_claim("me and a stranger", "aud", json!([me, "another"])),
        with_claim("a stranger and me", "aud", json!(["another", me])),
        with_claim("an object", "aud", json!({ "client": me })),
        with_claim("azp is another", "azp", json!("another")),
        with_claim("azp is a number", "azp", json!(1)),
    ];
    all_refused(&stage, wrong).await;
    let right =
        vec![with_claim("an array of me", "aud", json!([me])), with_claim("azp is me", "azp", json!(me))];
    all_accepted(&stage, right).await;
}

/// RP-06, RP-07, RP-08.
#[tokio::test]
async fn the_times_are_now() {
    let stage = asking_user_info().await;
    let wrong = vec![
        with_claim("no iat", "iat", Value::Null),
        ("iat is a string", good().claims(|claims| claims["iat"] = json!(claims["iat"].to_string()))),
        at("issued a week ago", "iat", -7 * 86_400),
        at("issued in an hour", "iat", 3_600),
        with_claim("no exp", "exp", Value::Null),
        at("expired", "exp", -3_600),
        with_claim("exp is 1e300", "exp", json!(1e300)),
        with_claim("exp is -1", "exp", json!(-1)),
        with_claim("exp is a string", "exp", json!("2999999999")),
        with_claim("exp is 0", "exp", json!(0)),
        at("valid only in ten minutes", "nbf", 600),
        with_claim("nbf is a string", "nbf", json!("0")),
    ];
    all_refused(&stage, wrong).await;
    let right = vec![
        at("valid in thirty seconds", "nbf", 30),
        (
            "exp is a float",
            good().claims(|claims| claims["exp"] = json!(claims["exp"].as_f64().unwrap() + 0.5)),
        ),
        at("issued thirty seconds ahead", "iat", 30),
        (
            "expired thirty seconds ago",
            good().claims(|claims| {
                let now = claims["iat"].as_i64().unwrap();
                claims["iat"] = json!(now - 90);
                claims["exp"] = json!(now - 30);
            }),
        ),
    ];
    all_accepted(&stage, right).await;
}

/// RP-09: keys of other kinds and for other uses are there, and are not tried.
#[tokio::test]
async fn without_a_key_id_only_a_right_key_verifies() {
    let stage = asking_user_info().await;
    let foreign = [Algorithm::Rs256, Algorithm::EdDsa].map(|algorithm| Key::new(algorithm, 0));
    let many = |own: usize, usage: &'static str| {
        let mut several = good().header(|header| set(header, "kid", Value::Null));
        several.published = vec![foreign[0], foreign[1], Key::new(Algorithm::Es256, own)];
        several.jwks(move |jwks| {
            jwks["keys"][2]["use"] = json!(usage);
            let unknown = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "unknown", "pub": "AAAA" });
            jwks["keys"].as_array_mut().unwrap().insert(0, unknown);
        })
    };
    // Each set of keys is new to the proxy, so that it fetches.
    for (what, behaviour, right) in [
        ("for encryption only", many(0, "enc"), false),
        ("another key", many(1, "sig"), false),
        ("among others", many(0, "sig"), true),
    ] {
        eprintln!("case: {what}");
        let stage = Stage::misbehaving(behaviour).await;
        if right {
            accepted_login(&stage).await;
        } else {
            refused_login(&stage, 400, 0).await;
        }
    }
    drop(stage);
}

/// RP-11, RP-12, RP-13.
#[tokio::test]
async fn the_signature_is_verified_with_an_allowed_algorithm() {
    let stage = asking_user_info().await;
    let key = Key::new(Algorithm::Es256, 0);
    let secret = stage.idp.behaviour().client_secret;
    let signed_by = |signer: Signer| good().signer(signer);
    let without_signature =
        |token: String| format!("{}.", token.rsplit_once('.').map(|(signed, _)| signed).unwrap());
    let mut wrong = vec![
        ("no alg", signed_by(Signer::Unsigned(None))),
        (
            "another key",
            signed_by(Signer::Key(Key::new(Algorithm::Es256, 1)))
                .header(move |header| header["kid"] = json!(key.id())),
        ),
        ("HS256 with the client secret", signed_by(Signer::Hmac(secret.into_bytes()))),
        ("HS256 with the public key", signed_by(Signer::Hmac(key.public_bytes()))),
        ("HS256 with the JWK", signed_by(Signer::Hmac(key.jwk().to_string().into_bytes()))),
        ("a broken signature", good().token(|token| break_signature(&token))),
        ("an empty signature", good().token(without_signature)),
        ("two parts", good().token(|token| token.rsplit_once('.').unwrap().0.to_owned())),
        ("a cut signature", good().token(|token| token[..token.len() - 3].to_owned())),
        ("five parts", good().token(|token| format!("{token}.AAAA.AAAA"))),
        ("an extra dot at the end", good().token(|token| format!("{token}."))),
        ("an extra dot in front", good().token(|token| format!(".{token}"))),
        ("padding", good().token(|token| format!("{token}=="))),
        ("a line end", good().token(|token| format!("{token}\n"))),
        ("not base64url at the end", good().token(non_canonical)),
        ("not a token", good().token(|_| "token".to_owned())),
        ("empty", good().token(|_| String::new())),
        ("other claims under the signature", good().token(|token| replace_claims(&token))),
        ("critical header", good().header(|header| header["crit"] = json!(["exp"]))),
        (
            "unknown critical header",
            good().header(|header| {
                header["crit"] = json!(["x"]);
                header["x"] = json!(1)
            }),
        ),
        ("another kind of token", good().header(|header| header["typ"] = json!("at+jwt"))),
        ("a logout token", good().header(|header| header["typ"] = json!("logout+jwt"))),
        ("compressed", good().header(|header| header["zip"] = json!("DEF"))),
    ];
    for name in ["none", "None", "nOnE", "NONE", "", "ES999", "es256"] {
        wrong.push(("an alg that is none", signed_by(Signer::Unsigned(Some(name)))));
        wrong.push(("such an alg and a signature", signed_by(Signer::Disguised(key, name))));
    }
    all_refused(&stage, wrong).await;
}

/// RP-12 for RSA, and RP-13 with its keys.
#[tokio::test]
async fn an_rsa_signature_is_one() {
    let stage = Stage::with(|plan| {
        plan.behaviour = Behaviour::good(Algorithm::Rs256);
        plan.set("OIDCUserInfo", json!("always"));
    })
    .await;
    let key = Key::new(Algorithm::Rs256, 0);
    let good = || Behaviour::good(Algorithm::Rs256);
    let pem = {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(key.public_bytes());
        format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
    };
    let wrong = vec![
        ("HS256 with the DER", good().signer(Signer::Hmac(key.public_bytes()))),
        ("HS256 with the PEM", good().signer(Signer::Hmac(pem.into_bytes()))),
        ("PS256 said, RS256 signed", good().signer(Signer::Disguised(key, "PS256"))),
        ("ES256 said, RS256 signed", good().signer(Signer::Disguised(key, "ES256"))),
        ("RS384 said, RS256 signed", good().signer(Signer::Disguised(key, "RS384"))),
        ("a broken signature", good().token(|token| break_signature(&token))),
        (
            "a signature of zeros",
            good().token(|token| format!("{}.{}", token.rsplit_once('.').unwrap().0, encode([0; 256]))),
        ),
        ("PS256, which the metadata has not", good().signer(Signer::Key(Key::new(Algorithm::Ps256, 0)))),
    ];
    all_refused(&stage, wrong).await;
}

/// RP-15: keys come from the JWKS, never from a token.
#[tokio::test]
async fn a_token_brings_no_keys() {
    let stage = asking_user_info().await;
    let stranger = Key::new(Algorithm::Es256, 1);
    let issuer = stage.idp.issuer.clone();
    let hints: Vec<(&str, Value)> = vec![
        ("jwk", stranger.jwk()),
        ("jku", json!(format!("{issuer}/evil-jwks"))),
        ("x5u", json!(format!("{issuer}/evil-certificate"))),
        ("x5c", json!(["AAAA"])),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("x' OR '1'='1")),
        ("kid", json!(format!("{issuer}/evil-key"))),
    ];
    let wrong = hints
        .into_iter()
        .map(|(name, value)| {
            let header = move |header: &mut Value| header[name] = value.clone();
            ("a hint at another key", good().signer(Signer::Key(stranger)).header(header))
        })
        .collect();
    all_refused(&stage, wrong).await;
    let strange = stage.idp.calls().into_iter().filter(|call| matches!(call.endpoint, Endpoint::Other(_)));
    assert_eq!(strange.count(), 0, "calls to where a token points");
}

/// RP-17.
#[tokio::test]
async fn the_nonce_is_that_of_this_login() {
    let stage = asking_user_info().await;
    let mut other = stage.browser();
    other.authorize(&stage.url("/app/")).await;
    let nonce = stage.idp.calls_of(&Endpoint::Authorize)[0].parameter("nonce").unwrap().to_owned();
    let wrong = vec![
        with_claim("wrong", "nonce", json!(random())),
        with_claim("absent", "nonce", Value::Null),
        with_claim("of another browser", "nonce", json!(nonce)),
        with_claim("empty", "nonce", json!("")),
        with_claim("an array", "nonce", json!([nonce])),
    ];
    all_refused(&stage, wrong).await;
}

/// RP-19: RFC 9207. The login stops before the token call.
#[tokio::test]
async fn the_callback_comes_from_this_issuer() {
    let stage = asking_user_info().await;
    let issuer = stage.idp.issuer.clone();
    let iss = |value: Option<String>| {
        good().callback(move |parameters| {
            parameters.retain(|(name, _)| name != "iss");
            parameters.extend(value.clone().map(|value| ("iss".to_owned(), value)));
        })
    };
    let twice = |name: &'static str| {
        good().callback(move |parameters| {
            let pair = parameters.iter().find(|(key, _)| key == name).unwrap().clone();
            parameters.push(pair);
        })
    };
    let good_behaviour = stage.idp.behaviour();
    for (what, behaviour) in [
        ("another issuer", iss(Some("https://idp.example.com".into()))),
        ("an extra slash", iss(Some(format!("{issuer}/")))),
        ("empty", iss(Some(String::new()))),
        ("absent although advertised", iss(None)),
        ("iss twice", twice("iss")),
        ("code twice", twice("code")),
        ("state twice", twice("state")),
    ] {
        eprintln!("case: {what}");
        stage.idp.change(|current| *current = behaviour);
        let mut browser = stage.browser();
        let answer = stage.login(&mut browser, "/app/").await;
        page(&answer, 400);
        assert!(!answer.sets_session());
        assert_eq!(stage.idp.login_calls(), (0, 0), "calls after a wrong callback");
    }
    stage.idp.change(|current| *current = good_behaviour);
    accepted_login(&stage).await;

    let silent = Stage::misbehaving(iss(None).discovery(|document| {
        set(document, "authorization_response_iss_parameter_supported", Value::Null);
    }))
    .await;
    accepted_login(&silent).await;
}

/// RP-23: forged key ids cause at most two fetches, and a valid user is not harmed.
#[tokio::test]
async fn unknown_key_ids_cause_few_fetches() {
    let stage = asking_user_info().await;
    accepted_login(&stage).await;
    let before = stage.idp.count(&Endpoint::Jwks);
    let good_behaviour = stage.idp.behaviour();
    let forged = good().header(|header| header["kid"] = json!(random()));
    stage.idp.change(|current| *current = forged);
    for _ in 0..40 {
        let mut browser = stage.browser();
        let answer = stage.login(&mut browser, "/app/").await;
        assert!(!answer.sets_session());
        assert!(matches!(answer.status, 400 | 503), "{answer:?}");
    }
    let fetches = stage.idp.count(&Endpoint::Jwks) - before;
    assert!((1..=2).contains(&fetches), "{fetches} fetches for forged key ids");
    stage.idp.change(|current| *current = good_behaviour);
    accepted_login(&stage).await;
}

/// RP-24.
#[tokio::test]
async fn user_info_is_needed_or_not() {
    let wrong = |reply: Reply| {
        let mut behaviour = good();
        behaviour.user_info_reply = Some(reply);
        behaviour
    };
    let stranger = wrong(Reply::json(200, &json!({ "sub": "mallory", "groups": ["admin"] })));
    let unusable = [
        ("no sub", wrong(Reply::json(200, &json!({ "groups": ["admin"] })))),
        ("an array", wrong(Reply::json(200, &json!([{ "sub": "alice" }])))),
        ("500", wrong(Reply::json(500, &json!({ "sub": "alice" })))),
        ("401", wrong(Reply::json(401, &json!({ "error": "invalid_token" })))),
        ("HTML", wrong(Reply::text(200, "text/html", "<html>"))),
        ("a token signed by nobody", wrong(Reply::text(200, "application/jwt", "e30.e30.AAAA"))),
        ("cut", wrong(Reply::Cut)),
    ];
    // Everything that the rules need is in the ID token, so UserInfo is not asked.
    let stage = Stage::usual().await;
    stage.idp.change(|current| *current = stranger.clone());
    accepted_login(&stage).await;
    assert_eq!(stage.idp.count(&Endpoint::UserInfo), 0);
    drop(stage);
    // The claim that a rule names is only there.
    let stage = Stage::usual().await;
    let sparse = |mut behaviour: Behaviour| {
        set(&mut behaviour.user, "groups", Value::Null);
        behaviour
    };
    stage.idp.change(|current| *current = sparse(stranger));
    refused_login(&stage, 400, 1).await;
    for (what, behaviour) in unusable {
        eprintln!("case: {what}");
        stage.idp.change(|current| *current = sparse(behaviour));
        let answer = refused_login(&stage, 503, 1).await;
        assert_ne!(answer.header("retry-after"), "");
    }
    stage.idp.change(|current| *current = sparse(good()));
    let mut browser = accepted_login(&stage).await;
    browser.navigate(&stage.url("/staff/")).await.expect(200);
}

/// `OIDCUserInfo: auto`: claims that were left out for size are named, and end the login.
#[tokio::test]
async fn an_overage_is_named() {
    let overage = |name: &'static str, value: Value| {
        let mut behaviour = good();
        set(&mut behaviour.user, "groups", Value::Null);
        set(&mut behaviour.user_info, "groups", Value::Null);
        behaviour.user[name] = value;
        behaviour
    };
    for behaviour in [overage("_claim_names", json!({ "groups": "src1" })), overage("hasgroups", json!(true))]
    {
        let stage = Stage::misbehaving(behaviour).await;
        let mut browser = stage.browser();
        let answer = stage.login(&mut browser, "/app/").await;
        assert!((400..600).contains(&answer.status), "{answer:?}");
        assert!(answer.text().contains("groups"), "the page names the claim: {}", answer.text());
        assert!(!answer.sets_session());
        let event = stage.proxy.event("login-failed").await;
        assert!(event.to_string().contains("groups"), "the log names the claim: {event}");
    }
}

/// RP-25 and `OIDCClientAuthentication`.
#[tokio::test]
async fn odd_client_credentials_are_form_encoded() {
    use crate::support::idp::ClientAuthentication::{Basic, Post};
    for (method, configured, offered) in [
        (Basic, "auto", None),
        (Basic, "auto", Some(json!(["client_secret_post", "client_secret_basic"]))),
        (Post, "auto", Some(json!(["client_secret_post"]))),
        (Post, "post", None),
        (Basic, "basic", Some(json!(["client_secret_post"]))),
    ] {
        eprintln!("case: {method:?} by {configured} where {offered:?} is offered");
        let mut behaviour = good().discovery(move |document| {
            set(document, "token_endpoint_auth_methods_supported", offered.clone().unwrap_or(Value::Null));
        });
        behaviour.client_id = "client:with % + and é".into();
        behaviour.client_secret = "secret:with % + & = and é $".into();
        behaviour.client_authentication = method;
        let stage = Stage::with(|plan| {
            plan.behaviour = behaviour;
            plan.set("OIDCClientAuthentication", json!(configured));
        })
        .await;
        accepted_login(&stage).await;
    }
}

/// RP-28.
#[tokio::test]
async fn an_error_of_the_provider_is_a_page() {
    let stage = asking_user_info().await;
    let denied = good().callback(|parameters| {
        parameters.retain(|(name, _)| name != "code");
        parameters.push(("error".into(), "access_denied".into()));
        parameters.push(("error_description".into(), "<script>alert('you-are-here')</script>".into()));
        parameters.push(("error_uri".into(), "javascript:alert(1)".into()));
    });
    stage.idp.change(|current| *current = denied);
    let mut browser = stage.browser();
    let answer = stage.login(&mut browser, "/app/").await;
    page(&answer, 403);
    assert!(!answer.text().contains("you-are-here'"), "reflected: {}", answer.text());
    assert!(!answer.text().contains("javascript:"), "reflected: {}", answer.text());
    assert!(answer.text().contains("/aporeto/oidc/login"), "a sign-in link: {}", answer.text());
    assert_eq!(stage.idp.login_calls(), (0, 0));
    assert!(!answer.sets_session());
}

/// An expired, missing or odd `token_type`, `expires_in` and the like, as real providers answer.
#[tokio::test]
async fn token_answers_vary() {
    let stage = asking_user_info().await;
    let response = |change: fn(&mut Value)| {
        let mut behaviour = good();
        behaviour.token_response = std::sync::Arc::new(change);
        behaviour
    };
    let right = vec![
        ("no expires_in", response(|body| set(body, "expires_in", Value::Null))),
        ("expires_in is a string", response(|body| body["expires_in"] = json!("300"))),
        ("token_type in lower case", response(|body| body["token_type"] = json!("bearer"))),
        ("more than needed", response(|body| body["scope"] = json!("openid"))),
        ("a refresh token", response(|body| body["refresh_token"] = json!(random()))),
    ];
    all_accepted(&stage, right).await;
    let wrong = vec![("no ID token", response(|body| set(body, "id_token", Value::Null)))];
    all_refused(&stage, wrong).await;
}

/// The same signature bytes, written with bits behind the last byte that are not zero (RFC 4648 section 3.5).
fn non_canonical(token: String) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = token.split_at(token.len() - 1);
    let value = ALPHABET.iter().position(|letter| *letter == last.as_bytes()[0]).unwrap();
    assert_eq!(value & 0b1111, 0, "64 bytes leave four bits over");
    format!("{rest}{}", char::from(ALPHABET[value | 1]))
}

/// The token with its subject changed after the signature.
fn replace_claims(token: &str) -> String {
    use base64::Engine as _;
    let parts: Vec<&str> = token.split('.').collect();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["sub"] = json!("mallory");
    format!("{}.{}.{}", parts[0], encode(claims.to_string()), parts[2])
}
