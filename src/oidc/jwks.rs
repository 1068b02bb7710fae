//! The provider's public keys (RFC 7517), as far as a signature of a token can be verified with them.
//!
//! What is unknown or unusable is passed over, never fatal: other keys, encryption keys, symmetric keys
//! (a secret that anyone can read), and RSA keys of odd sizes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::algorithm::SigningAlgorithm;

/// The usable keys of one JWK set.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// One usable key.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the key may be used with, if the set says so.
    algorithm: Option<SigningAlgorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why an answer is no JWK set. The blame is the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    /// Not `{"keys": [...]}`.
    #[error("it is not a JWK set")]
    Malformed,
    /// Nothing in it verifies a signature.
    #[error("it has no usable signing key (RSA 2048 to 8192 bits, P-256, P-384, Ed25519)")]
    Empty,
}

/// Most entries of a set that are looked at.
pub(super) const MAX_KEYS: usize = 100;
/// Most keys that one token is tried with: only a token without `kid` meets more than one or two.
pub(super) const MAX_TRIES: usize = 8;
/// Sizes of RSA moduli, in bits: below is weak, above costs too much time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Most bytes of an RSA exponent; it is 65537 everywhere.
const MAX_EXPONENT_BYTES: usize = 4;

impl KeySet {
    /// Reads a set; at least one key is usable.
    pub fn parse(body: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set<'a> {
            // Raw, so that entries past the bound cost nothing.
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }

        let set: Set<'_> = serde_json::from_slice(body).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<Key> = set.keys.iter().take(MAX_KEYS).filter_map(|raw| Key::parse(raw.get())).collect();
        match keys.is_empty() {
            true => Err(KeySetError::Empty),
            false => Ok(Self { keys }),
        }
    }

    /// The keys that a token with this `kid` and `alg` may be signed with: those of that `kid`, or, for a
    /// token without, all that fit the algorithm (OIDC Core section 10.1). At most [`MAX_TRIES`].
    pub fn candidates(
        &self,
        id: Option<&str>,
        algorithm: SigningAlgorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            (id.is_none() || key.id.as_deref() == id)
                && key.kind.signs(algorithm)
                && key.algorithm.is_none_or(|only| only == algorithm)
        };
        self.keys.iter().filter(fits).map(|key| &key.key).take(MAX_TRIES)
    }

    /// How many keys are usable.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key of this set could verify a token signed with `algorithm`.
    pub fn supports(&self, algorithm: SigningAlgorithm) -> bool {
        self.candidates(None, algorithm).next().is_some()
    }

    /// Whether both sets have the same key ids.
    pub fn same_ids(&self, other: &Self) -> bool {
        let ids = |set: &Self| set.keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
        ids(self) == ids(other)
    }
}

impl KeyKind {
    fn signs(self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Self::P256 => algorithm == Es256,
            Self::P384 => algorithm == Es384,
            Self::Ed25519 => algorithm == EdDsa,
        }
    }
}

impl Key {
    fn parse(json: &str) -> Option<Self> {
        let jwk: Value = serde_json::from_str(json).ok()?;
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        // RFC 7517 sections 4.2 and 4.3: a key for another purpose is not for this one.
        if jwk.get("use").is_some_and(|usage| usage != "sig") || !may_verify(jwk.get("key_ops")) {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => Some(name.as_str()?.parse().ok()?),
        };
        let id = match jwk.get("kid") {
            None | Some(Value::Null) => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        let (kind, key) = match (text("kty")?, text("crv")) {
            ("RSA", _) => (KeyKind::Rsa, rsa(text("n")?, text("e")?)?),
            ("EC", Some("P-256")) => (KeyKind::P256, point(text("x")?, text("y")?, 32)?),
            ("EC", Some("P-384")) => (KeyKind::P384, point(text("x")?, text("y")?, 48)?),
            ("OKP", Some("Ed25519")) => {
                (KeyKind::Ed25519, DecodingKey::from_ed_der(&decode(text("x")?, 32)?))
            }
            _ => return None,
        };
        Some(Self { id, algorithm, kind, key })
    }
}

fn may_verify(operations: Option<&Value>) -> bool {
    match operations {
        None | Some(Value::Null) => true,
        Some(operations) => {
            operations.as_array().is_some_and(|list| list.iter().any(|each| each == "verify"))
        }
    }
}

fn rsa(modulus: &str, exponent: &str) -> Option<DecodingKey> {
    let modulus = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let exponent = URL_SAFE_NO_PAD.decode(exponent).ok()?;
    // Some providers send a leading zero (RFC 7518 section 6.3.1.1 forbids it); the number is the same.
    let modulus = strip_zeros(&modulus);
    let exponent = strip_zeros(&exponent);
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    let odd_exponent = exponent.last().is_some_and(|last| last % 2 == 1) && exponent != [1];
    (RSA_BITS.contains(&bits) && odd_exponent && exponent.len() <= MAX_EXPONENT_BYTES)
        .then(|| DecodingKey::from_rsa_raw_components(modulus, exponent))
}

fn strip_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// RFC 7518 section 6.2.1.2: coordinates have the full length of the curve. The verification checks that the
/// point is on the curve.
fn point(x: &str, y: &str, length: usize) -> Option<DecodingKey> {
    let mut point = vec![4];
    point.extend(decode(x, length)?);
    point.extend(decode(y, length)?);
    Some(DecodingKey::from_ec_der(&point))
}

fn decode(text: &str, length: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn modulus(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xa5; bits / 8];
        modulus[0] = 0x80;
        modulus
    }

    fn rsa_jwk(bits: usize) -> Value {
        json!({"kty": "RSA", "n": b64(&modulus(bits)), "e": "AQAB", "kid": "r"})
    }

    fn usable(jwk: &Value) -> bool {
        KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).is_ok()
    }

    #[test]
    fn rp_09_and_dos_09_only_signing_keys_of_sane_sizes_are_used() {
        let with = |mut jwk: Value, name: &str, value: Value| {
            jwk[name] = value;
            jwk
        };
        let ec = json!({"kty": "EC", "crv": "P-256", "x": b64(&[1; 32]), "y": b64(&[2; 32])});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[3; 32])});
        let mut padded = vec![0];
        padded.extend(modulus(2048));
        let rows = [
            ("rsa 2048", rsa_jwk(2048), true),
            ("rsa 8192", rsa_jwk(8192), true),
            ("rsa 1024", rsa_jwk(1024), false),
            ("rsa 2040", rsa_jwk(2040), false),
            ("rsa 16384", rsa_jwk(16384), false),
            ("rsa leading zero", with(rsa_jwk(2048), "n", json!(b64(&padded))), true),
            (
                "rsa 2047",
                with(rsa_jwk(2048), "n", json!(b64(&[&[0x40], &modulus(2040)[..]].concat()))),
                false,
            ),
            (
                "rsa 8193",
                with(rsa_jwk(2048), "n", json!(b64(&[&[0x01], &modulus(8192)[..]].concat()))),
                false,
            ),
            ("rsa empty", with(rsa_jwk(2048), "n", json!("")), false),
            ("rsa exponent 1", with(rsa_jwk(2048), "e", json!("AQ")), false),
            ("rsa exponent even", with(rsa_jwk(2048), "e", json!("BA")), false),
            ("rsa exponent 0", with(rsa_jwk(2048), "e", json!("AA")), false),
            ("rsa exponent huge", with(rsa_jwk(2048), "e", json!(b64(&[1; 300]))), false),
            ("use sig", with(rsa_jwk(2048), "use", json!("sig")), true),
            ("use enc", with(rsa_jwk(2048), "use", json!("enc")), false),
            ("ops verify", with(rsa_jwk(2048), "key_ops", json!(["verify"])), true),
            ("ops encrypt", with(rsa_jwk(2048), "key_ops", json!(["encrypt"])), false),
            ("alg RSA-OAEP", with(rsa_jwk(2048), "alg", json!("RSA-OAEP")), false),
            ("alg PS256", with(rsa_jwk(2048), "alg", json!("PS256")), true),
            ("kid number", with(rsa_jwk(2048), "kid", json!(7)), false),
            ("padding", with(rsa_jwk(2048), "e", json!("AQAB=")), false),
            ("ec", ec.clone(), true),
            ("ec short x", with(ec.clone(), "x", json!(b64(&[1; 31]))), false),
            ("ec long x", with(ec.clone(), "x", json!(b64(&[0; 33]))), false),
            ("ec P-521", with(ec.clone(), "crv", json!("P-521")), false),
            ("ec secp256k1", with(ec, "crv", json!("secp256k1")), false),
            ("ed", ed.clone(), true),
            ("ed Ed25519", with(ed.clone(), "alg", json!("Ed25519")), true),
            ("ed448", with(ed, "crv", json!("Ed448")), false),
            ("oct", json!({"kty": "oct", "k": b64(&[0; 32])}), false),
            ("unknown kty", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}), false),
            ("no object", json!("key"), false),
        ];
        for (name, jwk, good) in rows {
            assert_eq!(usable(&jwk), good, "{name}");
        }
    }

    #[test]
    fn unknown_entries_do_not_spoil_the_set() {
        let set = json!({"extra": 1, "keys": [7, null, {"kty": "AKP"}, rsa_jwk(2048)]});
        assert_eq!(KeySet::parse(set.to_string().as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_set_is_an_error() {
        for body in ["", "[]", "{}", "<html>", "{\"keys\":{}}", "{\"keys\":null}", "\u{feff}{\"keys\":[]}"] {
            assert_eq!(KeySet::parse(body.as_bytes()).unwrap_err(), KeySetError::Malformed, "{body}");
        }
        assert_eq!(KeySet::parse(b"{\"keys\":[\"\xff\"]}").unwrap_err(), KeySetError::Malformed);
        assert_eq!(KeySet::parse(b"{\"keys\":[]}").unwrap_err(), KeySetError::Empty);
    }

    #[test]
    fn dos_09_entries_past_the_bound_are_not_read() {
        let set = json!({"keys": vec![rsa_jwk(2048); 10_000 / 8]});
        assert_eq!(KeySet::parse(set.to_string().as_bytes()).unwrap().len(), MAX_KEYS);
    }

    #[test]
    fn candidates_fit_id_kind_and_algorithm() {
        let ec = |kid: &str, length: usize, crv: &str| json!({"kty": "EC", "crv": crv, "kid": kid, "x": b64(&vec![1; length]), "y": b64(&vec![2; length])});
        let mut pss = rsa_jwk(2048);
        pss["alg"] = json!("PS256");
        pss["kid"] = json!("p");
        let set = json!({"keys": [rsa_jwk(2048), pss, ec("e", 32, "P-256"), ec("f", 48, "P-384")]});
        let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
        use SigningAlgorithm::*;
        for (id, algorithm, count) in [
            (None, Rs256, 1),
            (None, Ps256, 2),
            (None, Es256, 1),
            (None, EdDsa, 0),
            (None, Hs256, 0),
            (Some("r"), Rs256, 1),
            (Some("p"), Rs256, 0),
            (Some("p"), Ps256, 1),
            (Some("e"), Es256, 1),
            (Some("e"), Es384, 0),
            (Some("e"), Rs256, 0),
            (Some("x"), Rs256, 0),
        ] {
            assert_eq!(set.candidates(id, algorithm).count(), count, "{id:?} {algorithm}");
        }
        let many = json!({"keys": vec![rsa_jwk(2048); 50]});
        let many = KeySet::parse(many.to_string().as_bytes()).unwrap();
        assert_eq!(many.candidates(None, Rs256).count(), MAX_TRIES);
    }
}
