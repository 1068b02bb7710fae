//! Refusals about the caller: who they are, what they may do, and how a login went.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use http::{Response, StatusCode};

use super::challenge;
use super::page::{Because, Extra, Gate, HOME, Link, Need, Refusal};
use super::respond::{Notice, Reply, StepUp};
use crate::web::Body;

/// No session, or not a good enough one.
impl Reply<'_> {
    /// 401: nobody is signed in. For programs, and for pages sent by an unsafe method, which a redirect would
    /// lose; `login` is the address that starts a login.
    pub fn unauthorized(&self, login: &str) -> Response<Body> {
        let notice = Notice {
            gate: Gate::Shut,
            next: "Sign in, then send it again.".into(),
            links: vec![Link { text: "Sign in", href: login }],
            login: Some(login),
            ..Notice::new(
                StatusCode::UNAUTHORIZED,
                "login-needed",
                "Please sign in first",
                "You are not signed in, or your session has ended. What you just sent was not passed on and has changed nothing.",
                "This request has no valid session. Let the user sign in at the address in `login`, then repeat it.",
            )
        };
        self.refuse_with_challenge(&notice, challenge::login(self.realm()))
    }

    /// 401 `insufficient_user_authentication` (RFC 9470): signed in, but a stronger or fresher login is needed.
    pub fn step_up(&self, wanted: &StepUp<'_>, login: &str) -> Response<Body> {
        let wish = in_words(wanted);
        let notice = Notice {
            gate: Gate::Shut,
            next: "Nothing was passed on. Sign in again, then send it again.".into(),
            links: vec![Link { text: "Sign in again", href: login }],
            login: Some(login),
            ..Notice::new(
                StatusCode::UNAUTHORIZED,
                "stronger-login-needed",
                "Please confirm that it is you",
                format!("This part of {} needs {wish}.", self.name()),
                format!(
                    "This request needs {wish}. Let the user sign in at the address in `login`, then repeat it."
                ),
            )
        };
        self.refuse_with_challenge(&notice, challenge::step_up(self.realm(), wanted))
    }

    /// 403: the login came back without what [`Reply::step_up`] asks for. Never a second redirect.
    pub fn step_up_not_met(&self, wanted: &StepUp<'_>, login: &str) -> Response<Body> {
        let wish = in_words(wanted);
        self.refuse(&Notice {
            next: "If you can sign in another way, for example with a second factor, try that.".into(),
            links: vec![Link { text: "Sign in another way", href: login }, HOME],
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "stronger-login-not-met",
                "That sign-in was not strong enough",
                format!(
                    "This part of {} needs {wish}. Your identity provider signed you in, but not in that way.",
                    self.name()
                ),
                format!("This request needs {wish}, and the identity provider did not confirm one."),
            )
        })
    }

    /// 403: signed in, but the rules do not let this caller do this.
    pub fn forbidden(&self, refusal: &Refusal<'_>) -> Response<Body> {
        // The start page comes second: it may be what was refused.
        let other = refusal.sign_out.map(|href| Link { text: "Sign in as somebody else", href });
        let links = other.into_iter().chain([HOME]).collect();
        self.refuse(&Notice {
            next: "If it should be, ask whoever runs this site, and give them the request id below.".into(),
            extra: Extra::Refused(refusal),
            links,
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "not-allowed",
                "You cannot open this page",
                match refusal.account {
                    Some(account) => {
                        format!("You are signed in as {account}, but that account is not allowed here.")
                    }
                    None => "You are signed in, but your account is not allowed here.".to_owned(),
                },
                explained(refusal.because),
            )
        })
    }
}

/// Requests that no login would help.
impl Reply<'_> {
    /// 403: the plain listener for load balancer checks passes only what is public.
    pub fn only_public_here(&self) -> Response<Body> {
        self.refuse(&Notice::new(
            StatusCode::FORBIDDEN,
            "only-public-here",
            "Only public pages are served here",
            "This address answers checks of load balancers. It never signs anybody in.",
            "This listener passes only requests that the rules make public.",
        ))
    }

    /// 403: no rule lets anybody in here, and there is nothing to sign in to.
    pub fn closed(&self) -> Response<Body> {
        self.refuse(&Notice::new(
            StatusCode::FORBIDDEN,
            "no-rule",
            "This page is not open",
            "There is no rule that lets anybody in here.",
            "No rule names this method and path, and this service has no login.",
        ))
    }

    /// 403: two different sessions in one request, of which one was planted. A login can't part them.
    pub fn two_sessions(&self, logout: &str) -> Response<Body> {
        self.refuse(&Notice {
            next: "Sign out, which removes both, and then sign in again.".into(),
            links: vec![Link { text: "Sign out", href: logout }],
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "two-sessions",
                "Your browser sent two sessions at once",
                "So nobody can tell which of them is yours, and neither is used.".to_owned(),
                "The request carries two different sessions; delete its cookies and log in again.",
            )
        })
    }

    /// 403: a WebSocket handshake from a page of another origin.
    pub fn origin_refused(&self) -> Response<Body> {
        self.refuse(&Notice::new(
            StatusCode::FORBIDDEN,
            "origin-refused",
            "Another site tried to connect",
            "A page of another site asked your browser to open a connection here. It was not opened.",
            "WebSocket handshakes are accepted only from this origin and from those in `allowedOrigins`.",
        ))
    }

    /// 403: a logout that carries neither the token of our form nor the browser's word that our page sent it.
    pub fn logout_refused(&self, logout: &str) -> Response<Body> {
        self.refuse(&Notice {
            links: vec![Link { text: "Sign out", href: logout }],
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "logout-refused",
                "You are still signed in",
                "The request to sign out did not come from a page of this site, or came too late.",
                "A logout needs the token of the logout form, or `Sec-Fetch-Site: same-origin`.",
            )
        })
    }
}

/// How a login ended. None of these starts another by itself.
impl Reply<'_> {
    /// 403: the provider answered with an error. `error` is shown only if it looks like a code of
    /// RFC 6749 section 4.1.2.1; the provider's description never is.
    pub fn login_denied(&self, error: &str, login: &str) -> Response<Body> {
        let code = Some(error).filter(|error| is_error_code(error));
        let answer = match code {
            Some(code) => {
                format!("Your identity provider ended the sign-in with the answer \u{201c}{code}\u{201d}.")
            }
            None => "Your identity provider ended the sign-in with an error.".to_owned(),
        };
        let next = format!(
            "You can try again. If it stays like this, ask whoever runs {} whether your account may use it.",
            self.name()
        );
        self.refuse(&Notice {
            next: next.into(),
            links: vec![Link { text: "Sign in", href: login }, HOME],
            login: Some(login),
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "login-denied",
                "You were not signed in",
                answer.clone(),
                answer,
            )
        })
    }

    /// 400: the provider's answer did not pass the checks. The reason is for the log, not for the page.
    pub fn login_refused(&self, login: &str) -> Response<Body> {
        self.refuse(&Notice {
            next: "Try once more. If it happens again, give the request id below to whoever runs this site: the log has the reason.".into(),
            links: vec![Link { text: "Sign in", href: login }, HOME],
            login: Some(login),
            ..Notice::new(
                StatusCode::BAD_REQUEST,
                "login-refused",
                "This sign-in cannot be trusted",
                "The answer of the identity provider did not pass our checks, so nobody was signed in.",
                "The answer of the identity provider was refused. The log has the reason under this request id.",
            )
        })
    }

    /// 400: the login cookie did not come back, twice. The end of what would be a redirect loop.
    pub fn login_cookie_missing(&self, login: &str) -> Response<Body> {
        self.refuse(&Notice {
            gate: Gate::Trouble,
            next: "Without it we cannot know that the sign-in was started by you.".into(),
            extra: Extra::Causes(COOKIE_CAUSES),
            links: vec![Link { text: "Sign in", href: login }, HOME],
            login: Some(login),
            ..Notice::new(
                StatusCode::BAD_REQUEST,
                "login-cookie-missing",
                "The sign-in lost its way back",
                "A cookie that we set when the sign-in began did not come back with it.",
                "The login cookie did not come back: it is older than 10 minutes, blocked, or set for another host.",
            )
        })
    }

    /// 403: the provider left `claim` out of its answer because of its size, and the rules need it.
    pub fn claim_left_out(&self, claim: &str) -> Response<Body> {
        let claim = shortened(claim);
        self.refuse(&Notice {
            next: "Trying again will not help. Ask whoever runs this site to let the identity provider send fewer values, for example only the groups of this application.".into(),
            links: vec![HOME],
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "claim-left-out",
                "You have too many groups or roles",
                format!("Your identity provider left \u{201c}{claim}\u{201d} out of its answer because the list is too long, and this site needs it. You were not signed in."),
                format!("The identity provider left the claim \u{201c}{claim}\u{201d} out for its size (overage), and a rule needs it."),
            )
        })
    }

    /// 403: what has to be kept does not fit into cookies, mostly because of `part`: "the claim ...".
    pub fn session_too_large(&self, part: &str) -> Response<Body> {
        let part = shortened(part);
        self.refuse(&Notice {
            next: "Trying again will not help. Ask whoever runs this site to let the identity provider send less.".into(),
            links: vec![HOME],
            ..Notice::new(
                StatusCode::FORBIDDEN,
                "session-too-large",
                "Your account carries too much",
                format!("What your identity provider sent about you, above all {part}, does not fit into a session. You were not signed in."),
                format!("The session would be too large; the largest part of it is {part}."),
            )
        })
    }

    /// 503: there may be a session, and the store that knows can't be used. Never answered by a login: it could not be
    /// kept either.
    pub fn store_unavailable(&self, retry_after: Duration) -> Response<Body> {
        let notice = Notice {
            next: "This usually passes. Wait a moment, then load this page again.".into(),
            ..Notice::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "session-store-unavailable",
                "Your session can't be looked up right now",
                "The place where this site keeps its sessions does not answer as it should. You may still be signed in.",
                "The store of sessions can't be used. The request was not judged; send it again later.",
            )
        };
        self.refuse_for_now(&notice, retry_after)
    }

    /// 503: a login is needed and the provider can't be reached, or failed in the middle of it.
    pub fn provider_unavailable(&self, login: &str, retry_after: Duration) -> Response<Body> {
        let notice = Notice {
            next: "This usually passes. Wait a moment, then try again.".into(),
            links: vec![Link { text: "Try again", href: login }],
            login: Some(login),
            ..Notice::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "provider-unavailable",
                "Signing in does not work right now",
                "The identity provider, which signs you in, does not answer as it should. Whoever is signed in already is not affected.",
                "A login is needed, and the identity provider can't be reached or is failing.",
            )
        };
        self.refuse_for_now(&notice, retry_after)
    }
}

/// The shape of an error code: short, and of characters that mean nothing to a page or a person.
fn is_error_code(error: &str) -> bool {
    (1..=MAX_ERROR_CODE).contains(&error.len())
        && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// For a sentence: a sign-in of the kind “mfa” that is at most 5 minutes old.
fn in_words(wanted: &StepUp<'_>) -> String {
    let kinds: Vec<&str> = wanted.acr_values.iter().map(String::as_str).take(MAX_KINDS).collect();
    let mut words = match kinds.as_slice() {
        [] => "a sign-in".to_owned(),
        kinds => format!("a sign-in of the kind \u{201c}{}\u{201d}", kinds.join("\u{201d} or \u{201c}")),
    };
    match wanted.max_age.map(|age| age.as_secs()) {
        None => {}
        Some(0) => words.push_str(" made just now"),
        Some(seconds) => {
            let (count, unit) = match seconds {
                s if s % 3600 == 0 => (s / 3600, "hour"),
                s if s % 60 == 0 => (s / 60, "minute"),
                s => (s, "second"),
            };
            let plural = if count == 1 { "" } else { "s" };
            let _infallible = write!(words, " that is at most {count} {unit}{plural} old");
        }
    }
    words
}

/// The reason of a refusal in one sentence.
fn explained(because: Option<Because<'_>>) -> Cow<'static, str> {
    let allowed = "The user is signed in, but not allowed to do this";
    match because {
        None => format!("{allowed}."),
        Some(Because::NoRule) => format!("{allowed}: no rule matches the path and the method."),
        Some(Because::Nobody) => format!("{allowed}: the rule lets nobody in."),
        Some(Because::EmailUnverified) => {
            format!("{allowed}: the rule asks for an email address, and the user's is not verified.")
        }
        Some(Because::Denied(tags)) => {
            format!("{allowed}: the rule turns away whoever has {}.", tags.join(" or "))
        }
        Some(Because::Lacking(ways)) => {
            let way =
                |way: &Vec<Need>| way.iter().map(|need| need.tag.as_str()).collect::<Vec<_>>().join(" and ");
            let ways: Vec<String> = ways.iter().take(MAX_WAYS).map(way).collect();
            format!("{allowed}. Enough would be: {}.", ways.join(", or "))
        }
    }
    .into()
}

/// A claim's name, cut to a length that a sentence can bear.
fn shortened(claim: &str) -> String {
    claim.chars().take(MAX_CLAIM_NAME).collect()
}

/// Most characters of an error code that is worth showing.
const MAX_ERROR_CODE: usize = 40;
/// Most characters of a claim's name on a page.
const MAX_CLAIM_NAME: usize = 100;
/// Most kinds of login in one sentence.
const MAX_KINDS: usize = 5;
/// Most clauses in one sentence.
const MAX_WAYS: usize = 12;

/// Why a login cookie does not come back, the likeliest first.
const COOKIE_CAUSES: &[&str] = &[
    "The sign-in page was open for more than 10 minutes, or you came back to it by a bookmark or the Back button.",
    "Your browser, or an extension of it, blocks or deletes the cookies of this site.",
    "You began under one address of this site and came back to another, for example with and without \u{201c}www\u{201d}.",
    "More than four sign-ins were begun in this browser at the same time.",
];
