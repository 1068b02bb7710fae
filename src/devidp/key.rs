//! The signing key, made at the start and gone at the end, and random values.

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};

/// The system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator does not work")]
pub struct KeyError;

/// An ES256 key (RFC 7518 section 3.4).
pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    /// Names the key: its thumbprint (RFC 7638).
    id: String,
    jwk: Value,
}

impl SigningKey {
    /// A fresh key.
    pub(super) fn generate() -> Result<Self, KeyError> {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = made.map_err(|Unspecified| KeyError)?;
        // An uncompressed point: one byte of form, then both coordinates of 32 bytes (SEC 1 section 2.3.3).
        let point = pair.public_key().as_ref();
        let coordinate = |from, to| point.get(from..to).map(encode).ok_or(KeyError);
        let (x, y) = (coordinate(1, 33)?, coordinate(33, 65)?);
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = encode(digest(&SHA256, canonical.as_bytes()).as_ref());
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": "sig", "alg": "ES256",
        });
        Ok(Self { pair, id, jwk })
    }

    /// The public half, as a set of one (RFC 7517 section 5).
    pub(super) fn public_set(&self) -> Value {
        json!({ "keys": [self.jwk] })
    }

    /// `claims` as a signed JWT.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, Unspecified> {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let mut token = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes())?;
        token.push('.');
        token.push_str(&encode(signature));
        Ok(token)
    }
}

/// 256 random bits for a code, a token, a cookie or a secret.
pub(super) fn random_token() -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(encode(bytes))
}

/// Whether two secrets are the same; takes the same time wherever they differ.
pub(super) fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// The left half of the SHA-256 of `token`: `at_hash` (OpenID Connect Core section 3.1.3.6).
pub(super) fn half_hash(token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    encode(hash.as_ref().get(..16).unwrap_or_default())
}

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    encode(digest(&SHA256, verifier.as_bytes()))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
