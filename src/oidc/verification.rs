//! The only way from a token's text to its claims: a good signature under the provider's keys as they are now.

use jsonwebtoken::DecodingKey;

use super::discovery::Metadata;
use super::error::{Error, Refusal};
use super::jwt::{Jws, Purpose, SignedClaims};
use super::keys::Bringer;
use super::provider::Provider;
use super::standard_claims::Expected;

impl Provider {
    /// Verifies the signature. What the claims mean, and whether they are meant for us, is for the caller.
    pub(super) async fn verify_signature(
        &self,
        token: &str,
        purpose: Purpose,
        metadata: &Metadata,
    ) -> Result<SignedClaims, Error> {
        let jws = Jws::parse(token, purpose, &metadata.signing_algorithms)?;
        if jws.algorithm().is_symmetric() {
            // Only if HS* is configured; the key is the secret's own bytes (OIDC Core section 10.1), and never
            // anything that the provider publishes.
            let secret = self.credentials.secret().ok_or(Refusal::UnknownKey(None))?;
            return Ok(jws.verify([&DecodingKey::from_secret(secret.expose().as_bytes())])?);
        }
        let bringer = match purpose {
            Purpose::IdToken => Bringer::Provider,
            Purpose::LogoutToken => Bringer::Anybody,
        };
        let (outbound, url) = (&self.outbound, &metadata.jwks_uri);
        let known = self.keys.get(outbound, url).await?;
        match jws.verify_with(&known.keys) {
            // The provider may have changed its keys a moment ago.
            Err(refusal) if jws.may_be_newer_than(&known.keys) => {
                let newer = self.keys.newer(&known, bringer, outbound, url).await?.ok_or(refusal)?;
                Ok(jws.verify_with(&newer.keys)?)
            }
            verdict => Ok(verdict?),
        }
    }

    /// What the claims of any token are compared with, now.
    pub(super) fn expected(&self) -> Expected<'_> {
        Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            clock_skew: self.config.clock_skew,
            now: self.clock.now(),
        }
    }
}
