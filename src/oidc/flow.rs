//! The authorization code flow, as far as the `openidconnect` crate does it: the authorization URL, and what is
//! asked of the token endpoint. The ID token leaves here as the text that it came as: it is verified elsewhere.

use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse,
};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthUrl, AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret,
    CsrfToken, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl,
    JsonWebKeySet, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    Scope, TokenUrl,
};
use url::Url;

use crate::secret::Secret;
use crate::web::outbound::{self, CALL_TIMEOUT, Outbound};

use super::config::{ClientAuthentication, Config};
use super::discovery::Metadata;
use super::error::{Error, Refusal};
use super::login::{Begin, Transaction};
use super::token_answer::{TokenAnswer, TokenRefusal};
use super::told::Sent;

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

/// What a code or a refresh token was exchanged for.
pub(super) struct Tokens {
    pub id_token: Option<Secret<String>>,
    /// Empty if the provider sent none.
    pub access_token: Secret<String>,
    pub refresh_token: Option<Secret<String>>,
    /// How long the access token is good for, if the provider says so.
    pub expires_in: Option<Duration>,
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

/// Who asks the token endpoint, and how.
pub(super) struct Caller<'a> {
    pub config: &'a Config,
    pub metadata: &'a Metadata,
    pub secret: Option<&'a Secret<String>>,
    pub outbound: &'a Outbound,
}

impl Caller<'_> {
    /// Exchanges a code. One request, never repeated.
    pub async fn exchange(&self, code: String, verifier: String) -> Result<Tokens, Error> {
        let client = client(self.config, self.metadata, self.secret)?;
        let sender = self.sender(CALL_TIMEOUT);
        let exchanging = client
            .exchange_code(AuthorizationCode::new(code.clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.clone()))
            .request_async(&sender);
        exchanging.await.map(Tokens::from).map_err(|error| match is_invalid_grant(&error) {
            true => Refusal::Code { redirect_uri: self.config.redirect_uri.to_string() }.into(),
            false => {
                let sent = [code.as_str(), &verifier, self.client_secret()];
                failed(&error, sender.status(), "authorization code", Sent(&sent))
            }
        })
    }

    /// Exchanges a refresh token (RFC 6749 section 6, OIDC Core section 12). One request, never repeated: where
    /// they rotate, the second would be taken for a thief's. No scope is sent, which asks for all that was
    /// granted.
    pub async fn refresh(&self, refresh_token: &Secret<String>, patience: Duration) -> Result<Tokens, Error> {
        let client = client(self.config, self.metadata, self.secret)?;
        let sender = self.sender(patience);
        let token = RefreshToken::new(refresh_token.expose().clone());
        let answer = client.exchange_refresh_token(&token).request_async(&sender).await;
        let tokens = answer.map(Tokens::from).map_err(|error| {
            // A verdict on this token, and no sign of a provider that is overwhelmed or broken.
            let verdict = (400..500).contains(&sender.status()) && sender.status() != 429;
            match is_invalid_grant(&error) && verdict {
                true => Refusal::RefreshToken.into(),
                false => {
                    let sent = [refresh_token.expose().as_str(), self.client_secret()];
                    failed(&error, sender.status(), "refresh token", Sent(&sent))
                }
            }
        })?;
        // A JSON object with a status of 200 is not yet a token answer: some say no in this way.
        match tokens.id_token.is_none() && tokens.access_token.expose().is_empty() {
            true => Err(Error::TokenEndpoint("it answers 200 without any token".to_owned())),
            false => Ok(tokens),
        }
    }

    /// Empty if there is none.
    fn client_secret(&self) -> &str {
        self.secret.map_or("", |secret| secret.expose())
    }

    fn sender(&self, patience: Duration) -> Sender<'_> {
        Sender { outbound: self.outbound, patience, status: AtomicU16::new(0) }
    }
}

impl From<TokenAnswer> for Tokens {
    fn from(answer: TokenAnswer) -> Self {
        Self {
            id_token: answer.id_token,
            access_token: Secret::new(answer.access_token.secret().clone()),
            refresh_token: answer.refresh_token,
            expires_in: answer.expires_in,
        }
    }
}

/// Our way out, as the crate wants to see it; remembers the status of the answer.
struct Sender<'a> {
    outbound: &'a Outbound,
    patience: Duration,
    status: AtomicU16,
}

impl Sender<'_> {
    /// The status of the answer; 0 if there was none.
    fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }
}

impl<'c> AsyncHttpClient<'c> for Sender<'_> {
    type Error = outbound::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Self::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.outbound.send_within(request, self.patience).await?;
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

fn is_invalid_grant(error: &RequestTokenError<outbound::Error, TokenRefusal>) -> bool {
    matches!(error, RequestTokenError::ServerResponse(refusal) if refusal.is("invalid_grant"))
}

/// Says what to do about a failed exchange, in which all this was sent. Nothing of the answer but its error code is
/// shown: providers repeat codes and secrets in their texts.
fn failed(
    error: &RequestTokenError<outbound::Error, TokenRefusal>,
    status: u16,
    grant: &'static str,
    sent: Sent<'_>,
) -> Error {
    let text = match error {
        RequestTokenError::Request(error) => error.to_string(),
        RequestTokenError::ServerResponse(refusal) => match refusal.shown(sent).as_str() {
            "invalid_client" => "it answers `invalid_client`: check OIDCClientID and OIDCClientSecret (has the \
                                 secret expired?), and whether OIDCClientAuthentication (basic, post) is what \
                                 the provider expects of this client"
                .to_owned(),
            "unauthorized_client" => format!(
                "it answers `unauthorized_client`: allow this client the {grant} grant at the provider"
            ),
            "" => format!("it answers {status} without an error code"),
            other => format!("it answers {status} with the error `{other}`"),
        },
        RequestTokenError::Parse(..) => format!("it answers {status} with something that is no token answer"),
        RequestTokenError::Other(_) => format!("it answers {status} without JSON"),
    };
    Error::TokenEndpoint(text)
}
