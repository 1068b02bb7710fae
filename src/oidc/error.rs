//! Everything that can go wrong in a login, a refresh or a logout, grouped by whose mistake it is.
//!
//! The texts are for the operator: they say what to do, show both sides of a comparison, and never hold a
//! token, a code, a nonce or a secret.

use std::time::Duration;

use serde_json::Value;

use super::algorithm::SigningAlgorithm;
use super::told::{Sent, without_parts_of_sent};

/// Why there is no login, no end of one, or no refresh.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// What the browser brought to the callback is unusable.
    #[error("{0}")]
    Browser(#[from] CallbackError),
    /// The provider's answer is refused.
    #[error("the identity provider's answer is refused: {0}")]
    Refused(#[from] Refusal),
    /// The provider answered the authorization request with an error.
    #[error("the identity provider answered `{error}` instead of a login{}", said(description))]
    Denied {
        /// Its error code, for example `access_denied`.
        error: String,
        /// What it says about it, for the log: it came by the browser, so no page shows it.
        description: String,
    },
    /// The login succeeded without what was asked of it.
    #[error("the login does not have what was asked for: {0}")]
    StepUpNotMet(StepUpNotMet),
    /// A needed claim was left out by the provider because the token would have been too large.
    #[error(
        "the identity provider left the claim `{claim}` out of the token for its size (overage), and a rule or \
         mapping needs it: let the provider send fewer values (groups assigned to the application only, \
         application roles, a filter), or let it answer the claim at its UserInfo endpoint"
    )]
    Overage {
        /// The claim.
        claim: String,
    },
    /// The provider can't be reached, or gives no sensible answer.
    #[error("the identity provider does not answer as it should: {0}")]
    Unreachable(String),
    /// The provider can be reached and can't be used as it is configured.
    #[error("the identity provider can't be used: {0}")]
    Unusable(String),
    /// The token endpoint fails.
    #[error("the token endpoint of the identity provider fails: {0}")]
    TokenEndpoint(String),
    /// The keys can't be had.
    #[error("the keys of the identity provider can't be had: {0}")]
    Keys(String),
    /// The UserInfo endpoint fails, and a needed claim depends on it.
    #[error("the UserInfo endpoint of the identity provider is needed and fails: {0}")]
    UserInfo(String),
    /// The provider has just failed, and is left alone for a moment.
    #[error("refreshes pause for a moment, for the last one failed: {0}")]
    Paused(String),
    /// There are too many refreshes under way.
    #[error("too many refreshes at once")]
    Busy,
    /// A refresh took longer than it may.
    #[error("the refresh took longer than {} seconds", super::refresh::REFRESH_TIMEOUT.as_secs())]
    TooSlow,
    /// We are stopping.
    #[error("Portcullis is stopping")]
    Stopping,
}

/// Whose mistake an [`Error`] is, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The browser's: 400.
    Browser,
    /// The provider's answer is refused: 400, never a new login by itself.
    Refused,
    /// The provider said no: 403, never a new login by itself.
    Denied,
    /// The login lacks what was asked for: 403 that names it.
    StepUpNotMet,
    /// A needed claim is too large for the token: 403 that names it.
    Overage,
    /// Nothing to do but to try later: 503 with `Retry-After`.
    Unavailable,
}

impl Error {
    /// Without what was sent in the same exchange, wherever a token could repeat it.
    pub(super) fn without(self, sent: Sent<'_>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.without(sent)),
            Self::StepUpNotMet(StepUpNotMet::Acr { asked, found }) => {
                let found = found.map(|found| without_parts_of_sent(&found, sent));
                Self::StepUpNotMet(StepUpNotMet::Acr { asked, found })
            }
            other => other,
        }
    }

    /// Whose mistake this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Browser(_) => Kind::Browser,
            Self::Refused(_) => Kind::Refused,
            Self::Denied { .. } => Kind::Denied,
            Self::StepUpNotMet(_) => Kind::StepUpNotMet,
            Self::Overage { .. } => Kind::Overage,
            Self::Unreachable(_)
            | Self::Unusable(_)
            | Self::TokenEndpoint(_)
            | Self::Keys(_)
            | Self::UserInfo(_)
            | Self::Paused(_)
            | Self::Busy
            | Self::TooSlow
            | Self::Stopping => Kind::Unavailable,
        }
    }

    /// A short name that stays the same over versions, for metrics and log searches.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Browser(_) => "callback",
            Self::Refused(refusal) => refusal.code(),
            Self::Denied { .. } => "denied",
            Self::StepUpNotMet(_) => "step_up",
            Self::Overage { .. } => "overage",
            Self::Unreachable(_) => "unreachable",
            Self::Unusable(_) => "unusable",
            Self::TokenEndpoint(_) => "token_endpoint",
            Self::Keys(_) => "jwks",
            Self::UserInfo(_) => "userinfo",
            Self::Paused(_) => "paused",
            Self::Busy => "busy",
            Self::TooSlow => "timeout",
            Self::Stopping => "stopping",
        }
    }

    /// When it makes sense to try again, for `Retry-After`; none if trying again won't help.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.kind() == Kind::Unavailable).then_some(RETRY_AFTER)
    }
}

/// What `Retry-After` says: discovery is tried again at most this much later while logins ask for it.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a callback is not one. The blame is the browser's, or of whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A parameter twice (RFC 6749 section 3.1).
    #[error("the callback has a parameter twice")]
    Repeated,
    /// More than [`super::login::MAX_PARAMETERS`] parameters.
    #[error("the callback has too many parameters")]
    TooMany,
    /// No `state`, and no `error` either.
    #[error("the callback has no state: it does not belong to a login that began here")]
    NoState,
    /// It belongs to no login of this browser, and neither did the one before it, after which the login was begun anew.
    #[error(
        "the callback belongs to no login of this browser, again: does the identity provider send `state` back in the \
         query, as it got it?"
    )]
    UnknownAgain,
    /// Neither `code` nor `error`, or both.
    #[error("the callback must have either a code or an error")]
    NoOutcome,
    /// The code is too long to be one.
    #[error("the callback's code is too long")]
    TooLong,
    /// The login began under another configuration.
    #[error("this login began at another identity provider: begin again")]
    OtherIssuer,
}

/// Why an answer of the provider is refused. The blame is the provider's, or of whoever forged it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what each is")]
pub enum Refusal {
    #[error("the callback's `iss` is {found:?} and should be {expected:?} (RFC 9207)")]
    CallbackIssuer { expected: String, found: String },
    #[error("the callback has no `iss` although the provider announces it (RFC 9207)")]
    NoCallbackIssuer,
    #[error(
        "the token endpoint refused the code (invalid_grant): it was used, is too old, or belongs to another \
         redirect URI; the redirect URI registered at the provider must be exactly {redirect_uri}"
    )]
    Code { redirect_uri: String },
    #[error(
        "the token endpoint refused the refresh token (invalid_grant): the person's grant was taken back, has \
         expired, or the token was used before"
    )]
    RefreshToken,
    #[error("the token answer has no ID token: does the provider allow this client the scope `openid`?")]
    NoIdToken,
    #[error("the token is larger than {max} bytes")]
    TokenTooLarge { max: usize },
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token's `alg` is {found:?}; accepted are {} (OIDCSigningAlgorithms)", names(.accepted))]
    Algorithm { found: String, accepted: Vec<SigningAlgorithm> },
    #[error("the token has a `crit` header, and no extension is understood here")]
    Critical,
    #[error("the token's `typ` is {0:?}: it is for something else")]
    Type(String),
    #[error("no published key fits the token ({})", key_id(.0.as_deref()))]
    UnknownKey(Option<String>),
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token's `iss` is {found} and should be {expected:?}")]
    Issuer { expected: String, found: Shown },
    #[error("the token's `aud` is {found} and should be only the client id {expected:?} (OIDCClientID)")]
    Audience { expected: String, found: Shown },
    #[error("the token's `azp` is {found} and should be the client id {expected:?}")]
    AuthorizedParty { expected: String, found: Shown },
    #[error("the token's `sub` is {0}: it must be a string of 1 to 255 ASCII characters")]
    Subject(Shown),
    #[error("the token's `{claim}` is {found}: it must be a time in seconds")]
    Time { claim: &'static str, found: Shown },
    #[error("the token has no `{0}`")]
    Missing(&'static str),
    #[error("the token expired {0} s ago, clock skew allowed for: are both clocks right?")]
    Expired(u64),
    #[error("the token is from {0} s in the future, clock skew allowed for: are both clocks right?")]
    FromTheFuture(u64),
    #[error("the token was issued {0} s ago, which is too long")]
    TooOld(u64),
    #[error("the token is not valid for another {0} s, clock skew allowed for: are both clocks right?")]
    NotYetValid(u64),
    #[error("the token's nonce is not the one of this login")]
    Nonce,
    #[error("the refreshed ID token is about another `sub` than the login")]
    OtherSubject,
    #[error("the token's `{claim}` is {found}: it must be a string of 1 to {max} bytes")]
    Text { claim: &'static str, found: Shown, max: usize },
    #[error("the logout token has neither `sub` nor `sid`")]
    NobodyNamed,
    #[error("the logout token's `events` must hold an object named {event:?}")]
    Events { event: &'static str },
    #[error("the logout token has a `nonce`, which it must not: it may be an ID token")]
    NoncePresent,
    #[error("the UserInfo answer is about another `sub` than the ID token")]
    UserInfoSubject,
    #[error(
        "what it answers is good for a session only that is over already ({0}): it has to begin a new session of its \
         own, with a new `sid`, or to send a token that has not expired"
    )]
    SessionOver(String),
}

impl Refusal {
    /// Without what was sent in the same exchange: a provider may put that into any claim, and sign it.
    fn without(mut self, sent: Sent<'_>) -> Self {
        match &mut self {
            Self::Algorithm { found, .. }
            | Self::Type(found)
            | Self::UnknownKey(Some(found))
            | Self::Issuer { found: Shown(found), .. }
            | Self::Audience { found: Shown(found), .. }
            | Self::AuthorizedParty { found: Shown(found), .. }
            | Self::Subject(Shown(found))
            | Self::Time { found: Shown(found), .. }
            | Self::Text { found: Shown(found), .. } => *found = without_parts_of_sent(found, sent),
            _ => {}
        }
        self
    }

    /// A short name that stays the same over versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CallbackIssuer { .. } | Self::NoCallbackIssuer => "callback_iss",
            Self::Code { .. } | Self::RefreshToken => "invalid_grant",
            Self::NoIdToken => "no_id_token",
            Self::TokenTooLarge { .. } | Self::Malformed(_) => "malformed",
            Self::Algorithm { .. } => "alg",
            Self::Critical => "crit",
            Self::Type(_) => "typ",
            Self::UnknownKey(_) => "kid",
            Self::Signature => "signature",
            Self::Issuer { .. } => "iss",
            Self::Audience { .. } => "aud",
            Self::AuthorizedParty { .. } => "azp",
            Self::Subject(_) | Self::OtherSubject | Self::NobodyNamed => "sub",
            Self::Time { .. } | Self::Text { .. } | Self::Missing(_) => "claim",
            Self::Events { .. } => "events",
            Self::Expired(_) => "exp",
            Self::FromTheFuture(_) | Self::TooOld(_) => "iat",
            Self::NotYetValid(_) => "nbf",
            Self::Nonce | Self::NoncePresent => "nonce",
            Self::UserInfoSubject => "userinfo_sub",
            Self::SessionOver(_) => "session_over",
        }
    }
}

fn key_id(kid: Option<&str>) -> String {
    kid.map_or_else(|| "it has no `kid`".to_owned(), |kid| format!("its `kid` is {kid:?}"))
}

/// What was asked of a login and not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepUpNotMet {
    /// None of the requested authentication contexts.
    #[error("authentication context (acr) is {}, asked was for {}", found.as_deref().unwrap_or("not stated"), asked.join(" or "))]
    Acr {
        /// What would do.
        asked: Vec<String>,
        /// What the ID token states.
        found: Option<String>,
    },
    /// The authentication is older than allowed.
    #[error("the authentication is {} old, allowed are {asked} s", found.map_or_else(|| "of unknown age".to_owned(), |age| format!("{age} s")))]
    Age {
        /// Most seconds since the authentication.
        asked: u64,
        /// Seconds since then; none if the ID token does not say.
        found: Option<u64>,
    },
}

/// A claim's value as an error shows it: one line, bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub(super) fn of(value: Option<&Value>) -> Self {
        const MAX: usize = 200;
        let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
        let mut shown: String = text.chars().take(MAX).flat_map(printable).collect();
        if text.chars().nth(MAX).is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

/// JSON escapes no control characters but those of ASCII, and others steer terminals too.
fn printable(character: char) -> impl Iterator<Item = char> {
    let is_plain = matches!(character, ' '..='~');
    is_plain
        .then_some(character)
        .into_iter()
        .chain((!is_plain).then(|| character.escape_debug()).into_iter().flatten())
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn said(description: &str) -> String {
    match description.is_empty() {
        true => String::new(),
        false => format!(", and says: {description}"),
    }
}

fn names(algorithms: &[SigningAlgorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// OPS-03: a provider may sign a token that repeats what it was sent.
    #[test]
    fn a_refusal_repeats_nothing_that_was_sent() {
        let secret = "c0de-of-this-login";
        let shown = || Shown::of(Some(&json!(format!("x {secret}"))));
        let cut = &secret[..14];
        let (expected, accepted) = (String::new(), Vec::new());
        for refusal in [
            Refusal::Algorithm { found: secret.into(), accepted },
            Refusal::Type(cut.into()),
            Refusal::UnknownKey(Some(cut.into())),
            Refusal::Issuer { expected: expected.clone(), found: shown() },
            Refusal::Audience { expected: expected.clone(), found: shown() },
            Refusal::AuthorizedParty { expected, found: shown() },
            Refusal::Subject(shown()),
            Refusal::Time { claim: "exp", found: shown() },
            Refusal::Text { claim: "sid", found: shown(), max: 1 },
        ] {
            let code = refusal.code();
            assert!(refusal.to_string().contains(cut), "{code}");
            let refused = Error::from(refusal).without(Sent(&[secret])).to_string();
            assert!(!refused.contains("c0de"), "{code}: {refused}");
        }
        let acr = StepUpNotMet::Acr { asked: vec!["gold".into()], found: Some(secret.into()) };
        let refused = Error::StepUpNotMet(acr).without(Sent(&[secret])).to_string();
        assert!(!refused.contains("c0de") && refused.contains("gold"), "{refused}");
    }

    #[test]
    fn a_shown_claim_steers_no_terminal() {
        let shown = Shown::of(Some(&json!("a\u{1b}[31m\u{7f}\u{9b}31m\u{2028}\u{202e}ü"))).to_string();
        assert_eq!(shown, r#""a\u001b[31m\u{7f}\u{9b}31m\u{2028}\u{202e}ü""#);
        let long = Shown::of(Some(&json!("x".repeat(300)))).to_string();
        assert_eq!(long.chars().count(), 201);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn errors_say_what_the_provider_said_and_when_to_try_again() {
        let denied = |description: &str| {
            let (error, description) = ("access_denied".to_owned(), description.to_owned());
            Error::Denied { error, description }
        };
        assert!(denied("not today").to_string().ends_with("instead of a login, and says: not today"));
        assert!(denied("").to_string().ends_with("instead of a login"));
        let accepted = vec![SigningAlgorithm::Rs256, SigningAlgorithm::EdDsa];
        let refusal = Refusal::Algorithm { found: "none".to_owned(), accepted };
        assert!(refusal.to_string().contains("accepted are RS256, EdDSA ("), "{refusal}");
        assert_eq!(denied("").retry_after(), None);
        assert_eq!(Error::Busy.retry_after(), Some(RETRY_AFTER));
        assert_eq!(SigningAlgorithm::Rs256.to_string(), "RS256");
    }
}
