//! Sessions in Redis 7: the browser holds a ticket, Redis a record that only the ticket opens.
//!
//! Owns the connection, the records, the leases on refreshes, and the revocations that processes share. It
//! does not know what a session says, what has ended, or which request asks.
//!
//! # How it is used
//!
//! - [`Store::new`] once for the process; then [`Store::keep_connected`] as a task of the control runtime. The
//!   store connects lazily and is never a condition of the start.
//! - A login: [`Ticket::new`], [`Store::create`] with the payload, and the ticket's bytes sealed into the cookie
//!   (`Purpose::Session`; [`Ticket::from_bytes`] tells a ticket from a payload).
//! - A request: [`Store::is_fresh`] first, which is one atomic load; if it is not, every session of the store is
//!   answered by 503. Then the worker's own cache, or [`Store::load`].
//! - Use: [`Store::touch`] now and then (a tenth of the idle timeout), with the smaller of the idle timeout and
//!   what is left to the absolute end.
//! - A refresh: [`Store::lease`]; `None` is another's, so wait and load again. Load again under the lease (it
//!   may have been refreshed meanwhile), ask the provider, [`Store::replace`], drop the lease.
//! - A logout: [`Store::end`] for all processes and [`Store::remove`] for the record.
//!
//! All input and output runs on the control runtime; a worker waits for it, and may give up at any time. Every
//! command has a deadline, and at most [`MAX_IN_FLIGHT`] are under way; one that is not answered fails, and is
//! not repeated here.
//!
//! # What a thief of Redis, or of a dump of it, has
//!
//! Digests as names, records that open only with the key in the browser's cookie, scopes as digests, and the
//! entries of the revocations, which name sessions and subjects and open nothing. Whoever writes to Redis can
//! end sessions, and can make none.

mod address;
mod commands;
mod config;
mod connect;
mod dial;
mod error;
mod event;
mod lease;
mod link;
mod record;
mod sync;
mod tail;
#[cfg(test)]
mod tests;
mod ticket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::FromRedisValue;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use link::Link;

pub use address::{Address, AddressError, MAX_NODES};
pub use config::{Config, ConfigError, Topology};
pub use error::{StoreError, Unavailable};
pub use event::{Event, Events};
pub use lease::{LEASE_LENGTH, Lease};
pub use record::{MAX_PAYLOAD_BYTES, Scope, ScopeId};
pub use sync::{MAX_STALENESS, try_once};
pub use tail::{Ending, Endings, Heard, MAX_ENTRY_BYTES};
pub use ticket::{TICKET_BYTES, Ticket};

/// The store of sessions in Redis. One for the process, shared by all threads.
pub struct Store {
    config: Config,
    control: Handle,
    events: Events,
    started: Instant,
    link: ArcSwapOption<Link>,
    /// Why there is no link.
    reason: ArcSwap<Unavailable>,
    /// When the last good look began: milliseconds since `started`; `NEVER` before the first.
    synced: AtomicU64,
    /// What was told last: a [`Told`].
    told: AtomicU8,
    /// Whether an entry may be known here and not to the server.
    append_failed: AtomicBool,
    in_flight: Semaphore,
}

/// A session that was in the store.
pub struct Loaded {
    /// What was written last.
    pub payload: Zeroizing<Vec<u8>>,
    /// How long the record lives if it is not touched.
    pub idle_left: Duration,
}

/// What became of [`Store::replace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The record is the new one.
    Yes,
    /// There is no record any more: the session was ended meanwhile.
    Gone,
    /// The lease is not ours any more, and nothing was written: another may have refreshed.
    LeaseLost,
}

/// What was told of the store's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing = 0,
    Available = 1,
    Unavailable = 2,
}

impl Store {
    /// A store that is not connected yet: see [`Store::keep_connected`]. `control` is the runtime that does the
    /// work, `events` hears what changes. Errors are the configuration's.
    pub fn new(config: Config, control: Handle, events: Events) -> Result<Arc<Self>, ConfigError> {
        config.address()?;
        config.authorities()?;
        Ok(Arc::new(Self {
            config,
            control,
            events,
            started: Instant::now(),
            link: ArcSwapOption::empty(),
            reason: ArcSwap::from_pointee(Unavailable::NotYet),
            synced: AtomicU64::new(NEVER),
            told: AtomicU8::new(Told::Nothing as u8),
            append_failed: AtomicBool::new(false),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        }))
    }

    /// Whether everything that has ended anywhere was known a moment ago ([`MAX_STALENESS`]). While it is not,
    /// no session in the store may be believed.
    pub fn is_fresh(&self) -> bool {
        let synced = self.synced.load(Ordering::Acquire);
        let staleness = u64::try_from(MAX_STALENESS.as_millis()).unwrap_or(u64::MAX);
        synced != NEVER && self.since_start().saturating_sub(synced) <= staleness
    }

    /// Why the store can't be used, for `/readyz` and for the record of a request; `None` if it can.
    pub fn outage(&self) -> Option<Unavailable> {
        match self.link.load().is_some() {
            true if self.is_fresh() => None,
            true => Some(Unavailable::no_answer()),
            false => Some(Unavailable::clone(&self.reason.load())),
        }
    }

    /// Writes the record of a new session, which ends after `idle` if it is not touched.
    pub async fn create(
        self: &Arc<Self>,
        scope: &Scope,
        ticket: &Ticket,
        payload: &[u8],
        idle: Duration,
    ) -> Result<(), StoreError> {
        let record = record::seal(scope, ticket, payload)?;
        let names = scope.names(ticket);
        let create = move |link: Arc<Link>| async move {
            let _: String = link.run(&commands::create(&names, &record, idle)).await?;
            Ok(())
        };
        Ok(self.with_link(create).await?)
    }

    /// The session, or `None` if there is no record that the ticket opens: it ended, was never there, or was
    /// tampered with.
    pub async fn load(
        self: &Arc<Self>,
        scope: &Scope,
        ticket: &Ticket,
    ) -> Result<Option<Loaded>, Unavailable> {
        let names = scope.names(ticket);
        let load = move |link: Arc<Link>| async move { link.run_all(&commands::load(&names)).await };
        let (record, idle_left): (Vec<u8>, i64) = self.with_link(load).await?;
        let Ok(idle_left) = u64::try_from(idle_left) else { return Ok(None) };
        let payload = record::open(scope, ticket, record);
        let idle_left = Duration::from_millis(idle_left);
        Ok(payload.map(|payload| Loaded { payload, idle_left }))
    }

    /// Moves the idle end to `idle` from now; `false`: there is no record any more.
    pub async fn touch(
        self: &Arc<Self>,
        scope: &Scope,
        ticket: &Ticket,
        idle: Duration,
    ) -> Result<bool, Unavailable> {
        self.count(commands::touch(&scope.names(ticket), idle)).await.map(|there| there == 1)
    }

    /// Writes a refreshed session in place of the old, whose idle end stays. Only with the lease, and only while
    /// there is a record: what was ended stays so.
    pub async fn replace(
        self: &Arc<Self>,
        scope: &Scope,
        ticket: &Ticket,
        payload: &[u8],
        lease: &Lease,
    ) -> Result<Replaced, StoreError> {
        let record = record::seal(scope, ticket, payload)?;
        match self.count(commands::replace(&scope.names(ticket), &record, lease.token())).await? {
            1 => Ok(Replaced::Yes),
            0 => Ok(Replaced::Gone),
            _ => Ok(Replaced::LeaseLost),
        }
    }

    /// Removes the record; `false`: there was none.
    pub async fn remove(self: &Arc<Self>, scope: &Scope, ticket: &Ticket) -> Result<bool, Unavailable> {
        self.count(commands::remove(&scope.names(ticket))).await.map(|removed| removed == 1)
    }

    /// Takes the right to refresh the session; `None`: another has it now.
    pub async fn lease(
        self: &Arc<Self>,
        scope: &Scope,
        ticket: &Ticket,
    ) -> Result<Option<Lease>, Unavailable> {
        Lease::take(self, scope.names(ticket)).await
    }

    /// Tells all processes that something has ended. If that fails, it is tried again with everything else that
    /// is [`Endings::known`] as soon as Redis answers, so put it there first.
    pub async fn end(self: &Arc<Self>, ending: Ending) -> Result<(), Unavailable> {
        if ending.entry.len() > MAX_ENTRY_BYTES {
            return Err(Unavailable::Unexpected("an entry that is too large".to_owned()));
        }
        let append = commands::append(&ending.scope.0, &ending.entry, ending.expires_at);
        let this = Arc::clone(self);
        let told = self.on_control(async move {
            let told: Result<i64, _> = this.with_permit(|link| async move { link.run(&append).await }).await;
            if told.is_err() {
                this.append_failed.store(true, Ordering::Release);
            }
            told
        });
        told.await.map(|_| ())
    }

    /// More may be known here of what has ended than the server was told.
    pub fn tell_again(&self) {
        self.append_failed.store(true, Ordering::Release);
    }

    /// Runs a command that answers with a number.
    async fn count(self: &Arc<Self>, command: redis::Cmd) -> Result<i64, Unavailable> {
        self.with_link(move |link: Arc<Link>| async move { link.run(&command).await }).await
    }

    /// Runs `work` on the control runtime, with the connection.
    async fn with_link<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Link>) -> F + Send + 'static,
    ) -> Result<T, Unavailable>
    where
        T: FromRedisValue + Send + 'static,
        F: Future<Output = Result<T, Unavailable>> + Send,
    {
        let this = Arc::clone(self);
        self.on_control(async move { this.with_permit(work).await }).await
    }

    async fn with_permit<T, F: Future<Output = Result<T, Unavailable>>>(
        &self,
        work: impl FnOnce(Arc<Link>) -> F,
    ) -> Result<T, Unavailable> {
        let _permit = self.in_flight.try_acquire().map_err(|_| Unavailable::Busy)?;
        work(self.link()?).await
    }

    /// Runs on the control runtime, also if nobody waits for it any more.
    async fn on_control<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.control.spawn(work).await.map_err(|_| Unavailable::Stopping)?
    }

    fn link(&self) -> Result<Arc<Link>, Unavailable> {
        self.link.load_full().ok_or_else(|| Unavailable::clone(&self.reason.load()))
    }

    fn since_start(&self) -> u64 {
        // Enough for half a billion years.
        self.started.elapsed().as_millis() as u64
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("outage", &self.outage()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("idle_left", &self.idle_left).finish_non_exhaustive()
    }
}

/// How long one command may take.
pub const COMMAND_DEADLINE: Duration = Duration::from_millis(500);
/// How long a connection may take to be made, login and TLS included.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Most commands under way at once, all workers together. More fail at once.
pub const MAX_IN_FLIGHT: usize = 1024;
/// Before the first look.
const NEVER: u64 = u64::MAX;
