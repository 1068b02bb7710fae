//! What the configuration says about one service's identity provider.

use std::collections::BTreeSet;
use std::time::Duration;

use url::Url;

use crate::secret;

use super::algorithm::SigningAlgorithm;

/// One service as a client of one provider.
#[derive(Clone, Debug)]
pub struct Config {
    /// The issuer, byte for byte as `OIDCProviderURL` has it.
    pub issuer: String,
    /// The client identifier.
    pub client_id: String,
    /// The client secret. Without one the client is public: its identifier goes into the body.
    pub client_secret: Option<secret::Source>,
    /// Where the provider sends the browser back to: the whole callback URL.
    pub redirect_uri: Url,
    /// Scopes to ask for; `openid` is added where it is missing.
    pub scopes: Vec<String>,
    /// How the client authenticates at the token endpoint.
    pub client_authentication: ClientAuthentication,
    /// Narrows the accepted algorithms; HS* only if listed.
    pub signing_algorithms: Option<Vec<SigningAlgorithm>>,
    /// How far the provider's clock may be off, either way.
    pub clock_skew: Duration,
    /// When the UserInfo endpoint is asked.
    pub user_info: UserInfoMode,
    /// Extra parameters of the authorization request.
    pub authorization_parameters: Vec<(String, String)>,
    /// Trusted instead of the system's certificate authorities.
    pub certificate_authority: Option<secret::Source>,
    /// The top-level claims that rules and mappings name.
    pub needed_claims: BTreeSet<String>,
}

/// How the client authenticates at the token endpoint (OIDC Core section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// Basic where the provider offers it or doesn't say, else post.
    #[default]
    Auto,
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// When the UserInfo endpoint is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserInfoMode {
    /// When a needed claim is missing in the ID token.
    #[default]
    Auto,
    /// At every login.
    Always,
    /// Never.
    Never,
}

/// A mistake in a [`Config`]. The blame is the configuration's.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The issuer is no usable URL.
    #[error("OIDCProviderURL: {0}")]
    Issuer(String),
    /// A parameter of the protocol itself among the extra ones.
    #[error("OIDCAuthorizationParameters: `{0}` is set by the protocol and can't be given here; remove it")]
    ReservedParameter(String),
    /// The same extra parameter twice.
    #[error("OIDCAuthorizationParameters: `{0}` is given twice; keep one")]
    RepeatedParameter(String),
    /// `max_age` is no number of seconds.
    #[error("OIDCAuthorizationParameters: max_age must be a whole number of seconds")]
    MaxAge,
    /// The client secret can't be read.
    #[error("OIDCClientSecret: {0}")]
    Secret(#[from] secret::SourceError),
    /// The client secret is empty.
    #[error(
        "OIDCClientSecret: it is empty; enter the secret that the identity provider shows for this client"
    )]
    EmptySecret,
    /// HS* without a secret to verify with.
    #[error("OIDCSigningAlgorithms: HS256, HS384 and HS512 need OIDCClientSecret")]
    NoSharedKey,
    /// The provider's certificate authority can't be used.
    #[error("OIDCProviderCertificateAuthority: {0}")]
    CertificateAuthority(String),
}

/// Parameters of the authorization request that only the protocol may set.
const RESERVED_PARAMETERS: [&str; 11] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

impl Config {
    /// Checks what the types can't say, and returns the issuer as a URL.
    pub(super) fn check(&self) -> Result<Url, ConfigError> {
        self.check_parameters()?;
        let listed = self.signing_algorithms.as_deref().unwrap_or_default();
        if self.client_secret.is_none() && listed.iter().any(|algorithm| algorithm.is_symmetric()) {
            return Err(ConfigError::NoSharedKey);
        }
        issuer_url(&self.issuer)
    }

    /// The `max_age` among the extra parameters, in seconds.
    pub(super) fn max_age(&self) -> Option<u64> {
        self.parameter("max_age").and_then(|value| value.parse().ok())
    }

    /// The `acr_values` among the extra parameters.
    pub(super) fn acr_values(&self) -> Vec<String> {
        self.parameter("acr_values").unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    }

    fn parameter(&self, wanted: &str) -> Option<&str> {
        let found = self.authorization_parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    fn check_parameters(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (name, _) in &self.authorization_parameters {
            if RESERVED_PARAMETERS.contains(&name.as_str()) {
                return Err(ConfigError::ReservedParameter(name.clone()));
            }
            if !seen.insert(name) {
                return Err(ConfigError::RepeatedParameter(name.clone()));
            }
        }
        match self.parameter("max_age") {
            Some(value) if value.parse::<u64>().is_err() => Err(ConfigError::MaxAge),
            _ => Ok(()),
        }
    }
}

/// OIDC Discovery section 2: https, a host, no query, no fragment. Plain http is judged by `web::reach`.
fn issuer_url(text: &str) -> Result<Url, ConfigError> {
    let refused = |why: &str| Err(ConfigError::Issuer(format!("`{text}` {why}")));
    let Ok(url) = Url::parse(text) else {
        return refused("is not a URL; enter the issuer, for example https://login.example.com/realm");
    };
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return refused("must begin with https:// and name a host");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused("must have no query and no fragment: it is the issuer, not a page of it");
    }
    if text.contains("/.well-known/") {
        return refused("is the discovery document; leave out everything from /.well-known/ on");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_is_an_issuer() {
        for (text, good) in [
            ("https://idp.example", true),
            ("https://idp.example/", true),
            ("https://idp.example:8443/realms/a", true),
            ("http://localhost:9000", true),
            ("idp.example", false),
            ("file:///etc/passwd", false),
            ("ftp://idp.example", false),
            ("https://idp.example/?a=b", false),
            ("https://idp.example/#x", false),
            ("https://idp.example/.well-known/openid-configuration", false),
        ] {
            assert_eq!(issuer_url(text).is_ok(), good, "{text}");
        }
    }
}
