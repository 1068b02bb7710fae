//! What happens inside the boxes, as events of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::session::redis;
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
