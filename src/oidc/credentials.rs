//! The client secret and the provider's certificate authority, as they are now: both may be files that change.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::secret::{Secret, Source};
use crate::web::outbound::Outbound;
use crate::web::trust::Trust;

use super::config::{Config, ConfigError};
use super::event::Event;

/// What a provider's configuration reads from outside.
pub(super) struct Credentials {
    secret: ArcSwapOption<Secret<String>>,
    authority: ArcSwapOption<Secret<String>>,
}

impl Credentials {
    /// Reads both for the first time.
    pub fn read(config: &Config) -> Result<(Self, Trust), ConfigError> {
        let secret = config.client_secret.as_ref().map(read_secret).transpose()?;
        let authority = config.certificate_authority.as_ref().map(read_authority).transpose()?;
        let trust = match &authority {
            Some(pem) => trust(pem)?,
            None => Trust::system(),
        };
        let (secret, authority) = (secret.map(Arc::new), authority.map(Arc::new));
        Ok((Self { secret: secret.into(), authority: authority.into() }, trust))
    }

    /// The client secret.
    pub fn secret(&self) -> Option<Arc<Secret<String>>> {
        self.secret.load_full()
    }

    /// The files behind them.
    pub fn files(config: &Config) -> Vec<PathBuf> {
        let sources = [config.client_secret.as_ref(), config.certificate_authority.as_ref()];
        sources.into_iter().flatten().filter_map(Source::path).map(PathBuf::from).collect()
    }

    /// Reads the files again. What can't be used leaves the older content in use.
    pub fn reload(&self, config: &Config, outbound: &Outbound) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(source) = &config.client_secret {
            let read = read_secret(source).map(|secret| replace(&self.secret, secret));
            events.extend(told(source, read));
        }
        if let Some(source) = &config.certificate_authority {
            let read = read_authority(source).and_then(|pem| {
                let trust = trust(&pem)?;
                let changed = replace(&self.authority, pem);
                if changed {
                    outbound.replace_trust(trust);
                }
                Ok(changed)
            });
            events.extend(told(source, read));
        }
        events
    }
}

/// Whether the new value is another.
fn replace(slot: &ArcSwapOption<Secret<String>>, value: Secret<String>) -> bool {
    let changed = slot.load().as_deref() != Some(&value);
    if changed {
        slot.store(Some(Arc::new(value)));
    }
    changed
}

fn told(source: &Source, outcome: Result<bool, ConfigError>) -> Option<Event> {
    let path = source.path()?.to_owned();
    match outcome {
        Ok(true) => Some(Event::Reloaded { path }),
        Ok(false) => None,
        Err(error) => Some(Event::ReloadFailed { path, reason: error.to_string() }),
    }
}

fn read_secret(source: &Source) -> Result<Secret<String>, ConfigError> {
    let secret = source.read()?;
    match secret.expose().is_empty() {
        true => Err(ConfigError::EmptySecret),
        false => Ok(secret),
    }
}

fn read_authority(source: &Source) -> Result<Secret<String>, ConfigError> {
    source.read().map_err(|error| ConfigError::CertificateAuthority(error.to_string()))
}

fn trust(pem: &Secret<String>) -> Result<Trust, ConfigError> {
    Trust::only(pem.expose()).map_err(|error| ConfigError::CertificateAuthority(error.to_string()))
}
