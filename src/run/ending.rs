//! What `POST /sessions/end` does.

use std::sync::Arc;

use crate::gate;
use crate::session::revocation::{Entry, LedgerError};
use crate::session::{SessionId, Why};
use crate::telemetry::admin::{EndError, EndSessions, Ending, NotEverywhere};
use crate::telemetry::{Event, Level, Log};

/// Ends sessions of these services.
pub(super) fn end_sessions(services: Vec<Arc<gate::Service>>, log: Log) -> Arc<EndSessions> {
    Arc::new(move |name, ending| {
        let service = services.iter().find(|service| *service.name == *name).ok_or(EndError::NoService)?;
        let party = service.relying_party.as_ref().ok_or(EndError::NoService)?;
        let event = Event::new("sessions-ended", Level::Info).service(&service.name);
        let (entry, event) = match ending {
            Ending::Session(id) => {
                let id = SessionId::parse(id).ok_or(EndError::NotASession)?;
                let event =
                    event.session(&id).message("an administrator ended this session, if there is such a one");
                (Entry::Session(id), event)
            }
            Ending::Subject(subject) => {
                let event =
                    event.subject(subject).message("an administrator ended all sessions of this person");
                (Entry::Subject { issuer: party.provider.issuer(), subject }, event)
            }
            Ending::All => {
                (Entry::Everything, event.message("an administrator ended all sessions of this service"))
            }
        };
        let ended = party.revocations.end(entry, Why::Admin);
        log.event(event);
        Ok(Box::pin(async move {
            match ended.await {
                Err(LedgerError::NotShared) => Err(NotEverywhere),
                // The ledger of this process tells about its own trouble.
                Err(LedgerError::NotDurable) | Ok(()) => Ok(()),
            }
        }))
    })
}
