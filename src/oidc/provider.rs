//! One provider as one service sees it: found, kept, asked.
//!
//! All calls to it run on the control runtime, so that a worker that gives up or is busy never leaves one
//! half done. Discovery is never a condition of the start: it runs beside, is retried while it fails, and what
//! was once good stays until something better comes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use tokio::runtime::Handle;
use url::Url;

use crate::clock::{Clock, UnixTime};
use crate::tag::Claims;
use crate::web::outbound::Outbound;

use super::claims::{lacks_needed, merge, overage};
use super::config::{Config, ConfigError, UserInfoMode};
use super::contact::Contact;
use super::credentials::Credentials;
use super::discovery::{self, Metadata, Problem};
use super::error::{CallbackError, Error, Refusal};
use super::event::Events;
use super::finder::Finder;
use super::flow::{self, Tokens};
use super::id_token::{Expected, VerifiedIdToken};
use super::jwt::{Jws, SignedClaims};
use super::keys::KeyCache;
use super::login::{Begin, CallbackParameters, Outcome, Transaction};
use super::userinfo;

/// The provider of one service. Shared by all threads.
pub struct Provider {
    pub(super) config: Config,
    pub(super) issuer: Url,
    pub(super) clock: Clock,
    pub(super) outbound: Outbound,
    pub(super) credentials: Credentials,
    control: Handle,
    events: Events,
    finder: Finder,
    keys: KeyCache,
    contact: Contact,
}

/// How a provider is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// There was a good answer to discovery, however long ago.
    Ready,
    /// No attempt has ended yet.
    Discovering,
    /// Never found; it is tried again.
    Unreachable {
        /// What the operator should know.
        reason: String,
    },
    /// Never found, and it can't work as it is configured (an issuer mismatch); it is tried again.
    Unusable {
        /// What the operator should know.
        reason: String,
    },
}

/// Who logged in, as far as the provider proved it.
#[derive(Clone)]
pub struct Identity {
    /// `sub`: 1 to 255 ASCII characters.
    pub subject: String,
    /// The issuer; a subject is only unique together with it.
    pub issuer: String,
    /// All claims of the ID token, and those that UserInfo added.
    pub claims: Claims,
    /// The authentication context that the ID token states.
    pub acr: Option<String>,
    /// When the person authenticated.
    pub auth_time: Option<UnixTime>,
    /// The provider's name of its own session.
    pub sid: Option<String>,
    /// `exp` of the ID token.
    pub id_token_expires_at: UnixTime,
}

/// How old metadata and keys get before they are fetched again.
pub const REFRESH_EVERY: Duration = Duration::from_secs(60 * 60);
/// Longest pause between two attempts while discovery fails.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl Provider {
    /// A provider that nothing is known of yet. `control` is the runtime that calls it, `events` hears what
    /// changes. Errors are the configuration's.
    pub fn new(
        config: Config,
        clock: Clock,
        control: Handle,
        events: Events,
    ) -> Result<Arc<Self>, ConfigError> {
        let issuer = config.check()?;
        let (credentials, trust) = Credentials::read(&config)?;
        let outbound = Outbound::new(&issuer, trust).map_err(|why| ConfigError::Issuer(why.to_string()))?;
        Ok(Arc::new(Self {
            config,
            issuer,
            clock,
            outbound,
            credentials,
            control,
            finder: Finder::new(Arc::clone(&events)),
            keys: KeyCache::new(Arc::clone(&events)),
            contact: Contact::default(),
            events,
        }))
    }

    /// Looks for the provider until it is found, and then keeps metadata and keys fresh. Never ends; run it
    /// once, on the control runtime.
    pub async fn keep_discovered(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let pause = match self.refresh().await {
                Ok(()) => {
                    failures = 0;
                    jittered(REFRESH_EVERY)
                }
                Err(_) => {
                    failures += 1;
                    backoff(failures)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// How the provider is doing.
    pub fn status(&self) -> Status {
        if self.finder.metadata().is_some() {
            return Status::Ready;
        }
        match self.finder.problem().as_deref() {
            None => Status::Discovering,
            Some(Problem::Unreachable(reason)) => Status::Unreachable { reason: reason.clone() },
            Some(Problem::Unusable(reason)) => Status::Unusable { reason: reason.clone() },
        }
    }

    /// Why the last attempt at discovery failed, also where an older answer goes on being used.
    pub fn last_problem(&self) -> Option<String> {
        self.finder.problem().map(|problem| problem.to_string())
    }

    /// The issuer, as configured.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Begins a login: where to send the browser, and what to keep of it. Waits at most 5 s for a provider
    /// that is not known yet or has been silent for a while, together with everyone else who waits.
    pub async fn begin(self: &Arc<Self>, begin: Begin) -> Result<(Url, Transaction), Error> {
        let metadata = match self.finder.metadata() {
            Some(metadata) if self.contact.is_fresh() => metadata,
            _ => self.on_control(|this| async move { this.reachable().await }).await?,
        };
        flow::authorization(&self.config, &metadata, &begin)
    }

    /// Ends a login: checks the callback, exchanges the code, verifies the ID token, and completes the claims.
    /// The first thing that is wrong ends it, and then nothing more is asked of the provider.
    pub async fn finish(
        self: &Arc<Self>,
        parameters: CallbackParameters,
        transaction: Transaction,
    ) -> Result<Identity, Error> {
        self.on_control(|this| async move { this.complete(parameters, transaction).await }).await
    }

    /// The files that the configuration names: call [`Provider::reload_files`] when one has changed.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        Credentials::files(&self.config)
    }

    /// Reads the client secret and the certificate authority again, if they are files. A file that can't be
    /// used leaves the older content in use. The outcome is told as events.
    pub fn reload_files(&self) {
        for event in self.credentials.reload(&self.config, &self.outbound) {
            (self.events)(event);
        }
    }

    async fn on_control<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.control.spawn(work(Arc::clone(self))).await.map_err(|_| Error::Stopping)?
    }

    /// The metadata of a provider that answers.
    async fn reachable(&self) -> Result<Arc<Metadata>, Error> {
        let Some(metadata) = self.finder.metadata() else { return self.find().await };
        let confirmed = self.contact.confirm(&self.outbound, &metadata.token_endpoint).await;
        confirmed.map(|()| metadata).map_err(Error::Unreachable)
    }

    async fn find(&self) -> Result<Arc<Metadata>, Error> {
        let fetch = discovery::fetch(&self.outbound, &self.config, &self.issuer);
        let metadata = self.finder.find(fetch).await?;
        self.contact.note();
        Ok(metadata)
    }

    /// Fetches what is missing or old.
    async fn refresh(&self) -> Result<(), Error> {
        // A little early, so that the jitter of the pause does not double the interval.
        let is_old = |age: Option<Duration>| age.is_none_or(|age| age >= REFRESH_EVERY / 2);
        let metadata = match self.finder.metadata() {
            Some(metadata) if !is_old(self.finder.age()) => metadata,
            _ => self.find().await?,
        };
        match is_old(self.keys.age()) {
            true => self.keys.refresh(&self.outbound, &metadata.jwks_uri).await,
            false => Ok(()),
        }
    }

    async fn complete(
        &self,
        parameters: CallbackParameters,
        transaction: Transaction,
    ) -> Result<Identity, Error> {
        if transaction.issuer != self.config.issuer {
            return Err(CallbackError::OtherIssuer.into());
        }
        let metadata = match self.finder.metadata() {
            Some(metadata) => metadata,
            None => self.find().await?,
        };
        self.check_callback_issuer(&parameters, &metadata)?;
        let code = match parameters.into_outcome() {
            Outcome::Code(code) => code,
            Outcome::Error { error, description } => return Err(Error::Denied { error, description }),
        };
        let secret = self.credentials.secret();
        let tokens = flow::exchange(
            &self.config,
            &metadata,
            secret.as_deref(),
            &self.outbound,
            code,
            transaction.verifier.clone(),
        )
        .await?;
        self.contact.note();
        let signed = self.verify_signature(tokens.id_token.expose(), &metadata).await?;
        let expected = Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce: &transaction.nonce,
            clock_skew: self.config.clock_skew,
            now: self.clock.now(),
        };
        let id_token = VerifiedIdToken::check(signed, &expected)?;
        id_token
            .check_requested(&transaction.acr_values, transaction.max_age, &expected)
            .map_err(Error::StepUpNotMet)?;
        let claims = self.complete_claims(&id_token, &tokens, &metadata).await?;
        Ok(Identity {
            subject: id_token.subject().to_owned(),
            issuer: self.config.issuer.clone(),
            claims,
            acr: id_token.acr().map(str::to_owned),
            auth_time: id_token.authenticated_at(),
            sid: id_token.session_id().map(str::to_owned),
            id_token_expires_at: id_token.expires_at(),
        })
    }

    /// RFC 9207 section 2.4: the answer comes from the provider that was asked, or nothing is done with it.
    fn check_callback_issuer(
        &self,
        parameters: &CallbackParameters,
        metadata: &Metadata,
    ) -> Result<(), Refusal> {
        match parameters.issuer() {
            Some(issuer) if issuer == self.config.issuer => Ok(()),
            Some(found) => Err(Refusal::CallbackIssuer {
                expected: self.config.issuer.clone(),
                found: super::error::shown_name(found),
            }),
            None if metadata.announces_callback_issuer => Err(Refusal::NoCallbackIssuer),
            None => Ok(()),
        }
    }

    /// The only way from a token's text to its claims.
    async fn verify_signature(&self, token: &str, metadata: &Metadata) -> Result<SignedClaims, Error> {
        let jws = Jws::parse(token, &metadata.signing_algorithms)?;
        if jws.algorithm().is_symmetric() {
            // Only if HS* is configured; the key is the secret's own bytes (OIDC Core section 10.1), and never
            // anything that the provider publishes.
            let secret = self.credentials.secret().ok_or(Refusal::UnknownKey(None))?;
            return Ok(jws.verify([&DecodingKey::from_secret(secret.expose().as_bytes())])?);
        }
        let (outbound, url) = (&self.outbound, &metadata.jwks_uri);
        let known = self.keys.get(outbound, url).await?;
        match jws.verify_with(&known.keys) {
            // The provider may have changed its keys a moment ago.
            Err(refusal) if jws.may_be_newer_than(&known.keys) => {
                let newer = self.keys.newer(&known, outbound, url).await?.ok_or(refusal)?;
                Ok(jws.verify_with(&newer.keys)?)
            }
            verdict => Ok(verdict?),
        }
    }

    async fn complete_claims(
        &self,
        id_token: &VerifiedIdToken,
        tokens: &Tokens,
        metadata: &Metadata,
    ) -> Result<Claims, Error> {
        let needed = &self.config.needed_claims;
        let lacking = lacks_needed(id_token.claims(), needed);
        let ask = match self.config.user_info {
            UserInfoMode::Always => true,
            UserInfoMode::Auto => lacking,
            UserInfoMode::Never => false,
        };
        let claims = match metadata.user_info_endpoint.as_ref().filter(|_| ask) {
            None => id_token.claims().clone(),
            Some(url) => {
                match userinfo::fetch(&self.outbound, url, &tokens.access_token, id_token.subject()).await {
                    Ok(more) => merge(id_token.claims(), more),
                    Err(userinfo::Problem::OtherSubject) => return Err(Refusal::UserInfoSubject.into()),
                    Err(userinfo::Problem::Unusable(reason)) if lacking => {
                        return Err(Error::UserInfo(reason));
                    }
                    Err(userinfo::Problem::Unusable(_)) => id_token.claims().clone(),
                }
            }
        };
        match overage(&claims, needed) {
            Some(claim) => Err(Error::Overage { claim }),
            None => Ok(claims),
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.config.issuer).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Unreachable(reason) => Self::Unreachable(reason),
            Problem::Unusable(reason) => Self::Unusable(reason),
        }
    }
}

/// 1 s, 2 s, 4 s and so on, at most [`MAX_BACKOFF`], with jitter.
fn backoff(failures: u32) -> Duration {
    let doubled = Duration::from_secs(1 << failures.saturating_sub(1).min(10));
    jittered(doubled.min(MAX_BACKOFF))
}

/// Between three quarters of `pause` and all of it: many replicas must not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter, which is no reason to fail.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.75 + f64::from(byte) / 1024.0)
}
