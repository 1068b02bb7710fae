//! The claims that every token of a provider has, whatever it is for: who made it, for whom, about whom, when.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;

use super::error::{Refusal, Shown};

/// What a token is compared with.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub clock_skew: Duration,
    pub now: UnixTime,
}

/// When a token is from, and how long it is good for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub issued_at: UnixTime,
    pub expires_at: UnixTime,
}

/// Longest `sub` (OIDC Core section 2).
const MAX_SUBJECT_BYTES: usize = 255;
/// The last second of the year 9999: a time past it is a mistake, and could overflow somewhere.
pub(super) const LAST_TIME: u64 = 253_402_300_799;

pub(super) fn check_issuer(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    match claims.get("iss") {
        Some(Value::String(issuer)) if issuer == expected.issuer => Ok(()),
        found => Err(Refusal::Issuer { expected: expected.issuer.to_owned(), found: Shown::of(found) }),
    }
}

/// Only us: an audience that we do not know could replay the token here (3.1.3.7 step 3).
pub(super) fn check_audience(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
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

pub(super) fn check_authorized_party(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
) -> Result<(), Refusal> {
    match claims.get("azp") {
        None => Ok(()),
        Some(Value::String(party)) if party == expected.client_id => Ok(()),
        found => {
            Err(Refusal::AuthorizedParty { expected: expected.client_id.to_owned(), found: Shown::of(found) })
        }
    }
}

/// `exp`, `iat` and `nbf`, with the clock skew allowed for. `max_age` is the oldest `iat` that is believed.
pub(super) fn check_times(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
    max_age: Duration,
) -> Result<Times, Refusal> {
    let Expected { now, clock_skew, .. } = *expected;
    let expires_at = time(claims, "exp")?.ok_or(Refusal::Missing("exp"))?;
    if now >= expires_at.plus(clock_skew) {
        return Err(Refusal::Expired(now.since(expires_at.plus(clock_skew)).as_secs()));
    }
    let issued_at = time(claims, "iat")?.ok_or(Refusal::Missing("iat"))?;
    if issued_at > now.plus(clock_skew) {
        return Err(Refusal::FromTheFuture(issued_at.since(now.plus(clock_skew)).as_secs()));
    }
    if now.since(issued_at) > max_age {
        return Err(Refusal::TooOld(now.since(issued_at).as_secs()));
    }
    match time(claims, "nbf")? {
        Some(begin) if begin > now.plus(clock_skew) => {
            Err(Refusal::NotYetValid(begin.since(now.plus(clock_skew)).as_secs()))
        }
        _ => Ok(Times { issued_at, expires_at }),
    }
}

pub(super) fn check_subject(claims: &Map<String, Value>) -> Result<String, Refusal> {
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
pub(super) fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<UnixTime>, Refusal> {
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
