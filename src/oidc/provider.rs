//! One provider as one service sees it: found, kept, asked.
//!
//! All calls to it run on the control runtime, so that a worker that gives up or is busy never leaves one
//! half done. Discovery is never a condition of the start: it runs beside, is retried while it fails, and what
//! was once good stays until something better comes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use url::Url;

use crate::clock::Clock;
use crate::secret::Secret;
use crate::web::outbound::Outbound;

use super::config::{Config, ConfigError};
use super::contact::Contact;
use super::credentials::Credentials;
use super::discovery::{self, Metadata, Problem};
use super::error::{CallbackError, Error, Refusal};
use super::event::{Event, Events};
use super::farewell::Revocations;
use super::finder::Finder;
use super::flow::{self, Caller, Tokens};
use super::id_token::{Occasion, VerifiedIdToken};
use super::identity::{Grant, Identity};
use super::jwt::Purpose;
use super::keys::KeyCache;
use super::login::{Begin, CallbackParameters, Outcome, Transaction};
use super::refresh::Refreshes;
use super::told::{Sent, shown_name_without};

/// The provider of one service. Shared by all threads.
pub struct Provider {
    pub(super) config: Config,
    pub(super) issuer: Url,
    pub(super) clock: Clock,
    pub(super) outbound: Outbound,
    pub(super) credentials: Credentials,
    pub(super) keys: KeyCache,
    pub(super) refreshes: Refreshes,
    pub(super) revocations: Revocations,
    control: Handle,
    events: Events,
    finder: Finder,
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
            refreshes: Refreshes::default(),
            revocations: Revocations::default(),
            events,
        }))
    }

    /// Looks for the provider until it is found, and then keeps metadata and keys fresh. Never ends; run it
    /// once, on the control runtime.
    pub async fn keep_discovered(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let pause = match self.freshen().await {
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

    /// Why a login could not begin, as far as is known without asking the provider again.
    pub fn outage(&self) -> Option<Error> {
        if self.contact.is_fresh() {
            return None;
        }
        if self.finder.metadata().is_some() {
            return self.contact.last_failure().map(Error::Unreachable);
        }
        self.finder.problem().map(|problem| Error::from((*problem).clone()))
    }

    /// So that the next login asks the provider again, whatever came of the last attempt.
    #[cfg(test)]
    pub(super) fn forget_attempt(&self) {
        self.finder.age_by(super::finder::AFTER_FAILURE);
    }

    /// The issuer, as configured.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// The origin of its pages: scheme, host and port of the issuer (RFC 6454 section 6.2).
    pub fn origin(&self) -> String {
        self.issuer.origin().ascii_serialization()
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

    /// Does `work` on the control runtime, to its end, whether or not the caller goes on waiting for it.
    pub(super) async fn on_control<T, E, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.control.spawn(work(Arc::clone(self))).await.map_err(|_| E::from(Error::Stopping))?
    }

    /// Does `work` on the control runtime, and does not wait for it.
    pub(super) fn in_background<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.control.spawn(work(Arc::clone(self)));
    }

    pub(super) fn tell(&self, event: Event) {
        (self.events)(event);
    }

    /// The provider has just answered something.
    pub(super) fn note_contact(&self) {
        self.contact.note();
    }

    /// The metadata, if the provider was ever found.
    pub(super) fn known_metadata(&self) -> Option<Arc<Metadata>> {
        self.finder.metadata()
    }

    /// The metadata; the provider is looked for if it was never found.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, Error> {
        match self.finder.metadata() {
            Some(metadata) => Ok(metadata),
            None => self.find().await,
        }
    }

    /// Us, at the token endpoint.
    pub(super) fn caller<'a>(
        &'a self,
        metadata: &'a Metadata,
        secret: Option<&'a Secret<String>>,
    ) -> Caller<'a> {
        Caller { config: &self.config, metadata, secret, outbound: &self.outbound }
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
    async fn freshen(&self) -> Result<(), Error> {
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
        let metadata = self.metadata().await?;
        let secret = self.credentials.secret();
        let state = parameters.state().to_owned();
        let client_secret = secret.as_deref().map_or("", |secret| secret.expose());
        let sent = [state.as_str(), &transaction.nonce, &transaction.verifier, client_secret];
        self.check_callback_issuer(&parameters, &metadata, Sent(&sent))?;
        let code = match parameters.into_outcome() {
            Outcome::Code(code) => code,
            Outcome::Error(denial) => {
                let (error, description) = denial.shown(Sent(&sent));
                return Err(Error::Denied { error, description });
            }
        };
        let caller = self.caller(&metadata, secret.as_deref());
        let tokens = caller.exchange(code.clone(), transaction.verifier.clone()).await?;
        self.contact.note();
        let (access_token, Transaction { verifier, nonce, .. }) = (tokens.access_token.clone(), &transaction);
        let sent = [&state, nonce, verifier, client_secret, &code, access_token.expose()];
        self.identify(tokens, &transaction, &metadata).await.map_err(|error| error.without(Sent(&sent)))
    }

    /// Who it is by the tokens of a login.
    async fn identify(
        &self,
        tokens: Tokens,
        transaction: &Transaction,
        metadata: &Metadata,
    ) -> Result<Identity, Error> {
        let received_at = self.clock.now();
        let text = tokens.id_token.ok_or(Refusal::NoIdToken)?;
        let signed = self.verify_signature(text.expose(), Purpose::IdToken, metadata).await?;
        let expected = self.expected();
        let occasion = Occasion::Login { nonce: &transaction.nonce };
        let id_token = VerifiedIdToken::check(signed, &expected, &occasion)?;
        id_token
            .check_requested(&transaction.acr_values, transaction.max_age, &expected)
            .map_err(Error::StepUpNotMet)?;
        let person = self.complete_claims(&id_token, &tokens.access_token, metadata).await?;
        let expires_at = id_token.expires_at();
        let granted = |token| Grant::new(token, received_at, tokens.expires_in, Some(expires_at));
        Ok(Identity {
            subject: id_token.subject().to_owned(),
            issuer: self.config.issuer.clone(),
            claims: person.claims,
            from_user_info: person.from_user_info,
            acr: id_token.acr().map(str::to_owned),
            auth_time: id_token.authenticated_at(),
            sid: id_token.session_id().map(str::to_owned),
            nonce: transaction.nonce.clone(),
            id_token: text,
            id_token_expires_at: expires_at,
            grant: tokens.refresh_token.map(granted),
        })
    }

    /// RFC 9207 section 2.4: the answer comes from the provider that was asked, or nothing is done with it.
    fn check_callback_issuer(
        &self,
        parameters: &CallbackParameters,
        metadata: &Metadata,
        sent: Sent<'_>,
    ) -> Result<(), Refusal> {
        match parameters.issuer() {
            Some(issuer) if issuer == self.config.issuer => Ok(()),
            Some(found) => Err(Refusal::CallbackIssuer {
                expected: self.config.issuer.clone(),
                found: shown_name_without(found, sent),
            }),
            None if metadata.announces_callback_issuer => Err(Refusal::NoCallbackIssuer),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.config.issuer).finish_non_exhaustive()
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

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
