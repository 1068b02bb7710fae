//! ID token validation: OpenID Connect Core 1.0 section 3.1.3.7, every step, and no way around one.
//!
//! Steps 1, 6, 7 and 8 (encryption, signature, algorithm, shared key) are behind [`SignedClaims`], which only
//! a good signature makes. The others are here, with the clock of the caller.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;

use super::error::{Refusal, Shown, StepUpNotMet};
use super::jwt::SignedClaims;

/// An ID token that is meant for us, now, in this login. Nothing else makes one.
#[derive(Debug, Clone)]
pub(super) struct VerifiedIdToken {
    claims: Map<String, Value>,
    subject: String,
    expires_at: UnixTime,
    authenticated_at: Option<UnixTime>,
}

/// What an ID token is compared with.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// The nonce of this login.
    pub nonce: &'a str,
    pub clock_skew: Duration,
    pub now: UnixTime,
}

/// Oldest `iat` that is believed. The nonce ties a token to a login of the last minutes; this catches a
/// provider whose clock or cache is broken.
pub(super) const MAX_TOKEN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest `sub` (OIDC Core section 2).
const MAX_SUBJECT_BYTES: usize = 255;
/// The last second of the year 9999: a time past it is a mistake, and could overflow somewhere.
const LAST_TIME: u64 = 253_402_300_799;

impl VerifiedIdToken {
    /// Checks the claims of a token whose signature is good.
    pub fn check(claims: SignedClaims, expected: &Expected<'_>) -> Result<Self, Refusal> {
        let claims = claims.into_inner();
        check_issuer(&claims, expected)?; // step 2
        check_audience(&claims, expected)?; // step 3
        check_authorized_party(&claims, expected)?; // steps 4 and 5
        let expires_at = check_times(&claims, expected)?; // steps 9 and 10
        check_nonce(&claims, expected)?; // step 11
        let authenticated_at = check_auth_time(&claims, expected)?;
        let subject = check_subject(&claims)?;
        Ok(Self { claims, subject, expires_at, authenticated_at })
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
            let found = acr.map(super::error::shown_name);
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

fn check_issuer(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    match claims.get("iss") {
        Some(Value::String(issuer)) if issuer == expected.issuer => Ok(()),
        found => Err(Refusal::Issuer { expected: expected.issuer.to_owned(), found: Shown::of(found) }),
    }
}

/// Only us: an audience that we do not know could replay the token here (3.1.3.7 step 3).
fn check_audience(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    let audience = claims.get("aud");
    let only_us = match audience {
        Some(Value::String(one)) => one == expected.client_id,
        Some(Value::Array(all)) => !all.is_empty() && all.iter().all(|one| one == expected.client_id),
        _ => false,
    };
    match only_us {
        true => Ok(()),
        false => {
            Err(Refusal::Audience { expected: expected.client_id.to_owned(), found: Shown::of(audience) })
        }
    }
}

fn check_authorized_party(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    match claims.get("azp") {
        None => Ok(()),
        Some(Value::String(party)) if party == expected.client_id => Ok(()),
        found => {
            Err(Refusal::AuthorizedParty { expected: expected.client_id.to_owned(), found: Shown::of(found) })
        }
    }
}

fn check_times(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<UnixTime, Refusal> {
    let Expected { now, clock_skew, .. } = *expected;
    let expires_at = time(claims, "exp")?.ok_or(Refusal::Missing("exp"))?;
    if now >= expires_at.plus(clock_skew) {
        return Err(Refusal::Expired(now.since(expires_at.plus(clock_skew)).as_secs()));
    }
    let issued_at = time(claims, "iat")?.ok_or(Refusal::Missing("iat"))?;
    if issued_at > now.plus(clock_skew) {
        return Err(Refusal::FromTheFuture(issued_at.since(now.plus(clock_skew)).as_secs()));
    }
    if now.since(issued_at) > MAX_TOKEN_AGE {
        return Err(Refusal::TooOld(now.since(issued_at).as_secs()));
    }
    match time(claims, "nbf")? {
        Some(begin) if begin > now.plus(clock_skew) => {
            Err(Refusal::NotYetValid(begin.since(now.plus(clock_skew)).as_secs()))
        }
        _ => Ok(expires_at),
    }
}

fn check_nonce(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    match claims.get("nonce") {
        Some(Value::String(nonce)) if nonce == expected.nonce => Ok(()),
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

fn check_subject(claims: &Map<String, Value>) -> Result<String, Refusal> {
    match claims.get("sub") {
        Some(Value::String(subject))
            if (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && subject.is_ascii() =>
        {
            Ok(subject.clone())
        }
        found => Err(Refusal::Subject(Shown::of(found))),
    }
}

/// A NumericDate (RFC 7519 section 2): whole seconds, cut off where the provider sends fractions. Null is as
/// if absent.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<UnixTime>, Refusal> {
    let value = match claims.get(claim) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let seconds = value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_TIME as f64).contains(seconds))?;
        // In range, so nothing is lost but the fraction.
        Some(seconds as u64)
    });
    match seconds {
        Some(seconds) if seconds <= LAST_TIME => Ok(Some(UnixTime(seconds))),
        _ => Err(Refusal::Time { claim, found: Shown::of(Some(value)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::algorithm::SigningAlgorithm;
    use crate::oidc::jwt::Jws;
    use crate::oidc::testing::TestKey;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;
    const SKEW: u64 = 60;

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://idp.example",
            client_id: "me",
            nonce: "n-0S6_WzA2Mj",
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
        let token = key.sign(&key.header(), claims);
        let set = key.key_set();
        let jws = Jws::parse(&token, &SigningAlgorithm::DEFAULT)?;
        let signed = jws.verify_with(&set)?;
        VerifiedIdToken::check(signed, &expected())
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
            ("RP-08", "nbf", Some(json!(NOW + 600)), false),
            ("RP-08", "nbf", Some(json!("soon")), false),
            ("RP-17", "nonce", Some(json!("another")), false),
            ("RP-17", "nonce", None, false),
            ("RP-17", "nonce", Some(json!("")), false),
            ("RP-17", "nonce", Some(json!(["n-0S6_WzA2Mj"])), false),
            ("auth_time", "auth_time", Some(json!(0)), true),
            ("auth_time", "auth_time", Some(json!(NOW as f64 - 0.5)), true),
            ("auth_time", "auth_time", Some(json!(NOW + 3600)), false),
            ("auth_time", "auth_time", Some(json!("yesterday")), false),
        ];
        for (row, name, value, good) in rows {
            let outcome = check(&with(name, value.clone()), TestKey::es256());
            assert_eq!(outcome.is_ok(), good, "{row}: {name} = {value:?}: {outcome:?}");
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
