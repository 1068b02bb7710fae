//! The authorization code flow, as far as the `openidconnect` crate does it: the authorization URL and the
//! exchange of the code. The ID token leaves here as the text that it came as: it is verified elsewhere.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm, CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessToken, AsyncHttpClient, AuthType, AuthUrl, AuthenticationFlow, AuthorizationCode, ClientId,
    ClientSecret, CsrfToken, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, ErrorResponse, HttpRequest,
    HttpResponse, IdToken, IssuerUrl, JsonWebKeySet, Nonce, OAuth2TokenResponse, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use url::Url;

use crate::secret::Secret;
use crate::web::outbound::{self, Outbound};

use super::config::{ClientAuthentication, Config};
use super::discovery::Metadata;
use super::error::{Error, Refusal, shown_name};
use super::login::{Begin, Transaction};

/// The client of the `openidconnect` crate, with our own answer types and both endpoints set.
type Client = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    TokenRefusal,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;

/// What a code was exchanged for.
pub(super) struct Tokens {
    pub id_token: Secret<String>,
    /// Empty if the provider sent none.
    pub access_token: Secret<String>,
}

/// Builds the authorization URL: code flow, PKCE S256, state and nonce, always.
pub(super) fn authorization(
    config: &Config,
    metadata: &Metadata,
    begin: &Begin,
) -> Result<(Url, Transaction), Error> {
    let client = client(config, metadata, None)?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let acr_values = match begin.acr_values.is_empty() {
        true => config.acr_values(),
        false => begin.acr_values.clone(),
    };
    let asked = begin.max_age.map(|age| age.as_secs());
    // The stricter of both.
    let max_age = asked.into_iter().chain(config.max_age()).min();
    let state = begin.state.clone();
    let mut request = client
        .authorize_url(
            AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
            || CsrfToken::new(state),
            Nonce::new_random,
        )
        .set_pkce_challenge(challenge);
    for scope in config.scopes.iter().filter(|scope| *scope != "openid") {
        request = request.add_scope(Scope::new(scope.clone()));
    }
    for (name, value) in &config.authorization_parameters {
        if name != "max_age" && name != "acr_values" {
            request = request.add_extra_param(name.clone(), value.clone());
        }
    }
    if !acr_values.is_empty() {
        request = request.add_extra_param("acr_values", acr_values.join(" "));
    }
    if let Some(max_age) = max_age {
        request = request.add_extra_param("max_age", max_age.to_string());
    }
    let (url, _, nonce) = request.url();
    let transaction = Transaction {
        issuer: config.issuer.clone(),
        nonce: nonce.secret().clone(),
        verifier: verifier.secret().clone(),
        acr_values,
        max_age,
    };
    Ok((url, transaction))
}

/// Exchanges a code. One request, never repeated.
pub(super) async fn exchange(
    config: &Config,
    metadata: &Metadata,
    secret: Option<&Secret<String>>,
    outbound: &Outbound,
    code: String,
    verifier: String,
) -> Result<Tokens, Error> {
    let client = client(config, metadata, secret)?;
    let sender = Sender { outbound, status: AtomicU16::new(0) };
    let exchanging = client
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier))
        .request_async(&sender);
    let answer =
        exchanging.await.map_err(|error| refused(config, &error, sender.status.load(Ordering::Relaxed)))?;
    let id_token = answer.id_token.ok_or(Refusal::NoIdToken)?;
    Ok(Tokens { id_token, access_token: Secret::new(answer.access_token.secret().clone()) })
}

/// Our way out, as the crate wants to see it; remembers the status of the answer.
struct Sender<'a> {
    outbound: &'a Outbound,
    status: AtomicU16,
}

impl<'c> AsyncHttpClient<'c> for Sender<'_> {
    type Error = outbound::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Self::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.outbound.send(request).await?;
            self.status.store(answer.status().as_u16(), Ordering::Relaxed);
            Ok(answer)
        })
    }
}

/// How the client authenticates at the token endpoint.
pub(super) fn authentication(config: &Config, metadata: &Metadata) -> ClientAuthentication {
    match config.client_authentication {
        ClientAuthentication::Auto => match &metadata.authentication_methods {
            Some(methods) if !methods.iter().any(|method| method == "client_secret_basic") => {
                ClientAuthentication::Post
            }
            _ => ClientAuthentication::Basic,
        },
        chosen => chosen,
    }
}

fn client(config: &Config, metadata: &Metadata, secret: Option<&Secret<String>>) -> Result<Client, Error> {
    let unusable = |what: &str| Error::Unusable(format!("{what} is not a URL"));
    let issuer = IssuerUrl::new(config.issuer.clone()).map_err(|_| unusable("the issuer"))?;
    let auth_type = match authentication(config, metadata) {
        ClientAuthentication::Post => AuthType::RequestBody,
        ClientAuthentication::Auto | ClientAuthentication::Basic => AuthType::BasicAuth,
    };
    // The crate's own verification is not used, so it gets no keys.
    let client: Client =
        openidconnect::Client::new(ClientId::new(config.client_id.clone()), issuer, JsonWebKeySet::default())
            .set_auth_uri(AuthUrl::from_url(metadata.authorization_endpoint.clone()))
            .set_token_uri(TokenUrl::from_url(metadata.token_endpoint.clone()))
            .set_redirect_uri(RedirectUrl::from_url(config.redirect_uri.clone()))
            .set_auth_type(auth_type);
    Ok(match secret {
        Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().clone())),
        None => client,
    })
}

/// Says what to do about a failed exchange. Nothing of the answer but its error code is shown: providers
/// repeat codes and secrets in their texts.
fn refused(config: &Config, error: &RequestTokenError<outbound::Error, TokenRefusal>, status: u16) -> Error {
    let text = match error {
        RequestTokenError::Request(error) => error.to_string(),
        RequestTokenError::ServerResponse(refusal) => match refusal.error.as_str() {
            "invalid_grant" => {
                return Refusal::Code { redirect_uri: config.redirect_uri.to_string() }.into();
            }
            "invalid_client" => "it answers `invalid_client`: check OIDCClientID and OIDCClientSecret (has the \
                                 secret expired?), and whether OIDCClientAuthentication (basic, post) is what \
                                 the provider expects of this client"
                .to_owned(),
            "unauthorized_client" => "it answers `unauthorized_client`: allow this client the authorization code \
                                      grant at the provider"
                .to_owned(),
            "" => format!("it answers {status} without an error code"),
            other => format!("it answers {status} with the error `{other}`"),
        },
        RequestTokenError::Parse(..) => format!("it answers {status} with something that is no token answer"),
        RequestTokenError::Other(_) => format!("it answers {status} without JSON"),
    };
    Error::TokenEndpoint(text)
}

/// An error answer of the token endpoint (RFC 6749 section 5.2), cut down to its code.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(from = "Map<String, Value>")]
struct TokenRefusal {
    error: String,
}

impl From<Map<String, Value>> for TokenRefusal {
    fn from(answer: Map<String, Value>) -> Self {
        Self { error: shown_name(answer.get("error").and_then(Value::as_str).unwrap_or_default()) }
    }
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl ErrorResponse for TokenRefusal {}

/// An answer of the token endpoint, read with tolerance: real providers send `expires_in` as text, leave
/// `token_type` out, and put anything beside.
#[derive(Deserialize)]
#[serde(from = "Map<String, Value>")]
struct TokenAnswer {
    id_token: Option<Secret<String>>,
    access_token: AccessToken,
    token_type: CoreTokenType,
}

impl From<Map<String, Value>> for TokenAnswer {
    fn from(mut answer: Map<String, Value>) -> Self {
        let mut text = |name: &str| match answer.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Self {
            id_token: text("id_token").map(Secret::new),
            access_token: AccessToken::new(text("access_token").unwrap_or_default()),
            token_type: CoreTokenType::Bearer,
        }
    }
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
        None
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
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
