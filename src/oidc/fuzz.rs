//! What the provider, or whoever poses as it, sends, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "see crate::fuzzing"
)]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::algorithm::SigningAlgorithm;
use super::config::Config;
use super::id_token::{Occasion, VerifiedIdToken};
use super::jwks::{self as keys, KeySet};
use super::jwt::{Jws, Purpose, SignedClaims};
use super::login::{CallbackParameters, MAX_CODE_BYTES, MAX_PARAMETERS, Outcome};
use super::logout_token::{self as logout, LogoutToken};
use super::standard_claims::Expected;
use super::testing::{TestKey, config};
use super::token_answer::{TokenAnswer, TokenRefusal};
use super::told::Sent;
use crate::clock::UnixTime;
use crate::fuzzing::is_one_line;

const ISSUER: &str = "https://idp.example";
const CLIENT: &str = "me";
const NONCE: &str = "nonce-of-this-login";
const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(60);
const EXPECTED: Expected<'_> = Expected { issuer: ISSUER, client_id: CLIENT, clock_skew: SKEW, now: NOW };
const ACCEPTED: [SigningAlgorithm; 9] = SigningAlgorithm::DEFAULT;

static CONFIG: LazyLock<Config> = LazyLock::new(|| config(ISSUER));

/// The key that signs for the targets: deterministic signatures, and quick ones.
fn signer() -> &'static TestKey {
    TestKey::all().iter().find(|key| key.name() == "EdDSA").unwrap()
}

/// All published keys.
static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let keys: Vec<Value> = TestKey::all().iter().map(TestKey::jwk).collect();
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
});

/// The bytes as the query of a callback.
pub fn callback_query(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    let pairs: Vec<(String, String)> = form_urlencoded::parse(bytes).into_owned().collect();
    let parameters = match CallbackParameters::parse(query) {
        Ok(parameters) => parameters,
        Err(error) => return assert!(is_one_line(&error.to_string())),
    };
    assert!(pairs.len() <= MAX_PARAMETERS);
    let only = |name: &str| {
        let mut values = pairs.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let (first, second) = (values.next(), values.next());
        assert!(second.is_none(), "{name} is there twice");
        first
    };
    assert_eq!(only("state").unwrap_or_default(), parameters.state());
    assert_eq!(only("iss"), parameters.issuer());
    assert!(!parameters.state().is_empty() || parameters.error().is_some(), "a code without a state");
    let shown = format!("{parameters:?}");
    let (code, error) = (only("code"), only("error"));
    match parameters.into_outcome() {
        Outcome::Code(found) => {
            assert_eq!((Some(found.as_str()), None), (code, error));
            assert!((1..=MAX_CODE_BYTES).contains(&found.len()));
            // Long enough to be in there by no accident.
            let elsewhere = only("iss").is_some_and(|issuer| format!("{issuer:?}").contains(&found));
            assert!(found.len() < 24 || elsewhere || !shown.contains(&found), "a code is shown");
        }
        Outcome::Error(denial) => {
            assert!(code.is_none() && error.is_some());
            let (found, description) = denial.shown(Sent(&[]));
            for (text, most) in [(found, 64), (description, 300)] {
                assert!(is_harmless(&text) && text.len() <= most, "{text:?}");
            }
        }
    }
}

fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && !b"<>&\"'\\`".contains(&byte))
}

/// A token as it came or, where the bytes have a line end, the header and the payload of one that is well signed.
/// Gives the claims of a token whose signature was found good.
fn verified(bytes: &[u8], purpose: Purpose) -> Option<SignedClaims> {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
        let token = std::str::from_utf8(bytes).ok()?;
        let judged = Jws::parse(token, purpose, &ACCEPTED).and_then(|jws| jws.verify_with(&KEYS));
        match judged {
            Ok(_) => panic!("a signature that nobody made"),
            Err(refusal) => assert!(is_one_line(&refusal.to_string()), "{refusal}"),
        }
        return None;
    };
    let (header, payload) = (&bytes[..at], &bytes[at + 1..]);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let token = signer().sign_text(&signed);
    let jws = match Jws::parse(&token, purpose, &ACCEPTED) {
        Ok(jws) => jws,
        Err(refusal) => {
            assert!(is_one_line(&refusal.to_string()), "{refusal}");
            return None;
        }
    };
    let header: Map<String, Value> = serde_json::from_slice(header).expect("a header that was accepted");
    assert!(["crit", "zip"].iter().all(|name| !header.contains_key(*name)));
    let claims = jws.verify_with(&KEYS).ok()?;
    assert!(matches!(header["alg"].as_str(), Some("EdDSA" | "Ed25519")), "under another algorithm");
    assert!(header.get("kid").is_none_or(|id| *id == signer().header()["kid"]), "by a key of another name");
    let changed = format!("{token}A");
    let refused = Jws::parse(&changed, purpose, &ACCEPTED).and_then(|jws| jws.verify_with(&KEYS));
    assert!(refused.is_err(), "a changed signature is good");
    Some(claims)
}

/// An ID token.
pub fn jws(bytes: &[u8]) {
    let Some(claims) = verified(bytes, Purpose::IdToken) else { return };
    let payload = bytes.split(|byte| *byte == b'\n').skip(1).collect::<Vec<_>>().join(&b'\n');
    let said: Map<String, Value> = serde_json::from_slice(&payload).expect("an object");
    match VerifiedIdToken::check(claims, &EXPECTED, &Occasion::Login { nonce: NONCE }) {
        Ok(token) => {
            check_common(&said);
            assert_eq!(said["nonce"], NONCE);
            assert_eq!(said["sub"], token.subject());
            assert!((1..=255).contains(&token.subject().len()));
            assert!(token.expires_at().plus(SKEW) > NOW);
            let _ = token.check_requested(&["mfa".to_owned()], Some(300), &EXPECTED);
        }
        Err(refusal) => assert!(is_one_line(&refusal.to_string()), "{refusal}"),
    }
}

/// A logout token.
pub fn logout_token(bytes: &[u8]) {
    let Some(claims) = verified(bytes, Purpose::LogoutToken) else { return };
    let payload = bytes.split(|byte| *byte == b'\n').skip(1).collect::<Vec<_>>().join(&b'\n');
    let said: Map<String, Value> = serde_json::from_slice(&payload).expect("an object");
    match LogoutToken::check(claims, &EXPECTED) {
        Ok(token) => {
            check_common(&said);
            assert!(!said.contains_key("nonce"), "an ID token passes for a logout token");
            let event = &said["events"]["http://schemas.openid.net/event/backchannel-logout"];
            assert!(event.is_object());
            assert!((1..=logout::MAX_TEXT_BYTES).contains(&token.jti.len()));
            assert!(token.sid.is_some() || token.subject.is_some());
            assert_eq!(said.get("sid").and_then(Value::as_str), token.sid.as_deref());
            assert_eq!(said.get("sub").and_then(Value::as_str), token.subject.as_deref());
        }
        Err(refusal) => assert!(is_one_line(&refusal.to_string()), "{refusal}"),
    }
}

/// What every accepted token says.
fn check_common(said: &Map<String, Value>) {
    assert_eq!(said["iss"], ISSUER);
    let ours = |audience: &Value| *audience == CLIENT;
    assert!(
        ours(&said["aud"])
            || said["aud"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(ours))
    );
    assert!(said.get("azp").is_none_or(ours));
    let seconds = |name: &str| said[name].as_f64().expect("a number");
    let (now, skew) = (NOW.0 as f64, SKEW.as_secs_f64());
    assert!(seconds("exp") + skew + 1.0 > now, "expired");
    assert!(seconds("iat") <= now + skew + 1.0, "from the future");
    assert!(said.get("nbf").is_none_or(|from| from.as_f64().is_some_and(|from| from <= now + skew + 1.0)));
}

/// A JWK set.
pub fn jwks(bytes: &[u8]) {
    let Ok(set) = KeySet::parse(bytes) else { return };
    let document: Value = serde_json::from_slice(bytes).expect("JSON");
    let entries = document["keys"].as_array().expect("a list");
    assert!((1..=keys::MAX_KEYS).contains(&set.len()) && set.len() <= entries.len());
    assert!(set.same_ids(&KeySet::parse(bytes).unwrap()));
    for secret in [SigningAlgorithm::Hs256, SigningAlgorithm::Hs384, SigningAlgorithm::Hs512] {
        assert!(!set.supports(secret), "a published secret");
    }
    for algorithm in ACCEPTED {
        assert!(set.candidates(None, algorithm).count() <= keys::MAX_TRIES);
        let token = FOREIGN.iter().find(|(name, _)| *name == algorithm.name());
        let Some((_, token)) = token else { continue };
        let jws = Jws::parse(token, Purpose::IdToken, &ACCEPTED).unwrap();
        assert!(jws.verify_with(&set).is_err(), "a key that verifies what it did not sign");
    }
}

/// A token of each algorithm, by keys that are in no set but ours.
static FOREIGN: LazyLock<Vec<(&'static str, String)>> = LazyLock::new(|| {
    let sign = |key: &TestKey| {
        let mut header = key.header();
        header.as_object_mut().unwrap().remove("kid");
        (key.name(), key.sign(&header, &json!({"sub": "alice"})))
    };
    TestKey::all().iter().map(sign).collect()
});

/// A discovery document.
pub fn discovery(bytes: &[u8]) {
    use super::discovery::{Metadata, Problem, address};

    let issuer = Url::parse(ISSUER).unwrap();
    match Metadata::parse(bytes, &CONFIG, &address(&issuer)) {
        Ok(metadata) => {
            let document: Value = serde_json::from_slice(bytes).expect("JSON");
            assert_eq!(document["issuer"], ISSUER);
            let optional =
                [&metadata.user_info_endpoint, &metadata.end_session_endpoint, &metadata.revocation_endpoint];
            let required = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
            for url in required.into_iter().chain(optional.into_iter().flatten()) {
                assert!(url.fragment().is_none());
            }
            let known = |algorithm| ACCEPTED.contains(algorithm);
            assert!(!metadata.signing_algorithms.is_empty() && metadata.signing_algorithms.iter().all(known));
            assert!(metadata.ignored.iter().all(|why| is_one_line(why)));
        }
        Err(Problem::Unreachable(text) | Problem::Unusable(text)) => assert!(is_one_line(&text), "{text:?}"),
    }
}

/// An answer of the UserInfo endpoint.
pub fn userinfo(bytes: &[u8]) {
    use super::userinfo::{Problem, read};

    let said: Option<Value> = serde_json::from_slice(bytes).ok();
    let subject = said.as_ref().and_then(|said| said.get("sub")).and_then(Value::as_str);
    match read(bytes, "alice") {
        Ok(claims) => {
            assert_eq!(subject, Some("alice"));
            assert_eq!(said, Some(Value::Object(claims)));
        }
        Err(Problem::OtherSubject) => assert!(subject.is_some_and(|subject| subject != "alice")),
        Err(Problem::Unusable(text)) => {
            let is_twofold = serde_json::from_slice::<super::jwt::Unique>(bytes).is_err();
            assert!(subject.is_none() || is_twofold);
            assert!(is_one_line(&text));
        }
    }
}

/// An answer of the token endpoint, good or bad.
pub fn token_answer(bytes: &[u8]) {
    if let Ok(refusal) = serde_json::from_slice::<TokenRefusal>(bytes) {
        let shown = refusal.shown(Sent(&[]));
        assert!(is_harmless(&shown) && shown.len() <= 64);
    }
    let Ok(answer) = serde_json::from_slice::<TokenAnswer>(bytes) else { return };
    assert_eq!(format!("{answer:?}"), "TokenAnswer([redacted])");
    assert_eq!(serde_json::to_string(&answer).unwrap(), "null");
    let year = Duration::from_secs(366 * 24 * 3600);
    assert!(answer.expires_in.is_none_or(|lifetime| (Duration::from_secs(1)..=year).contains(&lifetime)));
    let said: Value = serde_json::from_slice(bytes).expect("JSON");
    let text = |name: &str| said[name].as_str().filter(|text| !text.is_empty());
    assert_eq!(answer.id_token.as_ref().map(|token| token.expose().as_str()), text("id_token"));
    assert_eq!(answer.refresh_token.as_ref().map(|token| token.expose().as_str()), text("refresh_token"));
    assert_eq!(answer.access_token.secret(), text("access_token").unwrap_or_default());
}
