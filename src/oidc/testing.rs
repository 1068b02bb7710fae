//! Keys made at test time that sign tokens, good and bad.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "only for tests and for fuzzing, where a panic is a finding"
)]

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::secret::{Secret, Source};

use super::config::{ClientAuthentication, Config, UserInfoMode};
use super::jwks::KeySet;

/// A private key with the algorithm that it signs with.
pub(super) struct TestKey {
    name: &'static str,
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

static KEYS: LazyLock<Vec<TestKey>> = LazyLock::new(|| {
    vec![
        TestKey::new("RS256", "rs"),
        TestKey::new("PS256", "ps"),
        TestKey::new("ES256", "es"),
        TestKey::new("ES384", "es384"),
        TestKey::new("EdDSA", "ed"),
    ]
});

impl TestKey {
    pub fn new(name: &'static str, id: &str) -> Self {
        let ec = |algorithm| EcdsaKeyPair::generate(algorithm).unwrap();
        let pair = match name {
            "RS256" => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), &RSA_PKCS1_SHA256),
            "PS256" => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), &RSA_PSS_SHA256),
            "ES256" => Pair::Ec(ec(&ECDSA_P256_SHA256_FIXED_SIGNING), "P-256"),
            "ES384" => Pair::Ec(ec(&ECDSA_P384_SHA384_FIXED_SIGNING), "P-384"),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            other => panic!("no test key for {other}"),
        };
        Self { name, id: id.to_owned(), pair }
    }

    pub fn all() -> &'static [TestKey] {
        &KEYS
    }

    pub fn rs256() -> &'static TestKey {
        &KEYS[0]
    }

    pub fn es256() -> &'static TestKey {
        &KEYS[2]
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn header(&self) -> Value {
        json!({"alg": self.name, "typ": "JWT", "kid": self.id})
    }

    pub fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair, _) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": b64(public.modulus().big_endian_without_leading_zero()),
                    "e": b64(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Pair::Ec(pair, curve) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    pub fn key_set(&self) -> KeySet {
        KeySet::parse(json!({"keys": [self.jwk()]}).to_string().as_bytes()).unwrap()
    }

    #[cfg(test)]
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair, _) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            _ => panic!("only for RSA"),
        }
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&format!("{}.{}", token_of(header), token_of(claims)))
    }

    pub fn sign_text(&self, signed: &str) -> String {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair, _) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A service of the client `me` at `issuer`.
pub(super) fn config(issuer: &str) -> Config {
    Config {
        issuer: issuer.to_owned(),
        client_id: "me".to_owned(),
        client_secret: Some(Source::Inline(Secret::new("client-secret".to_owned()))),
        redirect_uri: "https://app.example/aporeto/oidc/callback".parse().unwrap(),
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        client_authentication: ClientAuthentication::Auto,
        signing_algorithms: None,
        clock_skew: Duration::from_secs(60),
        user_info: UserInfoMode::Auto,
        authorization_parameters: Vec::new(),
        certificate_authority: None,
        needed_claims: BTreeSet::new(),
    }
}

/// One part of a token.
pub(super) fn token_of(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}
