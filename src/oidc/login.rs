//! Both ends of the browser's round trip: what a login asks for, what is kept of it meanwhile, and what the
//! callback brings.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::error::CallbackError;
use super::told::{Sent, shown_code, shown_text};

/// What a login is begun with.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// The `state` to send: opaque here, made and sealed by the caller.
    pub state: String,
    /// Authentication contexts of which one is needed; empty: no step-up.
    pub acr_values: Vec<String>,
    /// Most time since the person authenticated; cut to whole seconds.
    pub max_age: Option<Duration>,
}

/// What must be kept, in that browser only, until the callback: lost or altered, there is no login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    #[serde(rename = "i")]
    pub(super) issuer: String,
    #[serde(rename = "n")]
    pub(super) nonce: String,
    #[serde(rename = "v")]
    pub(super) verifier: String,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) acr_values: Vec<String>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) max_age: Option<u64>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("issuer", &self.issuer)
            .field("acr_values", &self.acr_values)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// The query of a callback (OIDC Core sections 3.1.2.5 and 3.1.2.6, RFC 9207).
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackParameters {
    state: String,
    issuer: Option<String>,
    outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Code(String),
    Error(Denial),
}

/// What the provider answered instead of a code, as it came.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Denial {
    error: String,
    description: String,
    /// The error code without the state: all that is known before there is a transaction.
    shown: String,
}

impl Denial {
    /// Error code and description as a log may show them after an exchange in which all this was sent.
    pub(super) fn shown(&self, sent: Sent<'_>) -> (String, String) {
        (shown_code(&self.error, sent), shown_text(&self.description, sent))
    }
}

/// Most parameters of a callback.
pub const MAX_PARAMETERS: usize = 32;
/// Longest authorization code. Those of large providers have up to 2 KB.
pub const MAX_CODE_BYTES: usize = 8 * 1024;

impl CallbackParameters {
    /// Reads the query part of the callback's URL, without its `?`.
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        let mut seen = BTreeSet::new();
        let (mut state, mut issuer, mut code, mut error) = (None, None, None, None);
        let mut description = String::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.len() >= MAX_PARAMETERS {
                return Err(CallbackError::TooMany);
            }
            match name.as_ref() {
                "state" => state = Some(value.into_owned()),
                "iss" => issuer = Some(value.into_owned()),
                "code" => code = Some(value.into_owned()),
                "error" => error = Some(value.into_owned()),
                "error_description" => description = value.into_owned(),
                _ => {}
            }
            if !seen.insert(name.into_owned()) {
                return Err(CallbackError::Repeated);
            }
        }
        // A provider that could not read the request does not know its state (RFC 6749 section 4.1.2.1 wants it back).
        let is_error = code.is_none() && error.is_some();
        let state = match state.unwrap_or_default() {
            state if state.is_empty() && !is_error => return Err(CallbackError::NoState),
            state => state,
        };
        let outcome = match (code, error) {
            (Some(code), None) if code.len() > MAX_CODE_BYTES => return Err(CallbackError::TooLong),
            (Some(code), None) if !code.is_empty() => Outcome::Code(code),
            (None, Some(error)) => {
                let shown = shown_code(&error, Sent(&[&state]));
                Outcome::Error(Denial { error, description, shown })
            }
            _ => return Err(CallbackError::NoOutcome),
        };
        Ok(Self { state, issuer, outcome })
    }

    /// The `state`, for the caller to open. Empty if an error came without one.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The error code, if the provider answered with an error. Whoever wrote the URL chose it, until
    /// [`super::Provider::finish`] has compared it with a transaction.
    pub fn error(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Error(denial) => Some(&denial.shown),
            Outcome::Code(_) => None,
        }
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    pub(super) fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

impl fmt::Debug for CallbackParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackParameters")
            .field("issuer", &self.issuer)
            .field("error", &self.error())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks() {
        let longest = format!("state=s&code={}", "c".repeat(MAX_CODE_BYTES));
        let long = format!("{longest}c");
        let many = (0..=MAX_PARAMETERS).map(|i| format!("p{i}=")).collect::<Vec<_>>().join("&");
        let rows = [
            ("state=s&code=c", None),
            ("state=s&code=c&iss=https%3A%2F%2Fidp.example&session_state=x", None),
            ("state=s&error=access_denied&error_description=%3Cscript%3E", None),
            ("error=access_denied", None),
            ("state=&error=access_denied", None),
            ("", Some(CallbackError::NoState)),
            ("code=c&error=e", Some(CallbackError::NoState)),
            ("code=c", Some(CallbackError::NoState)),
            ("state=&code=c", Some(CallbackError::NoState)),
            ("state=s", Some(CallbackError::NoOutcome)),
            ("state=s&code=", Some(CallbackError::NoOutcome)),
            ("state=s&code=c&error=e", Some(CallbackError::NoOutcome)),
            ("state=s&state=s&code=c", Some(CallbackError::Repeated)),
            ("state=s&code=c&code=d", Some(CallbackError::Repeated)),
            ("state=s&code=c&c%6Fde=d", Some(CallbackError::Repeated)),
            ("state=s&code=c&iss=a&iss=b", Some(CallbackError::Repeated)),
            ("state=s&code=c&x=1&x=1", Some(CallbackError::Repeated)),
            (&longest, None),
            (&long, Some(CallbackError::TooLong)),
            (&many, Some(CallbackError::TooMany)),
        ];
        for (query, error) in rows {
            assert_eq!(CallbackParameters::parse(query).err(), error, "{query:.60}");
        }
        let parameters = CallbackParameters::parse("state=a%20b&code=c%2Fd&iss=i").unwrap();
        assert_eq!((parameters.state(), parameters.issuer()), ("a b", Some("i")));
        assert!(parameters.into_outcome() == Outcome::Code("c/d".to_owned()));
    }

    #[test]
    fn rp_28_what_the_provider_says_is_made_harmless() {
        let evil = format!("%3Cscript%3Ealert(1)%3C%2Fscript%3E%0D%0A%1B%5B31m%22{}", "x+".repeat(250));
        let query = format!("state=s&error={evil}&error_description={evil}");
        let Outcome::Error(denial) = CallbackParameters::parse(&query).unwrap().into_outcome() else {
            panic!()
        };
        let (error, description) = denial.shown(Sent(&[]));
        assert!(
            error.len() <= 64 && error.chars().all(|character| matches!(character, ' '..='~')),
            "{error}"
        );
        assert!(description.starts_with("scriptalert(1)/script[31mx x") && description.len() <= 300);
    }

    #[test]
    fn debug_shows_no_secret() {
        let transaction = Transaction {
            issuer: "https://idp.example".to_owned(),
            nonce: "NONCE".to_owned(),
            verifier: "VERIFIER".to_owned(),
            acr_values: vec![],
            max_age: None,
        };
        let parameters = CallbackParameters::parse("state=STATE&code=CODE").unwrap();
        let shown = format!("{transaction:?} {parameters:?}");
        for secret in ["NONCE", "VERIFIER", "STATE", "CODE"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let text = serde_json::to_string(&transaction).unwrap();
        assert_eq!(serde_json::from_str::<Transaction>(&text).unwrap(), transaction);
    }

    #[test]
    fn debug_shows_what_a_log_may() {
        let transaction = Transaction {
            issuer: "https://idp.example".to_owned(),
            nonce: "NONCE".to_owned(),
            verifier: "VERIFIER".to_owned(),
            acr_values: vec!["mfa".to_owned()],
            max_age: None,
        };
        let shown = format!("{transaction:?}");
        assert!(shown.contains("https://idp.example") && shown.contains("mfa"), "{shown}");
        let denied = CallbackParameters::parse("state=STATE&error=access_denied").unwrap();
        assert_eq!(denied.error(), Some("access_denied"));
        assert!(format!("{denied:?}").contains("access_denied"));
        assert_eq!(CallbackParameters::parse("state=STATE&code=CODE").unwrap().error(), None);
    }
}
