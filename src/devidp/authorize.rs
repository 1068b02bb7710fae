//! The authorization endpoint and its login page (OpenID Connect Core section 3.1.2).

use std::time::Duration;

use askama::Template;
use aws_lc_rs::error::Unspecified;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use url::Url;

use super::answer::{self, Answer};
use super::idp::{Code, DevIdp, Login, STYLE, policy};
use super::key;
use super::parameters::Parameters;
use super::user::User;
use crate::clock::UnixTime;

/// The `acr` of a click on a name.
pub(super) const ORDINARY: &str = "pwd";
/// The `acr` of a click on a name with the box for a second factor ticked.
pub(super) const STRONGER: &str = "mfa";

/// A request that may be answered at its client.
struct Authorization {
    client_id: String,
    redirect_uri: String,
    state: Option<String>,
    nonce: Option<String>,
    challenge: String,
    scopes: Vec<String>,
    acr_values: Vec<String>,
    max_age: Option<Duration>,
    prompt: Vec<String>,
}

/// Why a request is not served, and who may be told.
enum Refusal {
    /// The person only: it is not certain where an answer may go.
    Here(&'static str),
    /// The client.
    Back(Box<Error>),
}

struct Error {
    redirect_uri: String,
    state: Option<String>,
    code: &'static str,
    description: &'static str,
}

/// Endpoints.
impl DevIdp {
    /// Begins a login: mostly by showing the login page.
    pub(super) fn authorize(&self, sent: &[u8], headers: &HeaderMap) -> Answer {
        let request = match Parameters::parse(sent) {
            Ok(parameters) => self.read(&parameters),
            Err(_repeated) => Err(Refusal::Here("A parameter of the request came twice.")),
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal),
        };
        let current = self.current(headers).filter(|login| request.accepts(login, self.clock.now()));
        if !request.has_prompt("none") {
            return self.login_page(&request, sent, current.as_ref());
        }
        match current {
            Some(login) => self.grant(request, login),
            None => self.refuse(request.refused("login_required", "nobody is signed in, or not well enough")),
        }
    }

    /// The login page's form: somebody was chosen, or nobody.
    pub(super) fn login(&self, sent: &[u8], headers: &HeaderMap) -> Answer {
        // Another site may lead to the login page, but may not fill it in.
        if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
            return answer::text(StatusCode::FORBIDDEN, "this form was sent by another site\n");
        }
        let form = Parameters::parse(sent);
        let Ok(form) = form else { return answer::text(StatusCode::BAD_REQUEST, "a field came twice\n") };
        let original = form.get("request").unwrap_or_default().as_bytes();
        let request = match Parameters::parse(original) {
            Ok(parameters) => self.read(&parameters),
            Err(_repeated) => Err(Refusal::Here("A parameter of the request came twice.")),
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal),
        };
        if form.get("cancel").is_some() {
            return self.refuse(request.refused("access_denied", "the user said no"));
        }
        if form.get("continue").is_some() {
            let current = self.current(headers).filter(|login| request.accepts(login, self.clock.now()));
            return match current {
                Some(login) => self.grant(request, login),
                None => self.login_page(&request, original, None),
            };
        }
        let chosen = form.get("user");
        let Some(user) = self.users.iter().find(|user| Some(user.login.as_str()) == chosen) else {
            return self.login_page(&request, original, None);
        };
        let acr = if form.get("second_factor").is_some() { STRONGER } else { ORDINARY };
        let Ok(sid) = key::random_token() else { return no_randomness() };
        let login = Login { user: user.clone(), at: self.clock.now(), acr, sid };
        let Ok(session) = self.state().logins.keep(login.clone(), login.at) else { return no_randomness() };
        let mut answer = self.grant(request, login);
        set_cookie(&mut answer, &session, "");
        answer
    }

    /// OpenID Connect RP-Initiated Logout section 2. Goes back only to an origin that logins come from; where the
    /// client is named, to its own. `id_token_hint` is not needed, for the browser's cookie says who is here.
    pub(super) fn logout(&self, sent: &[u8], headers: &HeaderMap) -> Answer {
        if let Some(session) = session_cookie(headers) {
            self.state().logins.forget(session);
        }
        let target = Parameters::parse(sent).ok().and_then(|parameters| {
            let mut target = Url::parse(parameters.get("post_logout_redirect_uri")?).ok()?;
            let named = parameters.get("client_id");
            let mut asking = self.clients.iter().filter(|client| named.is_none_or(|id| client.id == id));
            let known = asking.any(|client| client.may_get_back_to(&target));
            if let Some(state) = parameters.get("state").filter(|_| known) {
                target.query_pairs_mut().append_pair("state", state);
            }
            known.then_some(target)
        });
        let mut answer = match target {
            Some(target) => answer::see_other(target.as_str()),
            None => notice(
                StatusCode::OK,
                "You are signed out",
                "This identity provider has forgotten who you were.",
            ),
        };
        set_cookie(&mut answer, "", "; Max-Age=0");
        answer
    }
}

/// Steps of an authorization.
impl DevIdp {
    /// Checks a request: first what decides where an answer may go, then the rest.
    fn read(&self, sent: &Parameters) -> Result<Authorization, Refusal> {
        let client = sent.get("client_id").and_then(|id| self.client(id));
        let client = client.ok_or(Refusal::Here("The application that sent you here is not known."))?;
        let redirect_uri = sent.get("redirect_uri").filter(|uri| client.may_be_answered_at(uri));
        let redirect_uri = redirect_uri.ok_or(Refusal::Here(
            "The address to go back to is not one that the application has registered.",
        ))?;
        let owned = |name| sent.get(name).map(str::to_owned);
        let refuse = |code, description| {
            let (redirect_uri, state) = (redirect_uri.to_owned(), owned("state"));
            Err(Refusal::Back(Box::new(Error { redirect_uri, state, code, description })))
        };

        if sent.get("request").is_some() {
            return refuse("request_not_supported", "request objects are not supported");
        }
        if sent.get("request_uri").is_some() {
            return refuse("request_uri_not_supported", "request objects are not supported");
        }
        if sent.get("response_type") != Some("code") {
            return refuse("unsupported_response_type", "response_type must be code");
        }
        if sent.get("response_mode").is_some_and(|mode| mode != "query") {
            return refuse("invalid_request", "response_mode must be query");
        }
        let scopes = sent.words("scope");
        if !scopes.iter().any(|scope| scope == "openid") {
            return refuse("invalid_scope", "scope must contain openid");
        }
        let challenge =
            sent.get("code_challenge").filter(|_| sent.get("code_challenge_method") == Some("S256"));
        let Some(challenge) = challenge else {
            return refuse("invalid_request", "PKCE with code_challenge_method=S256 is needed");
        };
        let Ok(max_age) = sent.get("max_age").map(str::parse).transpose() else {
            return refuse("invalid_request", "max_age must be a number of seconds");
        };
        let prompt = sent.words("prompt");
        if prompt.len() > 1 && prompt.iter().any(|word| word == "none") {
            return refuse("invalid_request", "prompt=none goes with nothing else");
        }
        Ok(Authorization {
            client_id: client.id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            state: owned("state"),
            nonce: owned("nonce"),
            challenge: challenge.to_owned(),
            scopes,
            acr_values: sent.words("acr_values"),
            max_age: max_age.map(Duration::from_secs),
            prompt,
        })
    }

    /// Who this browser is signed in as.
    fn current(&self, headers: &HeaderMap) -> Option<Login> {
        let session = session_cookie(headers)?;
        self.state().logins.find(session, self.clock.now()).cloned()
    }

    fn login_page(&self, request: &Authorization, sent: &[u8], current: Option<&Login>) -> Answer {
        let redirect = Url::parse(&request.redirect_uri);
        let origin = redirect.map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        let page = LoginPage {
            style: STYLE,
            client: &request.client_id,
            request: &String::from_utf8_lossy(sent),
            users: &self.users,
            current: current.map(|login| (login, ago(login.at, self.clock.now()))),
            stronger: request.acr_values.iter().any(|acr| acr == STRONGER),
        };
        // Browsers hold `form-action` against redirects too, so that the client's origin has to be in it.
        answer::page(StatusCode::OK, &page, &policy(&origin))
    }

    /// Sends the browser back with a code.
    fn grant(&self, request: Authorization, login: Login) -> Answer {
        let code = Code {
            client_id: request.client_id,
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge,
            nonce: request.nonce,
            scopes: request.scopes,
            login,
            spent_on: None,
        };
        let kept = self.state().codes.keep(code, self.clock.now());
        match kept {
            Ok(code) => self.send_back(&request.redirect_uri, request.state, &[("code", &code)]),
            Err(Unspecified) => no_randomness(),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Here(what) => notice(StatusCode::BAD_REQUEST, "This sign-in cannot begin", what),
            Refusal::Back(error) => {
                let Error { redirect_uri, state, code, description } = *error;
                self.send_back(&redirect_uri, state, &[("error", code), ("error_description", description)])
            }
        }
    }

    fn send_back(&self, redirect_uri: &str, state: Option<String>, answer: &[(&str, &str)]) -> Answer {
        let Ok(mut target) = Url::parse(redirect_uri) else {
            return notice(
                StatusCode::BAD_REQUEST,
                "This sign-in cannot go on",
                "The address to go back to is none.",
            );
        };
        {
            let mut query = target.query_pairs_mut();
            query.extend_pairs(answer);
            if let Some(state) = state {
                query.append_pair("state", &state);
            }
            // RFC 9207: tells the client that this answer is ours.
            query.append_pair("iss", &self.issuer);
        }
        answer::see_other(target.as_str())
    }
}

impl Authorization {
    fn has_prompt(&self, word: &str) -> bool {
        self.prompt.iter().any(|other| other == word)
    }

    /// Whether an earlier login is enough for this request.
    fn accepts(&self, login: &Login, now: UnixTime) -> bool {
        let fresh = self.max_age.is_none_or(|max_age| now.since(login.at) <= max_age);
        let strong = self.acr_values.is_empty() || self.acr_values.iter().any(|acr| acr == login.acr);
        fresh && strong && !self.has_prompt("login")
    }

    fn refused(self, code: &'static str, description: &'static str) -> Refusal {
        let Authorization { redirect_uri, state, .. } = self;
        Refusal::Back(Box::new(Error { redirect_uri, state, code, description }))
    }
}

/// "3 minutes ago".
fn ago(then: UnixTime, now: UnixTime) -> String {
    match now.since(then).as_secs() / 60 {
        0 => "just now".to_owned(),
        1 => "a minute ago".to_owned(),
        minutes @ 2..120 => format!("{minutes} minutes ago"),
        minutes => format!("{} hours ago", minutes / 60),
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))
}

fn set_cookie(answer: &mut Answer, value: &str, attributes: &str) {
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{attributes}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

fn notice(status: StatusCode, title: &str, text: &str) -> Answer {
    answer::page(status, &Notice { style: STYLE, title, text }, &policy(""))
}

fn no_randomness() -> Answer {
    answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the random number generator does not work\n")
}

/// Everybody there is, as a form.
#[derive(Template)]
#[template(path = "idp_login.html")]
struct LoginPage<'a> {
    style: &'static str,
    client: &'a str,
    request: &'a str,
    users: &'a [User],
    current: Option<(&'a Login, String)>,
    stronger: bool,
}

/// A heading and a sentence.
#[derive(Template)]
#[template(path = "idp_notice.html")]
struct Notice<'a> {
    style: &'static str,
    title: &'a str,
    text: &'a str,
}

/// The provider's own session.
const COOKIE: &str = "portcullis-dev-idp";
