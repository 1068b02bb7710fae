//! Compact JWS (RFC 7515): the shape, the header, the signature. What the claims mean is not known here.
//!
//! A token goes through in one direction: text, [`Jws`] (well-formed, algorithm accepted), and only after a
//! good signature [`SignedClaims`]. Nothing of the payload can be read before.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::algorithm::SigningAlgorithm;
use super::error::Refusal;
use super::jwks::KeySet;
use super::told::shown_name;

/// A token that is well-formed and names an accepted algorithm. Nothing in it is verified.
pub(super) struct Jws<'a> {
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// What a token is for (RFC 8725 section 3.11): one that says that it is something else is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An ID token.
    IdToken,
    /// A logout token (Back-Channel Logout 1.0 section 2.4), which many providers give the type `JWT`.
    LogoutToken,
}

/// Claims under a good signature. Only [`Jws::verify`] makes one.
#[derive(Debug)]
pub(super) struct SignedClaims(Map<String, Value>);

/// Largest token that is looked at. A token with 400 groups has about 15 KB.
pub(super) const MAX_TOKEN_BYTES: usize = 128 * 1024;

impl<'a> Jws<'a> {
    /// Reads `token`, and judges everything that can be judged without a key.
    pub fn parse(token: &'a str, purpose: Purpose, accepted: &[SigningAlgorithm]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::TokenTooLarge { max: MAX_TOKEN_BYTES });
        }
        // Three parts exactly: five would be an encrypted token (JWE), which is not supported.
        let (signed, signature) =
            token.rsplit_once('.').ok_or(Refusal::Malformed("it has no three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed("it has no three parts"))?;
        if payload.contains('.') {
            return Err(Refusal::Malformed("it has more than three parts"));
        }
        let header = object(header, "its header")?;
        let algorithm = algorithm(&header, accepted)?;
        if header.contains_key("crit") {
            // RFC 7515 section 4.1.11: no extension is understood here, so none may be critical.
            return Err(Refusal::Critical);
        }
        if header.contains_key("zip") || header.get("b64").is_some_and(|plain| *plain != Value::Bool(true)) {
            return Err(Refusal::Malformed("its payload is compressed or not encoded"));
        }
        check_type(header.get("typ"), purpose)?;
        let key_id = match header.get("kid") {
            None => None,
            // Only ever compared with the published ids. `jku`, `jwk`, `x5u` and `x5c` are not read at all.
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Refusal::Malformed("its `kid` is not a string")),
        };
        if signature.is_empty() {
            return Err(Refusal::Malformed("it has no signature"));
        }
        Ok(Self { algorithm, key_id, signed, payload, signature })
    }

    /// The algorithm that it claims to be signed with: one of the accepted.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Verifies the signature under the published keys that fit, and then reads the claims.
    pub fn verify_with(&self, keys: &KeySet) -> Result<SignedClaims, Refusal> {
        match self.fits(keys) {
            true => self.verify(keys.candidates(self.key_id.as_deref(), self.algorithm)),
            false => Err(Refusal::UnknownKey(self.key_id.as_deref().map(shown_name))),
        }
    }

    /// Whether newer keys could verify what `keys` could not. A named key that is there and says no has said
    /// no: only an unknown one, or none named, is worth asking the provider again.
    pub fn may_be_newer_than(&self, keys: &KeySet) -> bool {
        self.key_id.is_none() || !self.fits(keys)
    }

    fn fits(&self, keys: &KeySet) -> bool {
        keys.candidates(self.key_id.as_deref(), self.algorithm).next().is_some()
    }

    /// Verifies the signature under any of `keys`, and then reads the claims.
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k DecodingKey>,
    ) -> Result<SignedClaims, Refusal> {
        let good = |key: &DecodingKey| {
            let verified = jsonwebtoken::crypto::verify(
                self.signature,
                self.signed.as_bytes(),
                key,
                self.algorithm.verifier(),
            );
            matches!(verified, Ok(true))
        };
        if !keys.into_iter().any(good) {
            return Err(Refusal::Signature);
        }
        object(self.payload, "its payload").map(SignedClaims)
    }
}

impl SignedClaims {
    /// The claims, which the provider signed. Whether they are meant for us is for the caller to check.
    pub fn into_inner(self) -> Map<String, Value> {
        self.0
    }
}

fn algorithm(
    header: &Map<String, Value>,
    accepted: &[SigningAlgorithm],
) -> Result<SigningAlgorithm, Refusal> {
    let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let refused = || Refusal::Algorithm { found: shown_name(name), accepted: accepted.to_vec() };
    let algorithm = name.parse().map_err(|_| refused())?;
    accepted.contains(&algorithm).then_some(algorithm).ok_or_else(refused)
}

fn check_type(kind: Option<&Value>, purpose: Purpose) -> Result<(), Refusal> {
    let known: &[&str] = match purpose {
        Purpose::IdToken => &["jwt", "jose", "application/jwt"],
        Purpose::LogoutToken => &["jwt", "application/jwt", "logout+jwt", "application/logout+jwt"],
    };
    match kind {
        None => Ok(()),
        Some(Value::String(name)) => match known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            true => Ok(()),
            false => Err(Refusal::Type(shown_name(name))),
        },
        Some(_) => Err(Refusal::Malformed("its `typ` is not a string")),
    }
}

/// Base64url without padding and without stray bits, holding one JSON object.
fn object(part: &str, what: &'static str) -> Result<Map<String, Value>, Refusal> {
    let malformed = || {
        Refusal::Malformed(match what {
            "its header" => "its header is not base64url of a JSON object",
            _ => "its payload is not base64url of a JSON object",
        })
    };
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed())?;
    serde_json::from_slice::<Unique>(&bytes).map(|unique| unique.0).map_err(|_| malformed())
}

/// A JSON object that names no member twice: with duplicates, two readers could see two tokens
/// (RFC 7515 section 4, RFC 7519 section 4).
pub(super) struct Unique(pub(super) Map<String, Value>);

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Unique;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member is named twice"));
                    }
                }
                Ok(Unique(map))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::testing::{TestKey, token_of};
    use serde_json::json;

    const ACCEPTED: [SigningAlgorithm; 9] = SigningAlgorithm::DEFAULT;

    fn verify(token: &str, key: &TestKey) -> Result<Map<String, Value>, Refusal> {
        let set = key.key_set();
        let jws = Jws::parse(token, Purpose::IdToken, &ACCEPTED)?;
        jws.verify_with(&set).map(SignedClaims::into_inner)
    }

    #[test]
    fn rp_12_good_signatures_pass_and_broken_ones_do_not() {
        for key in TestKey::all() {
            let claims = json!({"sub": "alice"});
            let token = key.sign(&key.header(), &claims);
            assert_eq!(Value::from(verify(&token, key).unwrap()), claims, "{}", key.name());

            let (signed, signature) = token.rsplit_once('.').unwrap();
            let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
            flipped[10] ^= 1;
            let flipped = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&flipped));
            let other = signed.replacen('.', ".e30.", 1);
            let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"mallory"}"#);
            let (header, _) = signed.split_once('.').unwrap();
            for (name, bad) in [
                ("flipped", flipped),
                ("no signature", format!("{signed}.")),
                ("truncated", token[..token.len() - 4].to_owned()),
                ("other payload", format!("{header}.{payload}.{signature}")),
                ("five parts", format!("{other}.{signature}.x")),
                ("four parts", format!("{signed}.{signature}.{signature}")),
                ("dot before", format!(".{token}")),
                ("dot after", format!("{token}.")),
                ("two parts", signed.to_owned()),
                ("one part", header.to_owned()),
                ("nothing", String::new()),
                ("padded", format!("{token}==")),
                ("space", format!("{token} ")),
                ("standard alphabet", format!("{token}+/")),
            ] {
                assert!(verify(&bad, key).is_err(), "{} {name}", key.name());
            }
        }
    }

    #[test]
    fn rp_12_non_canonical_base64url_is_refused() {
        let key = TestKey::es256();
        // {"a":1} has 7 bytes: the last character carries stray bits that a lax decoder ignores.
        let token = key.sign(&key.header(), &json!({"a": 1}));
        let (signed, _) = token.rsplit_once('.').unwrap();
        let last = signed.chars().last().unwrap();
        let stray = char::from(u8::try_from(last).unwrap() + 1);
        let signed = format!("{}{stray}", &signed[..signed.len() - 1]);
        let token = key.sign_text(&signed);
        assert!(matches!(verify(&token, key), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn rp_11_and_rp_13_algorithms_outside_the_list_are_refused() {
        let key = TestKey::rs256();
        for alg in [
            json!("none"),
            json!("None"),
            json!("nOnE"),
            json!(""),
            json!(null),
            json!(["RS256"]),
            json!("HS256"),
            json!("ES512"),
            json!("rs256"),
        ] {
            let mut header = key.header();
            header["alg"] = alg.clone();
            let token = key.sign(&header, &json!({}));
            let (signed, _) = token.rsplit_once('.').unwrap();
            for token in [token.clone(), format!("{signed}.")] {
                assert!(matches!(verify(&token, key), Err(Refusal::Algorithm { .. })), "{alg}");
            }
        }
        let mut header = key.header();
        header.as_object_mut().unwrap().remove("alg");
        assert!(matches!(verify(&key.sign(&header, &json!({})), key), Err(Refusal::Algorithm { .. })));
    }

    #[test]
    fn a_key_is_never_used_with_the_algorithm_of_another_kind() {
        for key in TestKey::all() {
            for other in TestKey::all() {
                let mut header = key.header();
                header["alg"] = json!(other.name());
                let token = key.sign(&header, &json!({}));
                let verified = verify(&token, key).is_ok();
                assert_eq!(verified, key.name() == other.name(), "{} as {}", key.name(), other.name());
            }
        }
    }

    #[test]
    fn rp_15_and_crit_header_members() {
        let key = TestKey::es256();
        let evil = TestKey::rs256();
        for (name, value, good) in [
            ("crit", json!(["exp"]), false),
            ("crit", json!([]), false),
            ("b64", json!(false), false),
            ("zip", json!("DEF"), false),
            ("typ", json!("JWT"), true),
            ("typ", json!("jwt"), true),
            ("typ", json!("at+jwt"), false),
            ("typ", json!("logout+jwt"), false),
            ("typ", json!(7), false),
            ("kid", json!(7), false),
            ("kid", json!("../../dev/null"), false),
            ("kid", json!("' OR 1=1 --"), false),
            ("kid", json!("https://evil.example/key"), false),
            ("jwk", evil.jwk(), true),
            ("jku", json!("https://evil.example/jwks"), true),
            ("x5u", json!("https://evil.example/x5u"), true),
            ("x5c", json!(["AAAA"]), true),
        ] {
            let mut header = key.header();
            header[name] = value.clone();
            // Signed by the right key: what is merely ignored does no harm.
            let token = key.sign(&header, &json!({}));
            assert_eq!(verify(&token, key).is_ok(), good, "{name} {value}");
            // Signed by the key that the header brings along: never.
            header["alg"] = json!("RS256");
            assert!(verify(&evil.sign(&header, &json!({})), key).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn bodies_that_are_no_plain_objects_are_refused() {
        let key = TestKey::es256();
        let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        for payload in
            ["", "[]", "null", "7", "{", "{\"a\":1}{}", "{\"a\":1,\"a\":2}", "{\"a\":1e999}", &deep]
        {
            let token =
                key.sign_text(&format!("{}.{}", token_of(&key.header()), URL_SAFE_NO_PAD.encode(payload)));
            assert!(matches!(verify(&token, key), Err(Refusal::Malformed(_))), "{payload:.20}");
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"ES256"}"#);
        assert!(verify(&key.sign_text(&format!("{header}.e30")), key).is_err());
        let large = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(verify(&large, key).unwrap_err(), Refusal::TokenTooLarge { max: MAX_TOKEN_BYTES });
        assert!(matches!(verify(&large[1..], key), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn the_part_that_can_t_be_read_is_named() {
        let key = TestKey::es256();
        let header = token_of(&key.header());
        for (signed, named) in [("x.e30".to_owned(), "its header"), (format!("{header}.x"), "its payload")] {
            let outcome = verify(&key.sign_text(&signed), key);
            let Err(Refusal::Malformed(what)) = outcome else { panic!("{signed}: {outcome:?}") };
            assert!(what.starts_with(named), "{what}");
        }
    }
}
