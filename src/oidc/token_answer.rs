//! What the token endpoint answers, read with tolerance: only what is used, whatever stands beside it.

use std::fmt;
use std::time::Duration;

use openidconnect::core::{
    CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreTokenType,
};
use openidconnect::{
    AccessToken, EmptyAdditionalClaims, ErrorResponse, IdToken, OAuth2TokenResponse, RefreshToken, Scope,
    TokenResponse,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::secret::Secret;

use super::told::{Sent, shown_code};

/// An error answer of the token endpoint (RFC 6749 section 5.2), cut down to its code, which may be anything.
#[derive(Default, Deserialize, Serialize)]
#[serde(from = "Map<String, Value>")]
pub(super) struct TokenRefusal {
    #[serde(skip)]
    error: String,
}

impl TokenRefusal {
    /// Whether it is this error.
    pub(super) fn is(&self, code: &str) -> bool {
        self.error == code
    }

    /// The code as it may be shown after an exchange in which all this was sent.
    pub(super) fn shown(&self, sent: Sent<'_>) -> String {
        shown_code(&self.error, sent)
    }
}

impl From<Map<String, Value>> for TokenRefusal {
    fn from(mut answer: Map<String, Value>) -> Self {
        let Some(Value::String(error)) = answer.remove("error") else { return Self::default() };
        Self { error }
    }
}

/// Asked for by the crate's traits, and without the code: what was sent is not known here.
impl fmt::Debug for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRefusal([redacted])")
    }
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl ErrorResponse for TokenRefusal {}

/// An answer of the token endpoint, read with tolerance: real providers send `expires_in` as text, leave
/// `token_type` out, and put anything beside.
#[derive(Deserialize)]
#[serde(from = "Map<String, Value>")]
pub(super) struct TokenAnswer {
    pub id_token: Option<Secret<String>>,
    /// Empty if the provider sent none.
    pub access_token: AccessToken,
    pub refresh_token: Option<Secret<String>>,
    /// How long the access token is good for, where the provider says so in a way that can be used.
    pub expires_in: Option<Duration>,
    token_type: CoreTokenType,
}

/// Longest `expires_in` that is believed: what is longer is cut to it.
const MAX_EXPIRES_IN: f64 = 366.0 * 24.0 * 60.0 * 60.0;

impl From<Map<String, Value>> for TokenAnswer {
    fn from(mut answer: Map<String, Value>) -> Self {
        let expires_in = answer.get("expires_in").and_then(lifetime);
        let mut text = |name: &str| match answer.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Self {
            id_token: text("id_token").map(Secret::new),
            access_token: AccessToken::new(text("access_token").unwrap_or_default()),
            refresh_token: text("refresh_token").map(Secret::new),
            expires_in,
            token_type: CoreTokenType::Bearer,
        }
    }
}

/// Seconds, as a number or as the text of one. Zero and less can't be meant.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        value => value.as_f64()?,
    };
    (seconds >= 1.0).then(|| Duration::from_secs(seconds.min(MAX_EXPIRES_IN) as u64))
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAnswer([redacted])")
    }
}

/// Asked for by the crate's traits; a token answer is never written anywhere.
impl Serialize for TokenAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl OAuth2TokenResponse for TokenAnswer {
    type TokenType = CoreTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &CoreTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        // Read from the field: the crate's type would need a copy.
        None
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl
    TokenResponse<
        EmptyAdditionalClaims,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    > for TokenAnswer
{
    fn id_token(
        &self,
    ) -> Option<
        &IdToken<
            EmptyAdditionalClaims,
            CoreGenderClaim,
            CoreJweContentEncryptionAlgorithm,
            CoreJwsSigningAlgorithm,
        >,
    > {
        // Verified by `id_token`, from the raw text.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lifetimes_as_providers_send_them() {
        for (sent, seconds) in [
            (json!(3600), Some(3600)),
            (json!("3600"), Some(3600)),
            (json!(" 60 "), Some(60)),
            (json!(3599.9), Some(3599)),
            (json!(1), Some(1)),
            (json!(u64::MAX), Some(366 * 24 * 3600)),
            (json!("inf"), Some(366 * 24 * 3600)),
            (json!(0), None),
            (json!("0"), None),
            (json!(-1), None),
            (json!(0.5), None),
            (json!("NaN"), None),
            (json!("soon"), None),
            (json!(""), None),
            (json!(null), None),
            (json!([3600]), None),
        ] {
            assert_eq!(lifetime(&sent), seconds.map(Duration::from_secs), "{sent}");
        }
    }

    #[test]
    fn an_answer_shows_nothing_of_itself() {
        let answer = json!({"access_token": "AT", "refresh_token": "RT", "id_token": "IT", "expires_in": 7});
        let answer: TokenAnswer = serde_json::from_value(answer).unwrap();
        assert_eq!(answer.refresh_token.as_ref().map(|token| token.expose().as_str()), Some("RT"));
        let shown = format!("{answer:?} {:?}", answer.refresh_token);
        assert!(["AT", "RT", "IT"].iter().all(|secret| !shown.contains(secret)), "{shown}");
        assert_eq!(serde_json::to_string(&answer).unwrap(), "null");
    }

    #[test]
    fn the_crate_is_told_what_there_is() {
        let answer: TokenAnswer =
            serde_json::from_value(json!({"access_token": "AT", "expires_in": 7})).unwrap();
        assert_eq!(answer.expires_in(), Some(Duration::from_secs(7)));
        assert!(answer.refresh_token().is_none() && answer.scopes().is_none());
        assert_eq!(format!("{answer:?}"), "TokenAnswer([redacted])");
        let refusal = TokenRefusal::from(json!({"error": "invalid_grant"}).as_object().unwrap().clone());
        assert!(refusal.is("invalid_grant") && !refusal.is("invalid_client"));
        assert_eq!(refusal.shown(Sent(&[])), "invalid_grant");
        for shown in [refusal.to_string(), format!("{refusal:?}")] {
            assert!(!shown.contains("invalid_grant"), "{shown}");
        }
    }
}
