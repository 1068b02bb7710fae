//! What `/readyz` answers.

use std::sync::Arc;

use serde_json::json;

use crate::oidc::Status;
use crate::server::{Lifecycle, Phase};
use crate::telemetry::admin;
use crate::{gate, policy};

/// Answers for all services, or for one.
pub(super) fn probe(services: Vec<Arc<gate::Service>>, lifecycle: Lifecycle) -> Arc<admin::ReadyProbe> {
    Arc::new(move |name| {
        let chosen: Vec<_> = services.iter().filter(|it| name.is_none_or(|name| *it.name == *name)).collect();
        if chosen.is_empty() {
            return None;
        }
        let statuses: Vec<_> = chosen
            .iter()
            .filter_map(|service| Some(service.relying_party.as_ref()?.provider.status()))
            .collect();
        let unusable = |status: &Status| matches!(status, Status::Unusable { .. });
        let hopeless = !statuses.is_empty() && statuses.iter().all(unusable);
        let ready = lifecycle.is_ready() && !hopeless;
        let outage = chosen.iter().any(|service| store_outage(service).is_some());
        let degraded = outage || statuses.iter().any(|status| *status != Status::Ready);
        let status = match (ready, degraded) {
            (false, _) => "not ready",
            (true, true) => "degraded",
            (true, false) => "ready",
        };
        let list: Vec<_> = chosen.iter().map(|service| service_report(service)).collect();
        let stopping = lifecycle.phase() > Phase::Serving;
        let report = json!({ "status": status, "stopping": stopping, "services": list });
        Some(admin::Ready { ready, report })
    })
}

fn service_report(service: &gate::Service) -> serde_json::Value {
    let provider = service.relying_party.as_ref().map(|party| {
        let (status, reason) = match party.provider.status() {
            Status::Ready => ("ready", party.provider.last_problem()),
            Status::Discovering => ("discovering", None),
            Status::Unreachable { reason } => ("unreachable", Some(reason)),
            Status::Unusable { reason } => ("unusable", Some(reason)),
        };
        json!({ "issuer": party.provider.issuer(), "status": status, "reason": reason })
    });
    let outage = store_outage(service);
    let degraded =
        outage.is_some() || provider.as_ref().is_some_and(|provider| provider["status"] != "ready");
    json!({
        "name": &*service.name,
        "status": if degraded { "degraded" } else { "ready" },
        "mode": if service.policy.mode() == policy::Mode::Observe { "observe" } else { "enforce" },
        "provider": provider,
        "store": outage.map(|reason| json!({ "status": "unavailable", "reason": reason })),
    })
}

/// Why the session store can't be used, where there is one.
fn store_outage(service: &gate::Service) -> Option<String> {
    service.relying_party.as_ref()?.sessions.store_outage()
}
