//! ID token validation: OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2, every step, and no way around one.
//!
//! Steps 1, 6, 7 and 8 (encryption, signature, algorithm, shared key) are behind [`SignedClaims`], which only
//! a good signature makes. The others are here, with the clock of the caller.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;

use super::error::{Refusal, StepUpNotMet};
use super::jwt::SignedClaims;
use super::standard_claims::{
    Expected, check_audience, check_authorized_party, check_issuer, check_subject, check_times, time,
};

/// An ID token that is meant for us, now, in this login or refresh. Nothing else makes one.
#[derive(Debug, Clone)]
pub(super) struct VerifiedIdToken {
    claims: Map<String, Value>,
    subject: String,
    expires_at: UnixTime,
    authenticated_at: Option<UnixTime>,
}

/// What the ID token came with.
#[derive(Clone, Copy)]
pub(super) enum Occasion<'a> {
    /// The answer to a code: its nonce is that of this login.
    Login {
        /// The nonce of the authorization request.
        nonce: &'a str,
    },
    /// The answer to a refresh token (section 12.2): about the same person, and its nonce, if it has one at
    /// all, is the old one. Issuer and audience can't be other than at the login, for both times they are
    /// compared with the configuration.
    Refresh {
        /// The nonce of the login.
        nonce: &'a str,
        /// `sub` of the login.
        subject: &'a str,
    },
}

/// Oldest `iat` that is believed. The nonce ties a token to a login of the last minutes; this catches a
/// provider whose clock or cache is broken.
pub(super) const MAX_TOKEN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl VerifiedIdToken {
    /// Checks the claims of a token whose signature is good.
    pub fn check(
        claims: SignedClaims,
        expected: &Expected<'_>,
        occasion: &Occasion<'_>,
    ) -> Result<Self, Refusal> {
        let claims = claims.into_inner();
        check_issuer(&claims, expected)?; // step 2
        check_audience(&claims, expected)?; // step 3
        check_authorized_party(&claims, expected)?; // steps 4 and 5
        let times = check_times(&claims, expected, MAX_TOKEN_AGE)?; // steps 9 and 10
        check_nonce(&claims, occasion)?; // step 11
        let authenticated_at = check_auth_time(&claims, expected)?;
        let subject = check_subject(&claims)?;
        match occasion {
            Occasion::Refresh { subject: before, .. } if *before != subject => Err(Refusal::OtherSubject),
            _ => Ok(Self { claims, subject, expires_at: times.expires_at, authenticated_at }),
        }
    }

    /// Steps 12 and 13: what the authorization request asked for must be there.
    pub fn check_requested(
        &self,
        acr_values: &[String],
        max_age: Option<u64>,
        expected: &Expected<'_>,
    ) -> Result<(), StepUpNotMet> {
        let acr = self.acr();
        if !acr_values.is_empty() && !acr_values.iter().any(|asked| Some(asked.as_str()) == acr) {
            let found = acr.map(super::told::shown_name);
            return Err(StepUpNotMet::Acr { asked: acr_values.to_vec(), found });
        }
        let Some(asked) = max_age else { return Ok(()) };
        let age = self.authenticated_at.map(|at| expected.now.since(at).as_secs());
        match age {
            Some(age) if age <= asked.saturating_add(expected.clock_skew.as_secs()) => Ok(()),
            found => Err(StepUpNotMet::Age { asked, found }),
        }
    }

    /// `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `exp`.
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// `auth_time`.
    pub fn authenticated_at(&self) -> Option<UnixTime> {
        self.authenticated_at
    }

    /// `acr`.
    pub fn acr(&self) -> Option<&str> {
        self.claims.get("acr").and_then(Value::as_str)
    }

    /// `sid`, the provider's name of its session.
    pub fn session_id(&self) -> Option<&str> {
        self.claims.get("sid").and_then(Value::as_str)
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

fn check_nonce(claims: &Map<String, Value>, occasion: &Occasion<'_>) -> Result<(), Refusal> {
    match (claims.get("nonce"), occasion) {
        (Some(Value::String(found)), Occasion::Login { nonce } | Occasion::Refresh { nonce, .. })
            if found == nonce =>
        {
            Ok(())
        }
        (None | Some(Value::Null), Occasion::Refresh { .. }) => Ok(()),
        _ => Err(Refusal::Nonce),
    }
}

/// A login from the future would stay fresh for ever.
fn check_auth_time(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
) -> Result<Option<UnixTime>, Refusal> {
    let latest = expected.now.plus(expected.clock_skew);
    match time(claims, "auth_time")? {
        Some(at) if at > latest => Err(Refusal::FromTheFuture(at.since(latest).as_secs())),
        at => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::algorithm::SigningAlgorithm;
    use crate::oidc::jwt::{Jws, Purpose};
    use crate::oidc::testing::TestKey;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;
    const SKEW: u64 = 60;

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://idp.example",
            client_id: "me",
            clock_skew: Duration::from_secs(SKEW),
            now: UnixTime(NOW),
        }
    }

    fn claims() -> Value {
        json!({
            "iss": "https://idp.example", "sub": "alice", "aud": "me", "nonce": "n-0S6_WzA2Mj",
            "iat": NOW, "exp": NOW + 300,
        })
    }

    fn check(claims: &Value, key: &TestKey) -> Result<VerifiedIdToken, Refusal> {
        check_at(&Occasion::Login { nonce: "n-0S6_WzA2Mj" }, claims, key)
    }

    fn check_at(occasion: &Occasion<'_>, claims: &Value, key: &TestKey) -> Result<VerifiedIdToken, Refusal> {
        let token = key.sign(&key.header(), claims);
        let set = key.key_set();
        let jws = Jws::parse(&token, Purpose::IdToken, &SigningAlgorithm::DEFAULT)?;
        let signed = jws.verify_with(&set)?;
        VerifiedIdToken::check(signed, &expected(), occasion)
    }

    /// `None` removes the claim.
    fn with(name: &str, value: Option<Value>) -> Value {
        let mut claims = claims();
        let object = claims.as_object_mut().unwrap();
        match value {
            Some(value) => object.insert(name.to_owned(), value),
            None => object.remove(name),
        };
        claims
    }

    #[test]
    fn a_good_token_passes_with_every_kind_of_key() {
        for key in TestKey::all() {
            let token = check(&claims(), key).unwrap();
            assert_eq!((token.subject(), token.expires_at()), ("alice", UnixTime(NOW + 300)));
        }
    }

    #[test]
    fn rp_02_to_rp_08_and_rp_17() {
        let long = "x".repeat(300);
        let rows: Vec<(&str, &str, Option<Value>, bool)> = vec![
            ("RP-02", "iss", Some(json!("https://evil.example")), false),
            ("RP-02", "iss", None, false),
            ("RP-02", "iss", Some(json!("https://idp.example/")), false),
            ("RP-02", "iss", Some(json!("https://IDP.example")), false),
            ("RP-02", "iss", Some(json!(["https://idp.example"])), false),
            ("RP-03", "sub", None, false),
            ("RP-03", "sub", Some(json!("")), false),
            ("RP-03", "sub", Some(json!(7)), false),
            ("RP-03", "sub", Some(json!(null)), false),
            ("RP-03", "sub", Some(json!(long)), false),
            ("RP-03", "sub", Some(json!("x".repeat(255))), true),
            ("RP-03", "sub", Some(json!("älice")), false),
            ("RP-04", "aud", Some(json!("other")), false),
            ("RP-04", "aud", None, false),
            ("RP-04", "aud", Some(json!(null)), false),
            ("RP-04", "aud", Some(json!("me2")), false),
            ("RP-04", "aud", Some(json!("ME")), false),
            ("RP-04", "aud", Some(json!(7)), false),
            ("RP-04", "aud", Some(json!([])), false),
            ("RP-04", "aud", Some(json!({"me": true})), false),
            ("RP-05", "aud", Some(json!(["me"])), true),
            ("RP-05", "aud", Some(json!(["me", "other"])), false),
            ("RP-05", "aud", Some(json!(["other", "me"])), false),
            ("RP-05", "aud", Some(json!(["me", 7])), false),
            ("RP-05", "azp", Some(json!("me")), true),
            ("RP-05", "azp", Some(json!("other")), false),
            ("RP-05", "azp", Some(json!(["me"])), false),
            ("RP-05", "azp", Some(json!(null)), false),
            ("RP-06", "iat", None, false),
            ("RP-06", "iat", Some(json!(null)), false),
            ("RP-06", "iat", Some(json!(NOW.to_string())), false),
            ("RP-06", "iat", Some(json!(NOW - 7 * 24 * 3600)), false),
            ("RP-06", "iat", Some(json!(NOW + 3600)), false),
            ("RP-06", "iat", Some(json!(NOW + SKEW)), true),
            ("RP-06", "iat", Some(json!(NOW + SKEW + 1)), false),
            ("RP-06", "iat", Some(json!(NOW - 3600)), true),
            ("RP-07", "exp", None, false),
            ("RP-07", "exp", Some(json!(NOW - 3600)), false),
            ("RP-07", "exp", Some(json!(NOW - SKEW)), false),
            ("RP-07", "exp", Some(json!(NOW - SKEW + 1)), true),
            ("RP-07", "exp", Some(json!(1e300)), false),
            ("RP-07", "exp", Some(json!(u64::MAX)), false),
            ("RP-07", "exp", Some(json!(-1)), false),
            ("RP-07", "exp", Some(json!(-1.0)), false),
            ("RP-07", "exp", Some(json!((NOW + 300).to_string())), false),
            ("RP-07", "exp", Some(json!(NOW as f64 + 300.5)), true),
            ("RP-07", "exp", Some(json!(1.5e10)), true),
            ("RP-08", "nbf", Some(json!(NOW + 30)), true),
            ("RP-08", "nbf", Some(json!(NOW + SKEW)), true),
            ("RP-08", "nbf", Some(json!(NOW + SKEW + 1)), false),
            ("RP-08", "nbf", Some(json!(NOW + 600)), false),
            ("RP-08", "nbf", Some(json!("soon")), false),
            ("RP-17", "nonce", Some(json!("another")), false),
            ("RP-17", "nonce", None, false),
            ("RP-17", "nonce", Some(json!("")), false),
            ("RP-17", "nonce", Some(json!(["n-0S6_WzA2Mj"])), false),
            ("auth_time", "auth_time", Some(json!(0)), true),
            ("auth_time", "auth_time", Some(json!(NOW as f64 - 0.5)), true),
            ("auth_time", "auth_time", Some(json!(NOW + SKEW)), true),
            ("auth_time", "auth_time", Some(json!(NOW + SKEW + 1)), false),
            ("auth_time", "auth_time", Some(json!(NOW + 3600)), false),
            ("auth_time", "auth_time", Some(json!("yesterday")), false),
        ];
        for (row, name, value, good) in rows {
            let outcome = check(&with(name, value.clone()), TestKey::es256());
            assert_eq!(outcome.is_ok(), good, "{row}: {name} = {value:?}: {outcome:?}");
        }
    }

    #[test]
    fn rp_33_a_refresh_brings_the_same_person_and_the_nonce_of_the_login_or_none() {
        let rows: Vec<(&str, Option<Value>, bool)> = vec![
            ("nonce", None, true),
            ("nonce", Some(json!(null)), true),
            ("nonce", Some(json!("n-0S6_WzA2Mj")), true),
            ("nonce", Some(json!("another")), false),
            ("nonce", Some(json!("")), false),
            ("nonce", Some(json!(["n-0S6_WzA2Mj"])), false),
            ("sub", Some(json!("mallory")), false),
            ("sub", Some(json!("Alice")), false),
            ("sub", None, false),
            ("iss", Some(json!("https://evil.example")), false),
            ("aud", Some(json!("other")), false),
            ("aud", Some(json!(["me", "other"])), false),
            ("azp", Some(json!("other")), false),
            ("exp", Some(json!(NOW - 3600)), false),
            ("iat", Some(json!(NOW + 3600)), false),
        ];
        let occasion = Occasion::Refresh { nonce: "n-0S6_WzA2Mj", subject: "alice" };
        for (name, value, good) in rows {
            let outcome = check_at(&occasion, &with(name, value.clone()), TestKey::es256());
            assert_eq!(outcome.is_ok(), good, "{name} = {value:?}: {outcome:?}");
        }
    }

    #[test]
    fn what_was_requested_must_be_there() {
        let asked = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let rows = [
            // acr, auth_time, asked acr, asked age, met
            (None, None, asked(&[]), None, true),
            (Some("mfa"), None, asked(&["mfa"]), None, true),
            (Some("mfa"), None, asked(&["phr", "mfa"]), None, true),
            (Some("pwd"), None, asked(&["mfa"]), None, false),
            (None, None, asked(&["mfa"]), None, false),
            (None, Some(NOW - 10), asked(&[]), Some(10), true),
            (None, Some(NOW - 10 - SKEW), asked(&[]), Some(10), true),
            (None, Some(NOW - 11 - SKEW), asked(&[]), Some(10), false),
            (None, Some(0), asked(&[]), Some(10), false),
            (None, None, asked(&[]), Some(10), false),
            (None, Some(NOW), asked(&[]), Some(0), true),
            (None, Some(NOW), asked(&[]), Some(u64::MAX), true),
        ];
        for (acr, auth_time, asked_acr, asked_age, met) in rows {
            let mut claims = claims();
            if let Some(acr) = acr {
                claims["acr"] = json!(acr);
            }
            if let Some(auth_time) = auth_time {
                claims["auth_time"] = json!(auth_time);
            }
            let token = check(&claims, TestKey::es256()).unwrap();
            let outcome = token.check_requested(&asked_acr, asked_age, &expected());
            assert_eq!(outcome.is_ok(), met, "{acr:?} {auth_time:?} {asked_acr:?} {asked_age:?}");
        }
    }

    #[test]
    fn texts_show_both_sides() {
        let text = check(&with("iss", Some(json!("https://idp.example/"))), TestKey::es256())
            .unwrap_err()
            .to_string();
        assert!(text.contains(r#""https://idp.example/""#) && text.contains(r#""https://idp.example""#));
    }
}
