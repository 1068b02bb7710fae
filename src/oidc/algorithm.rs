//! The signature algorithms of tokens: a closed set, so that no name in a token can add one.

use std::fmt;
use std::str::FromStr;

/// A JWS algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1) that this version verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519. `Ed25519` (RFC 9864) is another name of it.
    EdDsa,
    /// HMAC with SHA-256 under the client secret.
    Hs256,
    /// HMAC with SHA-384 under the client secret.
    Hs384,
    /// HMAC with SHA-512 under the client secret.
    Hs512,
}

impl SigningAlgorithm {
    /// What is accepted where the configuration names no algorithm: all that rest on a public key.
    pub const DEFAULT: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// All that can be configured.
    pub const ALL: [Self; 12] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
    ];

    /// The name in `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// Whether the key is the client secret instead of a public key of the provider.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    pub(super) fn verifier(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Rs512 => jsonwebtoken::Algorithm::RS512,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Ps384 => jsonwebtoken::Algorithm::PS384,
            Self::Ps512 => jsonwebtoken::Algorithm::PS512,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
        }
    }
}

/// The algorithms that a token may be signed with: the configured (or default) ones, cut to those that the
/// discovery document offers. Where it offers none, what was configured, else RS256, the standard's default.
pub(super) fn accepted(
    configured: Option<&[SigningAlgorithm]>,
    offered: Option<&[String]>,
) -> Vec<SigningAlgorithm> {
    match (configured, offered) {
        (None, None) => vec![SigningAlgorithm::Rs256],
        (Some(configured), None) => configured.to_vec(),
        (configured, Some(offered)) => {
            let offered: Vec<_> = offered.iter().filter_map(|name| name.parse().ok()).collect();
            let wanted = configured.unwrap_or(&SigningAlgorithm::DEFAULT);
            wanted.iter().copied().filter(|algorithm| offered.contains(algorithm)).collect()
        }
    }
}

/// A name that is no [`SigningAlgorithm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a supported signature algorithm; use RS256-512, PS256-512, ES256, ES384, EdDSA or HS256-512")]
pub struct UnknownAlgorithm;

impl FromStr for SigningAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == "Ed25519" {
            return Ok(Self::EdDsa);
        }
        // Case-sensitive (RFC 7515 section 4.1.1): "none" in any spelling is simply not among them.
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::SigningAlgorithm::*;
    use super::*;

    #[test]
    fn names_are_exact() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        assert_eq!("Ed25519".parse(), Ok(EdDsa));
        for name in ["none", "None", "nOnE", "", "rs256", "RS256 ", "ES512", "ES256K", "Ed448"] {
            assert_eq!(name.parse::<SigningAlgorithm>(), Err(UnknownAlgorithm), "{name:?}");
        }
    }

    #[test]
    fn accepted_is_configuration_cut_to_the_offer() {
        let offer = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        type Row<'a> = (Option<&'a [SigningAlgorithm]>, Option<Vec<String>>, &'a [SigningAlgorithm]);
        let rows: [Row<'_>; 8] = [
            (None, None, &[Rs256]),
            (None, offer(&["RS256", "none", "HS256"]), &[Rs256]),
            (None, offer(&["ES256", "PS256", "Ed25519"]), &[Ps256, Es256, EdDsa]),
            (Some(&[Es256]), offer(&["RS256", "ES256"]), &[Es256]),
            (Some(&[Es256]), offer(&["RS256"]), &[]),
            (Some(&[Es256]), None, &[Es256]),
            (Some(&[Hs256]), offer(&["RS256", "HS256"]), &[Hs256]),
            (None, offer(&[]), &[]),
        ];
        for (configured, offered, wanted) in rows {
            assert_eq!(accepted(configured, offered.as_deref()), wanted, "{configured:?} {offered:?}");
        }
    }
}
