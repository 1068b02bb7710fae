//! OpenID Connect: being a relying party of one provider for one service.
//!
//! Owns discovery, keys, the authorization code flow, refreshes, and the verification of ID tokens and logout
//! tokens (OpenID Connect Core 1.0, sections 3.1 and 12; Back-Channel Logout 1.0). Knows no cookie, session,
//! rule or page: it gets a `state` to send, hands out a [`Transaction`] to keep, and turns a callback and that
//! transaction into an [`Identity`], or into an [`Error`] that says whose mistake it is.

mod algorithm;
mod breaker;
mod claims;
mod completion;
mod config;
mod contact;
mod credentials;
mod diagnose;
mod discovery;
mod error;
mod event;
mod farewell;
mod finder;
mod flow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod id_token;
mod identity;
mod jwks;
mod jwt;
mod keys;
mod login;
mod logout_token;
mod provider;
mod refresh;
mod standard_claims;
#[cfg(any(test, fuzzing))]
mod testing;
#[cfg(test)]
mod testing_idp;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_keys;
#[cfg(test)]
mod tests_login;
#[cfg(test)]
mod tests_logout;
#[cfg(test)]
mod tests_refresh;
#[cfg(test)]
mod tests_setup;
mod token_answer;
mod told;
mod userinfo;
mod verification;

pub use algorithm::{SigningAlgorithm, UnknownAlgorithm};
pub use config::{ClientAuthentication, Config, ConfigError, UserInfoMode};
pub use diagnose::{Finding, Level};
pub use error::{CallbackError, Error, Kind, RETRY_AFTER, Refusal, Shown, StepUpNotMet};
pub use event::{Event, Events};
pub use farewell::{EndSession, MAX_REVOCATIONS};
pub use identity::{DEFAULT_LIFETIME, Grant, Identity, MIN_LIFETIME};
pub use login::{Begin, CallbackParameters, MAX_CODE_BYTES, MAX_PARAMETERS, Transaction};
pub use logout_token::{LogoutToken, LogoutTokenError, MAX_LOGOUT_TOKEN_BYTES, MAX_TEXT_BYTES};
pub use provider::{MAX_BACKOFF, Provider, REFRESH_EVERY, Status};
pub use refresh::{MAX_REFRESHES, NewIdToken, REFRESH_TIMEOUT, Refresh, RefreshError, Refreshed};

/// The files that a configuration names, to be watched from before they are read.
pub fn files(config: &Config) -> Vec<std::path::PathBuf> {
    credentials::Credentials::files(config)
}
