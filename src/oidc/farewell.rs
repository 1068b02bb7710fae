//! What the provider is told when a session ends here: the browser is sent to its own logout (RP-Initiated
//! Logout 1.0), and the refresh token is given back (RFC 7009).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use crate::secret::Secret;

use super::config::{ClientAuthentication, Config};
use super::discovery::Metadata;
use super::event::{Event, Trouble};
use super::flow;
use super::provider::Provider;
use super::token_answer::TokenRefusal;
use super::told::Sent;

/// What the provider is told about a logout (RP-Initiated Logout 1.0 section 2).
#[derive(Clone, Copy)]
pub struct EndSession<'a> {
    /// An ID token of the session, as it came.
    pub id_token_hint: Option<&'a str>,
    /// Whose session it is, in the provider's own terms.
    pub logout_hint: Option<&'a str>,
    /// Where the provider sends the browser back to; registered there.
    pub post_logout_redirect_uri: &'a str,
    /// Comes back with the browser.
    pub state: &'a str,
}

/// Most revocations of one service under way; more are dropped, and their tokens expire by themselves.
pub const MAX_REVOCATIONS: usize = 64;

/// The revocations of one provider.
pub(super) struct Revocations {
    turns: Arc<Semaphore>,
    trouble: Trouble,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(MAX_REVOCATIONS)), trouble: Trouble::default() }
    }
}

impl Provider {
    /// Where to send a browser to end the provider's own session; none if the provider is not known yet or
    /// offers no such thing. Asks nobody.
    pub fn end_session(&self, logout: EndSession<'_>) -> Option<Url> {
        let mut url = self.known_metadata()?.end_session_endpoint.clone()?;
        let hints = [("id_token_hint", logout.id_token_hint), ("logout_hint", logout.logout_hint)];
        let mut query = url.query_pairs_mut();
        query.extend_pairs(hints.into_iter().filter_map(|(name, hint)| hint.map(|hint| (name, hint))));
        query.append_pair("client_id", &self.config.client_id);
        query.append_pair("post_logout_redirect_uri", logout.post_logout_redirect_uri);
        query.append_pair("state", logout.state);
        drop(query);
        Some(url)
    }

    /// Whether the provider has a logout of its own, as far as is known.
    pub fn offers_logout(&self) -> bool {
        self.known_metadata().is_some_and(|metadata| metadata.end_session_endpoint.is_some())
    }

    /// Tells the provider, in the background, that this refresh token will not be used again. One try: a token
    /// that can't be given back expires by itself. Nothing if the provider offers no revocation.
    pub fn revoke(self: &Arc<Self>, refresh_token: Secret<String>) {
        let Some(metadata) = self.known_metadata() else { return };
        let Some(url) = metadata.revocation_endpoint.clone() else { return };
        let Ok(turn) = Arc::clone(&self.revocations.turns).try_acquire_owned() else {
            return self.tell_unrevoked("too many at once".to_owned());
        };
        self.in_background(|this| async move {
            let _turn = turn;
            match this.send_revocation(&metadata, &url, &refresh_token).await {
                Ok(()) => drop(this.revocations.trouble.is_over()),
                Err(reason) => this.tell_unrevoked(reason),
            }
        });
    }

    async fn send_revocation(
        &self,
        metadata: &Metadata,
        url: &Url,
        refresh_token: &Secret<String>,
    ) -> Result<(), String> {
        let secret = self.credentials.secret();
        let form = [("token", refresh_token.expose().as_str()), ("token_type_hint", "refresh_token")];
        let request = authenticated_form(&self.config, metadata, secret.as_deref(), url, &form)
            .ok_or_else(|| "its address can't be sent a request".to_owned())?;
        let answer = self.outbound.send(request).await.map_err(|error| error.to_string())?;
        match answer.status() {
            // RFC 7009 section 2.2: also for a token that is no good any more.
            StatusCode::OK => Ok(()),
            status => {
                let refusal: TokenRefusal = serde_json::from_slice(answer.body()).unwrap_or_default();
                let secret = secret.as_deref().map_or("", |secret| secret.expose());
                let error = refusal.shown(Sent(&[refresh_token.expose(), secret]));
                Err(match error.is_empty() {
                    true => format!("it answers {}", status.as_u16()),
                    false => format!("it answers {} with the error `{error}`", status.as_u16()),
                })
            }
        }
    }

    fn tell_unrevoked(&self, reason: String) {
        if self.revocations.trouble.is_news(&reason) {
            self.tell(Event::RevocationFailed { reason });
        }
    }
}

/// A form of the client, authenticated as at the token endpoint (RFC 6749 section 2.3.1).
fn authenticated_form(
    config: &Config,
    metadata: &Metadata,
    secret: Option<&Secret<String>>,
    url: &Url,
    form: &[(&str, &str)],
) -> Option<Request<Vec<u8>>> {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let mut request = Request::post(url.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    match (flow::authentication(config, metadata), secret) {
        (ClientAuthentication::Auto | ClientAuthentication::Basic, Some(secret)) => {
            request = request.header(AUTHORIZATION, basic(&config.client_id, secret)?);
        }
        (_, secret) => {
            body.append_pair("client_id", &config.client_id);
            body.extend_pairs(secret.map(|secret| ("client_secret", secret.expose())));
        }
    }
    request.body(body.finish().into_bytes()).ok()
}

/// Both parts are form-encoded before they are joined.
fn basic(client_id: &str, secret: &Secret<String>) -> Option<HeaderValue> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encoded(client_id), encoded(secret.expose())));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.expose()))).ok()?;
    value.set_sensitive(true);
    Some(value)
}
