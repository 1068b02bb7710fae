//! Who sends a request: what this worker has open, what the store has, and what a refresh makes of it.
//!
//! Owns the order in which they are asked. A request whose session is open here and not due asks nobody.

use std::rc::Rc;

use http::HeaderMap;

use super::admit::Arrived;
use super::callers::{Known, Missing, Presented};
use super::entry::Entry;
use super::service::RelyingParty;
use super::{Entrance, Worker};
use crate::clock::UnixTime;
use crate::session::{Absent, Session};

impl Worker {
    /// Who sends this request, where that is asked at all.
    pub(super) fn credentials(
        &self,
        arrived: &Arrived<'_>,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Result<Presented, Missing> {
        match &arrived.local.service.relying_party {
            Some(party) if arrived.entrance != Entrance::PublicOnly => {
                self.presented(arrived, party, headers, now)
            }
            _ => Err(Absent::NoCookie.into()),
        }
    }

    /// Who sends this request, where the store or the provider has to be asked: the newest revision of a session that
    /// is due to be refreshed, or that of the request where the provider can't tell now. Every answer to an older
    /// cookie brings the newest along.
    pub(super) async fn asked(
        &self,
        arrived: &Arrived<'_>,
        headers: &HeaderMap,
        found: Result<Presented, Missing>,
        entry: &mut Entry,
    ) -> Result<Presented, Absent> {
        let service = &arrived.local.service;
        let Some(party) = &service.relying_party else { return Err(Absent::NoCookie) };
        let mut presented = match found {
            Ok(presented) => presented,
            Err(Missing::Nobody(absent)) => return Err(absent),
            Err(Missing::Stored(ticket)) => {
                let session = party.sessions.load(&ticket).await?;
                self.keep(arrived, party, headers, session)?
            }
        };
        if presented.known.session.ticket.is_some() && party.sessions.needs_new_seal(&presented.known.session)
        {
            match party.sessions.touch(&presented.known.session).await {
                Ok(session) => {
                    // Sealed anew like other sessions, so that a key which is going to be removed is used by nobody.
                    entry.cookies.extend(party.sessions.seal(&session, headers).unwrap_or_default());
                    presented = self.keep(arrived, party, headers, session)?;
                }
                // One command that failed: the session is known, and the next request tells the store.
                Err(Absent::StoreUnavailable) => {}
                Err(absent) => return Err(absent),
            }
        }
        if !presented.known.is_due(self.clock.now()) {
            return Ok(presented);
        }
        let newest = party.refreshes.newest(service, party, &presented.known.session).await;
        presented.known.check_revocations(party)?;
        let Some(newest) = newest else { return Ok(presented) };
        party.sessions.check(&newest)?;
        if newest.ticket.is_some() {
            // The cookie stays what it is.
            return self.keep(arrived, party, headers, Session::clone(&newest));
        }
        let known = presented.known.succeeded_by(&newest, service, party);
        // By the names that it has now: the provider may have changed that of its own session.
        known.check_revocations(party)?;
        entry.cookies.extend(party.sessions.seal(&newest, headers).unwrap_or_default());
        Ok(Presented { known, cookie: presented.cookie, outdated: true })
    }

    /// Who sends this request, or why nobody is logged in.
    pub(super) async fn caller(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
    ) -> Result<Rc<Known>, Absent> {
        let presented = match self.presented(arrived, party, headers, self.clock.now()) {
            Ok(presented) => presented,
            Err(Missing::Nobody(absent)) => return Err(absent),
            Err(Missing::Stored(ticket)) => {
                let session = party.sessions.load(&ticket).await?;
                self.keep(arrived, party, headers, session)?
            }
        };
        Ok(presented.known)
    }

    /// Who sends this request, as far as this worker can tell by itself, with what is left of the cookies.
    fn presented(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Result<Presented, Missing> {
        let local = arrived.local;
        // Logins end on the canonical host, and browsers send what they set there nowhere else: whoever brings it to
        // another host has it from somewhere.
        if arrived.host.name != local.service.canonical_host {
            return Err(Absent::OtherHost.into());
        }
        let recent = &arrived.recollection.presented;
        local.callers.find(&local.service, party, headers, (recent, now), self.limits.session_cache_bytes)
    }

    /// Keeps a session that has come from the store.
    fn keep(
        &self,
        arrived: &Arrived<'_>,
        party: &RelyingParty,
        headers: &HeaderMap,
        session: Session,
    ) -> Result<Presented, Absent> {
        let local = arrived.local;
        local.callers.keep(&local.service, party, headers, session, self.limits.session_cache_bytes)
    }
}
