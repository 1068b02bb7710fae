//! Every answer that Portcullis gives itself, by a named constructor of [`Reply`]: redirects, pages for people,
//! problem details for programs. Knows status codes and words; who gets which answer is decided elsewhere.
//!
//! All of them are `no-store`, carry the request id, and can neither be framed nor run a script. Cookies,
//! CORS fields and `Strict-Transport-Security` are added by the caller.

use std::borrow::Cow;
use std::time::Duration;

use askama::Template as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::clock::UnixTime;
use crate::web::Body;
pub use crate::web::challenge::StepUp;
use crate::web::page::{self, Extra, Form, Gate, HOME, Link, Page};
pub use crate::web::page::{Because, Need, Refusal};
use crate::web::problem::{self, Problem};

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Somebody before a browser: gets a page.
    Person,
    /// Everything else: gets problem details as JSON.
    Program,
}

/// What every answer to one request has in common. The constructors make the answers.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Who reads it.
    pub audience: Audience,
    /// The id that is also in the log.
    pub request_id: &'a str,
    /// The service that the request is for; `None` before that is known.
    pub service: Option<&'a str>,
}

/// What `/aporeto/oidc/session` tells about a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionState<'a> {
    /// The `sub` of the user.
    pub subject: &'a str,
    /// The issuer that vouches for it.
    pub issuer: &'a str,
    /// When the session ends whatever happens.
    pub expires_at: UnixTime,
    /// When it ends if it is not used.
    pub idle_expires_at: UnixTime,
}

/// Redirects. The location must be an address of ours or one that the configuration or the provider's
/// discovery names: nothing here checks it.
impl Reply<'_> {
    /// 302: to the provider, to the canonical host, or to the failure address of the configuration.
    pub fn found(&self, location: &str) -> Response<Body> {
        self.redirect(StatusCode::FOUND, location)
    }

    /// 303: on with a GET, whatever this request was.
    pub fn see_other(&self, location: &str) -> Response<Body> {
        self.redirect(StatusCode::SEE_OTHER, location)
    }

    /// 308: the same request again, over there. From the plain listeners to https.
    pub fn permanent_redirect(&self, location: &str) -> Response<Body> {
        self.redirect(StatusCode::PERMANENT_REDIRECT, location)
    }

    fn redirect(&self, status: StatusCode, location: &str) -> Response<Body> {
        let Ok(location) = HeaderValue::try_from(location) else { return self.internal_error() };
        let mut response = self.bare(status, Body::Empty);
        response.headers_mut().insert(header::LOCATION, location);
        response
    }
}

/// Answers of the reserved paths that are not refusals.
impl Reply<'_> {
    /// 200: what the session endpoint tells. Times are RFC 3339, UTC.
    pub fn session(&self, session: &SessionState<'_>) -> Response<Body> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct State<'a> {
            subject: &'a str,
            issuer: &'a str,
            expires_at: String,
            idle_expires_at: String,
        }
        let state = State {
            subject: session.subject,
            issuer: session.issuer,
            expires_at: session.expires_at.to_string(),
            idle_expires_at: session.idle_expires_at.to_string(),
        };
        match serde_json::to_string(&state) {
            Ok(json) => self.text(StatusCode::OK, "application/json", json),
            Err(_) => self.internal_error(),
        }
    }

    /// 200: asks whether to sign out, with one form that posts `token` to `action`; from there the browser goes on to
    /// `way_out`, the provider's own logout, if there is one.
    pub fn logout_form(&self, action: &str, token: &str, way_out: Option<&str>) -> Response<Body> {
        let mut response = self.page(&Notice {
            gate: Gate::Open,
            extra: Extra::Form(Form { action, token }),
            ..Notice::new(
                StatusCode::OK,
                "logout",
                "Sign out?",
                match way_out {
                    Some(_) => {
                        "This ends your session here and at your identity provider. To use this site again you will have \
                         to sign in again."
                    }
                    None => "This ends your session here. To use this site again you will have to sign in again.",
                },
                "",
            )
        });
        if let Some(way_out) = way_out {
            let policy = page::policy_with_way_out(way_out);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    /// 200: there is no session (any more). Answers a GET; [`Reply::logged_out`] answers the logout itself.
    /// `at_provider`: the browser comes back from the provider's own logout.
    pub fn signed_out(&self, at_provider: bool) -> Response<Body> {
        let next = match at_provider {
            true => "",
            false => {
                "Your identity provider may still remember you. On a computer that you share, sign out there too."
            }
        };
        self.page(&Notice {
            gate: Gate::Shut,
            next: next.into(),
            links: vec![HOME],
            ..Notice::new(
                StatusCode::OK,
                "signed-out",
                "You are signed out",
                "Your session here has ended.",
                "",
            )
        })
    }

    /// 200: the session has just been ended. Also empties the browser's cache of what the session showed.
    pub fn logged_out(&self) -> Response<Body> {
        Self::without_cache(self.signed_out(false))
    }

    /// The session has just been ended here; now it is the provider's turn. A navigation goes there (303); a program,
    /// whose fetch could not follow to another origin, is told where its page has to go.
    pub fn log_out_at(&self, location: &str) -> Response<Body> {
        let response = match self.audience {
            Audience::Person => self.see_other(location),
            Audience::Program => match serde_json::to_string(&serde_json::json!({ "logout": location })) {
                Ok(json) => self.text(StatusCode::OK, "application/json", json),
                Err(_) => self.internal_error(),
            },
        };
        Self::without_cache(response)
    }

    /// 200: the provider's message has been taken (Back-Channel Logout 1.0 section 2.8).
    pub fn acknowledged(&self) -> Response<Body> {
        self.bare(StatusCode::OK, Body::Empty)
    }

    /// The same, for a frame on a page of `origin` (Front-Channel Logout 1.0 section 3).
    pub fn acknowledged_in_frame(&self, origin: &str) -> Response<Body> {
        let mut response = self.acknowledged();
        let headers = response.headers_mut();
        headers.remove(header::X_FRAME_OPTIONS);
        headers.insert(header::CONTENT_SECURITY_POLICY, page::policy_within(origin));
        response
    }

    /// 400: a logout token that is refused (Back-Channel Logout 1.0 section 2.8). What is wrong is for the log.
    pub fn logout_token_refused(&self) -> Response<Body> {
        let json = r#"{"error":"invalid_request","error_description":"the logout token is refused"}"#;
        self.text(StatusCode::BAD_REQUEST, "application/json", json.to_owned())
    }

    fn without_cache(mut response: Response<Body>) -> Response<Body> {
        response.headers_mut().insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\""));
        response
    }
}

/// A refusal, told once for both audiences.
pub(super) struct Notice<'a> {
    pub(super) status: StatusCode,
    /// Last part of the problem type.
    pub(super) kind: &'static str,
    pub(super) gate: Gate,
    /// The heading of the page.
    pub(super) title: &'static str,
    /// What happened, for a person.
    pub(super) happened: Cow<'a, str>,
    /// What the person can do next.
    pub(super) next: Cow<'a, str>,
    pub(super) extra: Extra<'a>,
    pub(super) links: Vec<Link<'a>>,
    /// What happened and what to do, for the author of a program.
    pub(super) detail: Cow<'a, str>,
    /// Where a person can log in, where that helps.
    pub(super) login: Option<&'a str>,
}

impl<'a> Notice<'a> {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        happened: impl Into<Cow<'a, str>>,
        detail: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            gate: if status.is_server_error() { Gate::Trouble } else { Gate::Refused },
            title,
            happened: happened.into(),
            next: Cow::Borrowed(""),
            extra: Extra::Nothing,
            links: Vec::new(),
            detail: detail.into(),
            login: None,
        }
    }
}

/// How answers are put together.
impl Reply<'_> {
    /// A refusal in the form that the audience reads.
    pub(super) fn refuse(&self, notice: &Notice<'_>) -> Response<Body> {
        match self.audience {
            Audience::Person => self.page(notice),
            Audience::Program => {
                let Notice { status, kind, detail, login, .. } = notice;
                let problem = Problem::new(kind, *status, detail, self.request_id, *login);
                self.text(*status, problem::MEDIA_TYPE, problem.to_json())
            }
        }
    }

    /// The same, with a challenge: a 401 must have one (RFC 9110 section 15.5.2).
    pub(super) fn refuse_with_challenge(
        &self,
        notice: &Notice<'_>,
        challenge: HeaderValue,
    ) -> Response<Body> {
        let mut response = self.refuse(notice);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        response
    }

    /// The same, with the time after which a retry makes sense.
    pub(super) fn refuse_for_now(&self, notice: &Notice<'_>, retry_after: Duration) -> Response<Body> {
        let mut response = self.refuse(notice);
        // Whole seconds, and never "at once": that would be a loop.
        response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        response
    }

    /// The name of the service for the sentences of a page.
    pub(super) fn name(&self) -> &str {
        self.service.unwrap_or("this site")
    }

    /// The protection space of a challenge.
    pub(super) fn realm(&self) -> &str {
        self.service.unwrap_or("portcullis")
    }

    fn page(&self, notice: &Notice<'_>) -> Response<Body> {
        let page = Page {
            gate: notice.gate,
            status: notice.status,
            service: self.service,
            request_id: self.request_id,
            title: notice.title,
            happened: &notice.happened,
            next: Cow::Borrowed(&notice.next),
            extra: &notice.extra,
            links: &notice.links,
            style: page::STYLE,
        };
        match page.render() {
            Ok(html) => self.text(notice.status, "text/html; charset=utf-8", html),
            // Only a failing formatter could do this; the status and the title still say what matters.
            Err(_) => self.text(notice.status, "text/plain; charset=utf-8", notice.title.to_owned()),
        }
    }

    fn text(&self, status: StatusCode, media_type: &'static str, text: String) -> Response<Body> {
        let mut response = self.bare(status, text.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        response
    }

    fn bare(&self, status: StatusCode, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(PROTECTION.len() + 4);
        for (name, value) in PROTECTION {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, page::content_security_policy());
        if let Ok(request_id) = HeaderValue::try_from(self.request_id) {
            headers.insert(X_REQUEST_ID, request_id);
        }
        response
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// On every answer of ours.
const PROTECTION: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];
