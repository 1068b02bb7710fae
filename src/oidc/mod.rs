//! OpenID Connect: being a relying party of one provider for one service.
//!
//! Owns discovery, keys, the authorization code flow and the verification of ID tokens
//! (OpenID Connect Core 1.0, section 3.1). Knows no cookie, session, rule or page: it gets a `state` to send,
//! hands out a [`Transaction`] to keep, and turns a callback and that transaction into an [`Identity`], or
//! into an [`Error`] that says whose mistake it is.

mod algorithm;
mod claims;
mod config;
mod contact;
mod credentials;
mod diagnose;
mod discovery;
mod error;
mod event;
mod finder;
mod flow;
mod id_token;
mod jwks;
mod jwt;
mod keys;
mod login;
mod provider;
#[cfg(test)]
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
mod tests_setup;
mod userinfo;

pub use algorithm::{SigningAlgorithm, UnknownAlgorithm};
pub use config::{ClientAuthentication, Config, ConfigError, UserInfoMode};
pub use diagnose::{Finding, Level};
pub use error::{CallbackError, Error, Kind, RETRY_AFTER, Refusal, Shown, StepUpNotMet};
pub use event::{Event, Events};
pub use login::{Begin, CallbackParameters, MAX_CODE_BYTES, MAX_PARAMETERS, Transaction};
pub use provider::{Identity, MAX_BACKOFF, Provider, REFRESH_EVERY, Status};
