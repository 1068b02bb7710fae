//! The provider: what it knows, and which endpoint answers what.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use askama::Template;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::answer::{self, Answer};
use super::authorize::STRONGER;
use super::client::Client;
use super::key::{KeyError, SigningKey};
use super::memory::Memory;
use super::serve::{self, ServeError, Site};
use super::user::User;
use crate::clock::{Clock, UnixTime};

/// A development identity provider.
pub struct DevIdp {
    pub(super) issuer: String,
    pub(super) clients: Vec<Client>,
    pub(super) users: Vec<User>,
    pub(super) key: SigningKey,
    pub(super) clock: Clock,
    state: Mutex<State>,
}

/// What changes while it runs.
pub(super) struct State {
    pub(super) codes: Memory<Code>,
    pub(super) tokens: Memory<Access>,
    pub(super) grants: Memory<Grant>,
    pub(super) logins: Memory<Login>,
}

/// Somebody signed in, at some time, in some way.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: User,
    pub(super) at: UnixTime,
    /// The authentication context class (`acr`).
    pub(super) acr: &'static str,
    /// Names this login to the clients (`sid`); it opens nothing.
    pub(super) sid: String,
}

/// What a code was given for.
pub(super) struct Code {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) login: Login,
    /// What it was exchanged for.
    pub(super) spent_on: Option<Spent>,
}

/// What a code was exchanged for: the names of the access token and of the grant.
#[derive(Clone)]
pub(super) struct Spent {
    pub(super) access_token: String,
    pub(super) grant: Option<String>,
}

/// What an access token gives: the claims of a user by scopes.
pub(super) struct Access {
    pub(super) user: User,
    pub(super) scopes: Vec<String>,
}

/// What a client may go on asking for without the person (`offline_access`). Its refresh tokens rotate.
pub(super) struct Grant {
    pub(super) client_id: String,
    pub(super) scopes: Vec<String>,
    pub(super) login: Login,
    /// The secret half of the one refresh token that is good now.
    pub(super) secret: String,
    /// The access token that came with it.
    pub(super) access_token: String,
}

impl DevIdp {
    /// A provider under the name `issuer`, which is the address of its listener without a trailing slash, for
    /// example `http://127.0.0.1:9000`. (`localhost` would work, but there the browser would send it the
    /// cookies of everything else on that name, whatever the port.)
    ///
    /// # Errors
    /// The system has no randomness for a key.
    pub fn new(issuer: &str, clients: Vec<Client>, users: Vec<User>, clock: Clock) -> Result<Self, KeyError> {
        let state = State {
            codes: Memory::new(CODE_LIFETIME),
            tokens: Memory::new(TOKEN_LIFETIME),
            grants: Memory::new(GRANT_LIFETIME),
            logins: Memory::new(LOGIN_LIFETIME),
        };
        let key = SigningKey::generate()?;
        Ok(Self { issuer: issuer.to_owned(), clients, users, key, clock, state: Mutex::new(state) })
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// `listener` is not on loopback.
    pub async fn serve(self, listener: TcpListener) -> Result<Infallible, ServeError> {
        serve::serve(listener, Arc::new(self)).await
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, so that the state is sound even after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    fn route(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let get = matches!(*method, Method::GET | Method::HEAD);
        let post = *method == Method::POST;
        let sent = if post { body } else { query.as_bytes() };
        match path {
            "/" if get => self.front_page(),
            "/.well-known/openid-configuration" if get => answer::json(StatusCode::OK, &self.discovery()),
            "/jwks" if get => answer::json(StatusCode::OK, &self.key.public_set()),
            "/authorize" if get || post => self.authorize(sent, headers),
            "/login" if post => self.login(body, headers),
            "/token" if post => self.token(body, headers),
            "/revoke" if post => self.revoke(body, headers),
            "/userinfo" if get || post => self.user_info(headers),
            "/logout" if get || post => self.logout(sent, headers),
            "/" | "/.well-known/openid-configuration" | "/jwks" => wrong_method("GET, HEAD"),
            "/login" | "/token" | "/revoke" => wrong_method("POST"),
            "/authorize" | "/userinfo" | "/logout" => wrong_method("GET, HEAD, POST"),
            _ => answer::text(StatusCode::NOT_FOUND, "there is nothing here\n"),
        }
    }

    /// OpenID Connect Discovery section 3.
    fn discovery(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/jwks"),
            "end_session_endpoint": at("/logout"),
            "revocation_endpoint": at("/revoke"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "groups", OFFLINE_ACCESS],
            "claims_supported": [
                "sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "name", "given_name",
                "family_name", "preferred_username", "email", "email_verified", "groups"
            ],
            "acr_values_supported": [super::authorize::ORDINARY, STRONGER],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "claims_parameter_supported": false,
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
            "authorization_response_iss_parameter_supported": true,
        })
    }

    fn front_page(&self) -> Answer {
        let page = FrontPage { style: STYLE, issuer: &self.issuer, users: &self.users };
        answer::page(StatusCode::OK, &page, &policy(""))
    }
}

impl Site for DevIdp {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MOST_BODY_BYTES).collect().await else {
            return answer::text(StatusCode::PAYLOAD_TOO_LARGE, "that is too much\n");
        };
        let query = head.uri.query().unwrap_or_default();
        self.route(&head.method, head.uri.path(), query, &head.headers, &body.to_bytes())
    }
}

/// The content security policy of our pages; `form_targets` are origins that a form may lead to beside ourselves.
pub(super) fn policy(form_targets: &str) -> String {
    let style = answer::hash_source(STYLE);
    format!(
        "default-src 'none'; style-src {style}; form-action 'self' {form_targets}; frame-ancestors 'none'; base-uri 'none'"
    )
}

fn wrong_method(allow: &'static str) -> Answer {
    let mut answer = answer::text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

/// What a person sees who opens the issuer's address.
#[derive(Template)]
#[template(path = "idp_front.html")]
struct FrontPage<'a> {
    style: &'static str,
    issuer: &'a str,
    users: &'a [User],
}

/// The style sheet of the provider's pages.
pub(super) const STYLE: &str = include_str!("pages/idp.css");

/// RFC 6749 section 4.1.2 recommends at most ten minutes; a redirect takes less than one.
const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// The scope that a refresh token is given for (OpenID Connect Core section 11).
pub(super) const OFFLINE_ACCESS: &str = "offline_access";
/// How long the ID and access tokens are valid: short, so that refreshes are seen.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
/// How long a client may go on refreshing.
const GRANT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the provider itself remembers who signed in.
const LOGIN_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Most bytes of a form.
const MOST_BODY_BYTES: usize = 64 * 1024;
