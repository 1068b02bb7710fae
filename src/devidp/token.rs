//! The token endpoint (OpenID Connect Core section 3.1.3) and UserInfo (section 5.3).

use aws_lc_rs::error::Unspecified;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::authorize::STRONGER;
use super::client::Client;
use super::grants;
use super::idp::{Access, DevIdp, Login, OFFLINE_ACCESS, Spent, TOKEN_LIFETIME};
use super::key;
use super::memory::Memory;
use super::parameters::Parameters;

/// Who is given tokens, about whom, and for what.
#[derive(Clone, Copy)]
pub(super) struct Person<'a> {
    pub(super) client_id: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) login: &'a Login,
}

/// Why no token is given (RFC 6749 section 5.2).
pub(super) enum Refusal {
    InvalidClient,
    InvalidRequest(&'static str),
    InvalidGrant(&'static str),
    UnsupportedGrantType,
    NoRandomness,
}

impl DevIdp {
    /// Exchanges a code or a refresh token, once.
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
            Some("authorization_code") => self.exchange_code(&sent, client),
            Some("refresh_token") => self.refresh(&sent, client),
            Some(_) => Err(Refusal::UnsupportedGrantType),
            None => Err(Refusal::InvalidRequest("grant_type is missing")),
        }
    }

    fn exchange_code(&self, sent: &Parameters, client: &Client) -> Result<Value, Refusal> {
        let needed = |name, why| sent.get(name).ok_or(Refusal::InvalidRequest(why));
        let name = needed("code", "code is missing")?;
        let redirect_uri = needed("redirect_uri", "redirect_uri is missing")?;
        let verifier = needed("code_verifier", "code_verifier is missing")?;

        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let code = state.codes.find(name, now).filter(|code| code.client_id == client.id);
        let code = code.ok_or(Refusal::InvalidGrant("the code is unknown, too old, or another client's"))?;
        if let Some(spent) = code.spent_on.clone() {
            // Somebody has the code who should not: what it was exchanged for ends too (RFC 6749 section 4.1.2).
            state.tokens.forget(&spent.access_token);
            if let Some(grant) = spent.grant {
                state.end_grant(&grant, now);
            }
            return Err(Refusal::InvalidGrant("the code has been used"));
        }
        if code.redirect_uri != redirect_uri {
            return Err(Refusal::InvalidGrant("redirect_uri is not that of the authorization request"));
        }
        if key::challenge(verifier) != code.challenge {
            return Err(Refusal::InvalidGrant("code_verifier does not fit code_challenge"));
        }
        let person = Person { client_id: &code.client_id, scopes: &code.scopes, login: &code.login };
        let (access_token, mut tokens) = self.issue(&mut state.tokens, person, code.nonce.as_deref())?;
        let mut grant = None;
        if code.scopes.iter().any(|scope| scope == OFFLINE_ACCESS) {
            let (name, refresh_token) = grants::begin(&mut state.grants, person, &access_token, now)?;
            tokens.insert("refresh_token".to_owned(), json!(refresh_token));
            grant = Some(name);
        }
        code.spent_on = Some(Spent { access_token, grant });
        Ok(Value::Object(tokens))
    }

    /// A fresh access token, and the answer that brings it with an ID token.
    pub(super) fn issue(
        &self,
        kept: &mut Memory<Access>,
        person: Person<'_>,
        nonce: Option<&str>,
    ) -> Result<(String, Map<String, Value>), Refusal> {
        let access = Access { user: person.login.user.clone(), scopes: person.scopes.to_vec() };
        let access_token = kept.keep(access, self.clock.now())?;
        let id_token = self.key.sign(&self.id_token(person, nonce, &access_token))?;
        let mut tokens = Map::new();
        for (name, value) in [
            ("access_token", json!(access_token)),
            ("token_type", json!("Bearer")),
            ("expires_in", json!(TOKEN_LIFETIME.as_secs())),
            ("scope", json!(person.scopes.join(" "))),
            ("id_token", json!(id_token)),
        ] {
            tokens.insert(name.to_owned(), value);
        }
        Ok((access_token, tokens))
    }

    /// By `client_secret_basic` or `client_secret_post`, never both (RFC 6749 section 2.3.1).
    pub(super) fn authenticate(&self, sent: &Parameters, headers: &HeaderMap) -> Result<&Client, Refusal> {
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
    fn id_token(&self, person: Person<'_>, nonce: Option<&str>, access_token: &str) -> Value {
        let now = self.clock.now();
        let login = person.login;
        let mut claims = login.user.claims_for(person.scopes);
        let methods = if login.acr == STRONGER { json!(["pwd", "otp"]) } else { json!(["pwd"]) };
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(person.client_id)),
            ("iat", json!(now)),
            ("exp", json!(now.plus(TOKEN_LIFETIME))),
            ("auth_time", json!(login.at)),
            ("acr", json!(login.acr)),
            ("amr", methods),
            ("sid", json!(login.sid)),
            ("at_hash", json!(key::half_hash(access_token))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        if let Some(nonce) = nonce {
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
    pub(super) fn answer(self) -> Answer {
        let (status, error, description) = match self {
            Refusal::InvalidClient => (401, "invalid_client", "the client is unknown or its secret is wrong"),
            Refusal::InvalidRequest(what) => (400, "invalid_request", what),
            Refusal::InvalidGrant(what) => (400, "invalid_grant", what),
            Refusal::UnsupportedGrantType => {
                (400, "unsupported_grant_type", "only authorization_code and refresh_token")
            }
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
