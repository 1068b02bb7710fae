//! Files that are read again when they change: keys, secrets, certificates, certificate authorities.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::config::{self, Authorization, Config};
use crate::gate;
use crate::oidc::{self, Provider};
use crate::proxy::Upstream;
use crate::session::{KeyRing, KeySource, STATE_KEY_FILE};
use crate::telemetry::{Event, Level, Log, Metrics};
use crate::tls::ServerTls;
use crate::watch::{FileWatch, POLL_INTERVAL};

/// Watches on all files that a configuration names. To be made before any of them is read: what changes in
/// between is then seen at the first look.
#[derive(Debug)]
pub(super) struct Watches {
    keys: FileWatch,
    /// For each service: client secret and CA of its provider, as far as they are files.
    providers: Vec<FileWatch>,
    /// For each service: the CA of its application, if it is a file.
    upstreams: Vec<FileWatch>,
}

impl Watches {
    pub(super) fn of(config: &Config) -> Self {
        let provider = |service: &config::Service| match &service.authorization {
            Authorization::Oidc(oidc) => oidc::files(oidc),
            Authorization::None => Vec::new(),
        };
        let upstream = |service: &config::Service| match &service.upstream.upstream {
            Upstream::Tls { roots: Some(roots), .. } => roots.path().map(Path::to_owned),
            _ => None,
        };
        Self {
            keys: FileWatch::new(key_file(&config.session_keys)),
            providers: config.services.iter().map(|service| FileWatch::new(provider(service))).collect(),
            upstreams: config.services.iter().map(|service| FileWatch::new(upstream(service))).collect(),
        }
    }
}

/// Files that are read again when they change.
#[derive(Debug)]
pub(super) struct Watched {
    keys: Arc<ArcSwap<KeyRing>>,
    key_source: KeySource,
    key_files: FileWatch,
    providers: Vec<(FileWatch, Arc<Provider>)>,
    upstreams: Vec<(FileWatch, Arc<gate::Service>)>,
    tls: Vec<Arc<ServerTls>>,
}

impl Watched {
    /// Everything that was read from watched files. Watches are in the order of `services`.
    pub(super) fn new(
        watches: Watches,
        keys: Arc<ArcSwap<KeyRing>>,
        key_source: KeySource,
        services: &[Arc<gate::Service>],
        tls: Vec<Arc<ServerTls>>,
    ) -> Self {
        let provider = |(files, service): (FileWatch, &Arc<gate::Service>)| {
            Some((files, service.relying_party.as_ref()?.provider.clone()))
        };
        let upstreams = watches.upstreams.into_iter().zip(services);
        Self {
            keys,
            key_source,
            key_files: watches.keys,
            providers: watches.providers.into_iter().zip(services).filter_map(provider).collect(),
            upstreams: upstreams.map(|(files, service)| (files, service.clone())).collect(),
            tls,
        }
    }

    /// Looks after the files for as long as the process lives.
    pub(super) async fn poll(self, log: Log, metrics: Metrics) {
        // Reading a few small files may wait for a slow disk: not on the runtime that answers probes.
        let this = Arc::new(Mutex::new(self));
        loop {
            let (watched, told, metrics) = (this.clone(), log.clone(), metrics.clone());
            let looked = tokio::task::spawn_blocking(move || {
                watched.lock().unwrap_or_else(PoisonError::into_inner).look(&told, &metrics);
            });
            if looked.await.is_err() {
                let event = Event::new("reload-failed", Level::Error).blame("portcullis");
                log.event(event.message("a bug in looking after files; please report it"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn look(&mut self, log: &Log, metrics: &Metrics) {
        if self.key_files.changed() {
            let event = match KeyRing::load(&self.key_source) {
                // Made by ourselves at the start, or only another comment.
                Ok(ring) if ring.ids().eq(self.keys.load().ids()) => None,
                Ok(ring) => Some({
                    self.keys.store(Arc::new(ring));
                    Event::new("key-rotation", Level::Info).message("the session keys were read again")
                }),
                Err(error) => Some({
                    metrics.reload_failed();
                    Event::new("reload-failed", Level::Error)
                        .blame("configuration")
                        .message(format!("{error}; the old ones stay in use"))
                }),
            };
            event.into_iter().for_each(|event| log.event(event));
        }
        for (files, provider) in &mut self.providers {
            if files.changed() {
                provider.reload_files();
            }
        }
        for (files, service) in &mut self.upstreams {
            if files.changed() {
                let event = match service.connector.reload(&service.proxy.upstream) {
                    Ok(()) => {
                        Event::new("reloaded", Level::Info).message("the application's CA was read again")
                    }
                    Err(error) => {
                        metrics.reload_failed();
                        Event::new("reload-failed", Level::Error)
                            .blame("configuration")
                            .message(format!("{error}; the old CA stays in use"))
                    }
                };
                log.event(event.service(&service.name));
            }
        }
        for outcome in self.tls.iter().flat_map(|tls| tls.reload_if_changed()) {
            let level = match (outcome.change.is_failure(), outcome.change.is_warning()) {
                (true, _) => Level::Error,
                (false, true) => Level::Warning,
                (false, false) => Level::Info,
            };
            if outcome.change.is_failure() {
                metrics.reload_failed();
            }
            log.event(Event::new("certificate", level).message(outcome.to_string()));
        }
    }
}

fn key_file(source: &KeySource) -> Option<PathBuf> {
    match source {
        KeySource::File(path) => Some(path.clone()),
        KeySource::State(directory) => Some(directory.join(STATE_KEY_FILE)),
        KeySource::Ephemeral => None,
    }
}
