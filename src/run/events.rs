//! What happens inside the boxes, as events of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::session::{redis, revocation};
use crate::telemetry::{Event, Level, Log, Metrics};
use crate::{oidc, server};

/// Turns what happens at the listeners into events of the log.
pub(super) fn server_events(log: &Log) -> server::Events {
    let log = log.clone();
    Arc::new(move |happened| {
        let (name, level, message) = match happened {
            server::Event::ConnectionsReduced { wanted, possible } => (
                "connections-reduced",
                // Nearly as many as wanted is no reason to wake anybody.
                if possible >= wanted / 2 { Level::Info } else { Level::Warning },
                format!(
                    "limits.connections is {wanted}, but the limit of open files allows {possible}; raise it"
                ),
            ),
            server::Event::AcceptPaused { reason } => ("accept-paused", Level::Warning, reason),
            server::Event::HandshakeFailed { peer, reason, .. } => {
                ("handshake-failed", Level::Info, format!("{peer}: {reason}"))
            }
        };
        log.event(Event::new(name, level).message(message));
    })
}

/// Turns what happens at a provider into events of the log.
pub(super) fn provider_events(log: &Log, metrics: &Metrics, service: &Arc<str>) -> oidc::Events {
    use oidc::Event as Happened;

    let (log, metrics, service) = (log.clone(), metrics.clone(), service.clone());
    let had_keys = AtomicBool::new(false);
    Arc::new(move |happened| {
        let event = match happened {
            Happened::Discovered => {
                Event::new("discovery", Level::Info).message("the identity provider answers")
            }
            Happened::DiscoveryFailed { reason, keeps_old } => {
                let level = if keeps_old { Level::Warning } else { Level::Error };
                Event::new("discovery-failed", level).blame("provider").message(reason)
            }
            Happened::KeysChanged { usable } => {
                let first = !had_keys.swap(true, Ordering::Relaxed);
                let name = if first { "keys" } else { "key-rotation" };
                let text = if first {
                    "the keys of the identity provider"
                } else {
                    "the identity provider changed its keys"
                };
                Event::new(name, Level::Info).message(format!("{text}; {usable} can be used"))
            }
            Happened::KeysFailed { reason } => {
                Event::new("keys-failed", Level::Warning).blame("provider").message(reason)
            }
            Happened::RefreshFailed { reason } => Event::new("refresh-failing", Level::Warning)
                .blame("provider")
                .message(format!("{reason}; sessions live on with what is known of them")),
            Happened::RefreshRecovered => {
                Event::new("refresh-recovered", Level::Info).message("sessions are refreshed again")
            }
            Happened::ClaimsKept { reason } => Event::new("claims-kept", Level::Warning)
                .blame("provider")
                .message(format!("a session was refreshed and keeps its old claims: {reason}")),
            Happened::RevocationFailed { reason } => Event::new("token-revocation-failed", Level::Warning)
                .blame("provider")
                .message(format!("a refresh token could not be revoked: {reason}; it expires by itself")),
            Happened::EndpointIgnored { reason } => {
                Event::new("endpoint-ignored", Level::Warning).blame("provider").message(reason)
            }
            Happened::Reloaded { path } => {
                Event::new("reloaded", Level::Info).message(format!("{} was read again", path.display()))
            }
            Happened::ReloadFailed { path, reason } => {
                metrics.reload_failed();
                Event::new("reload-failed", Level::Error)
                    .blame("configuration")
                    .message(format!("{}: {reason}; the old content stays in use", path.display()))
            }
        };
        log.event(event.service(&service));
    })
}

/// Turns what happens to revocations into events of the log, and counts them.
pub(super) fn revocation_events(log: &Log, metrics: &Metrics) -> revocation::Events {
    use revocation::Event as Happened;

    let (log, metrics) = (log.clone(), metrics.clone());
    Arc::new(move |service, happened| {
        let message = match happened {
            // Told, with more to say, by whoever ended it.
            Happened::Ended { .. } => return metrics.session_revoked(),
            Happened::LedgerSlow => {
                "a session was ended, but writing that down takes longer than 2 s: should this process end before \
                 it is written, a copy of the session's cookie would work again; look at the disk of stateDirectory"
                    .to_owned()
            }
            Happened::Folding => format!(
                "more than {} sessions were ended within session.maxLifetime; to remember the new ones, all \
                 sessions older than the oldest of them are ended. A shorter session.maxLifetime avoids that",
                revocation::MAX_ENTRIES
            ),
        };
        log.event(Event::new("revocations", Level::Warning).service(service).message(message));
    })
}

/// Turns what happens to the file of revocations into events of the log.
pub(super) fn ledger_events(log: &Log, store: Option<&Arc<redis::Store>>) -> revocation::DiskEvents {
    use revocation::DiskEvent as Happened;

    let (log, store) = (log.clone(), store.cloned());
    Arc::new(move |happened| {
        // What was read just now is news to the others.
        if let (Happened::Works { .. }, Some(store)) = (&happened, &store) {
            store.tell_again();
        }
        let (level, message) = match happened {
            Happened::Locked { path } => (
                Level::Warning,
                format!(
                    "{} is used by another process, which may be the one that this one replaces. Until it ends, \
                     sessions that were logged out there before are not known here, and those that are logged out \
                     here are only in memory. It is tried again every few seconds; two processes that stay need a \
                     stateDirectory each",
                    path.display()
                ),
            ),
            Happened::Unusable { path, reason } => (
                Level::Error,
                format!(
                    "{} can't be used: {reason}. Logged-out sessions are only remembered by this process until it \
                     can; it is tried again every few seconds",
                    path.display()
                ),
            ),
            Happened::Works { path } => (
                Level::Info,
                format!("{} can be used now; everything that was ended is written down", path.display()),
            ),
            Happened::SetAside { path, aside, reason } => (
                Level::Error,
                format!(
                    "{} is broken: {reason}. It was renamed to {}, and as nobody can know any more which sessions \
                     had been logged out, all of them are over: everybody logs in again",
                    path.display(),
                    aside.display()
                ),
            ),
        };
        let blame = if level == Level::Info { None } else { Some("configuration") };
        let event = Event::new("revocations", level).message(message);
        log.event(match blame {
            Some(blame) => event.blame(blame),
            None => event,
        });
    })
}

/// Turns what happens between us and Redis into events of the log.
pub(super) fn store_events(log: &Log) -> redis::Events {
    let log = log.clone();
    Arc::new(move |happened| {
        log.event(match happened {
            redis::Event::Available => {
                Event::new("store-available", Level::Info).message("sessions in Redis can be used")
            }
            redis::Event::Unavailable(reason) => Event::new("store-unavailable", Level::Error)
                .blame("redis")
                .message(format!("{reason}; sessions are answered by 503 until it is back")),
        });
    })
}
