//! Signing keys of the test provider: made once per process, two generations of each kind.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A signature algorithm with a key of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The name in headers and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// One key: an algorithm and which of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub algorithm: Algorithm,
    /// 0 or 1.
    pub generation: usize,
}

impl Key {
    pub fn new(algorithm: Algorithm, generation: usize) -> Self {
        Self { algorithm, generation }
    }

    /// The key id in the JWKS.
    pub fn id(self) -> String {
        format!("{}-{}", self.algorithm.name().to_lowercase(), self.generation)
    }

    /// The public half as a JWK.
    pub fn jwk(self) -> Value {
        let mut jwk = match &KEYS[self.generation] {
            pairs if matches!(self.algorithm, Algorithm::Rs256 | Algorithm::Ps256) => {
                let [n, e] = rsa_integers(pairs.rsa.public_key().as_ref());
                json!({ "kty": "RSA", "n": n, "e": e })
            }
            pairs if self.algorithm == Algorithm::Es256 => {
                let point = pairs.ec.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
            pairs => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pairs.ed.public_key().as_ref()) }),
        };
        jwk["kid"] = json!(self.id());
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm.name());
        jwk
    }

    /// The public half as it would be confused with an HMAC secret: DER, PKCS #1 for RSA.
    pub fn public_bytes(self) -> Vec<u8> {
        let pairs = &KEYS[self.generation];
        match self.algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => pairs.rsa.public_key().as_ref().to_vec(),
            Algorithm::Es256 => pairs.ec.public_key().as_ref().to_vec(),
            Algorithm::EdDsa => pairs.ed.public_key().as_ref().to_vec(),
        }
    }

    /// Signs.
    pub fn sign(self, message: &[u8]) -> Vec<u8> {
        let (pairs, random) = (&KEYS[self.generation], SystemRandom::new());
        let rsa = |padding: &'static dyn aws_lc_rs::signature::RsaEncoding| {
            let mut signature = vec![0; pairs.rsa.public_modulus_len()];
            pairs.rsa.sign(padding, &random, message, &mut signature).unwrap();
            signature
        };
        match self.algorithm {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::Es256 => pairs.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            Algorithm::EdDsa => pairs.ed.sign(message).as_ref().to_vec(),
        }
    }
}

/// HMAC-SHA256, for tokens that confuse the kinds of keys.
pub fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

/// base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// 128 random bits, readable.
pub fn random() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).unwrap();
    encode(bytes)
}

struct Pairs {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static KEYS: LazyLock<[Pairs; 2]> = LazyLock::new(|| {
    [(), ()].map(|()| Pairs {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        ed: Ed25519KeyPair::generate().unwrap(),
    })
});

/// Modulus and exponent of a PKCS #1 RSAPublicKey, a DER sequence of two integers.
fn rsa_integers(der: &[u8]) -> [String; 2] {
    let (sequence, _) = der_value(der);
    let (n, rest) = der_value(sequence);
    let (e, _) = der_value(rest);
    [n, e].map(|integer| encode(if integer[0] == 0 { &integer[1..] } else { integer }))
}

/// The content of the first DER value, and what follows it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + bytes)
        }
    };
    der[start..].split_at(length)
}
