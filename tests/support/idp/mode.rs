//! One mode for each module of the OpenID Foundation's Basic RP and Config RP certification plans.

use serde_json::json;

use super::behaviour::{Behaviour, ClientAuthentication, Signer, break_signature, set};
use super::keys::{Algorithm, Key};

/// A module of `oidcc-client-basic-certification-test-plan` or `oidcc-client-config-certification-test-plan`,
/// without the prefix `oidcc-client-test-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `oidcc-client-test` itself.
    Good,
    InvalidIss,
    MissingSub,
    InvalidAud,
    MissingIat,
    KidAbsentSingleJwks,
    KidAbsentMultipleJwks,
    /// `idtoken-sig-rs256`, and with the other keys what its name would be.
    IdTokenSigned,
    IdTokenSigNone,
    /// `invalid-sig-rs256`, likewise.
    InvalidSignature,
    UserInfoInvalidSub,
    NonceInvalid,
    ScopeUserInfoClaims,
    ClientSecretBasic,
    DiscoveryOpenidConfig,
    DiscoveryJwksUriKeys,
    DiscoveryIssuerMismatch,
    SigningKeyRotationJustBeforeSigning,
    SigningKeyRotation,
}

impl Mode {
    /// The provider that the module describes, signing with `algorithm`.
    pub fn behaviour(self, algorithm: Algorithm) -> Behaviour {
        let good = Behaviour::good(algorithm);
        match self {
            // The provider's JWKS path is random in every run, so that this is the module's normal case too.
            Self::Good
            | Self::IdTokenSigned
            | Self::DiscoveryOpenidConfig
            | Self::DiscoveryJwksUriKeys
            | Self::SigningKeyRotation => good,
            Self::InvalidIss => good.claim("iss", json!("https://other.example.com")),
            Self::MissingSub => good.claim("sub", json!(null)),
            Self::InvalidAud => good.claim("aud", json!("another-client")),
            Self::MissingIat => good.claim("iat", json!(null)),
            Self::KidAbsentSingleJwks => {
                let no_kid = |jwks: &mut serde_json::Value| set(&mut jwks["keys"][0], "kid", json!(null));
                good.header(|header| set(header, "kid", json!(null))).jwks(no_kid)
            }
            Self::KidAbsentMultipleJwks => {
                let mut several = good.header(|header| set(header, "kid", json!(null)));
                several.published = vec![Key::new(algorithm, 1), Key::new(algorithm, 0)];
                several.jwks(|jwks| {
                    for jwk in jwks["keys"].as_array_mut().unwrap() {
                        set(jwk, "kid", json!(null));
                    }
                })
            }
            Self::IdTokenSigNone => good.signer(Signer::Unsigned(Some("none"))),
            Self::InvalidSignature => good.token(|token| break_signature(&token)),
            Self::UserInfoInvalidSub => {
                let mut stranger = good;
                stranger.user_info["sub"] = json!("mallory");
                stranger
            }
            Self::NonceInvalid => good.claim("nonce", json!("not-the-one-that-was-sent")),
            Self::ScopeUserInfoClaims => {
                let mut sparse = good;
                sparse.user = json!({ "sub": "alice" });
                sparse.user_info = json!({
                    "sub": "alice",
                    "name": "Alice Example",
                    "given_name": "Alice",
                    "email": "alice@acme.com",
                    "email_verified": true,
                    "phone_number": "+49 30 1234",
                    "phone_number_verified": true,
                    "address": { "locality": "Berlin", "country": "DE" },
                    "groups": ["staff"],
                });
                sparse
            }
            Self::ClientSecretBasic => {
                let mut strict = good.discovery(|document| {
                    document["token_endpoint_auth_methods_supported"] = json!(["client_secret_basic"])
                });
                strict.client_authentication = ClientAuthentication::Basic;
                strict
            }
            Self::DiscoveryIssuerMismatch => good.discovery(|document| {
                let issuer = format!("{}/other", document["issuer"].as_str().unwrap());
                document["issuer"] = json!(issuer);
            }),
            Self::SigningKeyRotationJustBeforeSigning => {
                let mut rotating = good;
                rotating.rotate_at_token = Some(Key::new(algorithm, 1));
                rotating
            }
        }
    }
}
