//! The token endpoint (OpenID Connect Core section 3.1.3) and UserInfo (section 5.3).

use aws_lc_rs::error::Unspecified;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::authorize::STRONGER;
use super::client::Client;
use super::idp::{Access, Code, DevIdp, TOKEN_LIFETIME};
use super::key;
use super::parameters::Parameters;

/// Why no token is given (RFC 6749 section 5.2).
enum Refusal {
    InvalidClient,
    InvalidRequest(&'static str),
    InvalidGrant(&'static str),
    UnsupportedGrantType,
    NoRandomness,
}

impl DevIdp {
    /// Exchanges a code, once.
    pub(super) fn token(&self, sent: &[u8], headers: &HeaderMap) -> Answer {
        match self.exchange(sent, headers) {
            Ok(tokens) => answer::json(StatusCode::OK, &tokens),
            Err(refusal) => refusal.answer(),
        }
    }

    /// The claims that the scopes of an access token give.
    pub(super) fn user_info(&self, headers: &HeaderMap) -> Answer {
        let token = credentials(headers, "bearer");
        let mut state = self.state();
        match token.and_then(|token| state.tokens.find(token, self.clock.now())) {
            Some(access) => {
                answer::json(StatusCode::OK, &Value::Object(access.user.claims_for(&access.scopes)))
            }
            None => {
                let mut answer = answer::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" }));
                let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                answer
            }
        }
    }

    fn exchange(&self, sent: &[u8], headers: &HeaderMap) -> Result<Value, Refusal> {
        let sent = Parameters::parse(sent).map_err(|_| Refusal::InvalidRequest("a parameter came twice"))?;
        let client = self.authenticate(&sent, headers)?;
        match sent.get("grant_type") {
            Some("authorization_code") => {}
            Some(_) => return Err(Refusal::UnsupportedGrantType),
            None => return Err(Refusal::InvalidRequest("grant_type is missing")),
        }
        let needed = |name, why| sent.get(name).ok_or(Refusal::InvalidRequest(why));
        let name = needed("code", "code is missing")?;
        let redirect_uri = needed("redirect_uri", "redirect_uri is missing")?;
        let verifier = needed("code_verifier", "code_verifier is missing")?;

        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let code = state.codes.find(name, now).filter(|code| code.client_id == client.id);
        let code = code.ok_or(Refusal::InvalidGrant("the code is unknown, too old, or another client's"))?;
        if let Some(token) = &code.spent_on {
            // Somebody has the code who should not: what it was exchanged for ends too (RFC 6749 section 4.1.2).
            state.tokens.forget(token);
            return Err(Refusal::InvalidGrant("the code has been used"));
        }
        if code.redirect_uri != redirect_uri {
            return Err(Refusal::InvalidGrant("redirect_uri is not that of the authorization request"));
        }
        if key::challenge(verifier) != code.challenge {
            return Err(Refusal::InvalidGrant("code_verifier does not fit code_challenge"));
        }
        let access = Access { user: code.login.user.clone(), scopes: code.scopes.clone() };
        let token = state.tokens.keep(access, now)?;
        code.spent_on = Some(token.clone());
        Ok(json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME.as_secs(),
            "scope": code.scopes.join(" "),
            "id_token": self.key.sign(&self.id_token(code, &token))?,
        }))
    }

    /// By `client_secret_basic` or `client_secret_post`, never both (RFC 6749 section 2.3.1).
    fn authenticate(&self, sent: &Parameters, headers: &HeaderMap) -> Result<&Client, Refusal> {
        let basic = credentials(headers, "basic");
        let posted = sent.get("client_secret");
        let (id, secret) = match (basic, posted) {
            (Some(_), Some(_)) => return Err(Refusal::InvalidRequest("two kinds of client authentication")),
            (Some(basic), None) => basic_credentials(basic).ok_or(Refusal::InvalidClient)?,
            (None, Some(secret)) => (sent.get("client_id").unwrap_or_default().to_owned(), secret.to_owned()),
            (None, None) => return Err(Refusal::InvalidClient),
        };
        self.client(&id).filter(|client| client.has_secret(&secret)).ok_or(Refusal::InvalidClient)
    }

    /// OpenID Connect Core section 2, with the claims that the scopes give.
    fn id_token(&self, code: &Code, access_token: &str) -> Value {
        let now = self.clock.now();
        let login = &code.login;
        let mut claims = login.user.claims_for(&code.scopes);
        let methods = if login.acr == STRONGER { json!(["pwd", "otp"]) } else { json!(["pwd"]) };
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(code.client_id)),
            ("iat", json!(now)),
            ("exp", json!(now.plus(TOKEN_LIFETIME))),
            ("auth_time", json!(login.at)),
            ("acr", json!(login.acr)),
            ("amr", methods),
            ("at_hash", json!(key::half_hash(access_token))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        if let Some(nonce) = &code.nonce {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        Value::Object(claims)
    }
}

impl From<Unspecified> for Refusal {
    fn from(Unspecified: Unspecified) -> Self {
        Refusal::NoRandomness
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        let (status, error, description) = match self {
            Refusal::InvalidClient => (401, "invalid_client", "the client is unknown or its secret is wrong"),
            Refusal::InvalidRequest(what) => (400, "invalid_request", what),
            Refusal::InvalidGrant(what) => (400, "invalid_grant", what),
            Refusal::UnsupportedGrantType => (400, "unsupported_grant_type", "only authorization_code"),
            Refusal::NoRandomness => (500, "server_error", "the random number generator does not work"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut answer = answer::json(status, &json!({ "error": error, "error_description": description }));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"token endpoint\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

/// What follows `scheme` in the Authorization field. Schemes know no case (RFC 9110 section 11.1).
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let field = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, credentials) = field.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then_some(credentials.trim())
}

/// Id and secret are form-urlencoded before they are joined (RFC 6749 section 2.3.1).
fn basic_credentials(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    Some((decode(id)?, decode(secret)?))
}
