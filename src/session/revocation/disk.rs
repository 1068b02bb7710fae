//! The ledger in the state directory: a file that survives a kill, and the one thread that touches it.
//!
//! Owns the file: how it is opened, read, written, thinned out, and set aside when it is broken. It does not know
//! what an entry means. Nobody waits for the disk but this thread and whoever wants to know that an end is
//! durable; what comes meanwhile is written together, with one sync.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::file::{File, Trouble};
use super::ledger::{Ledger, LedgerError, Written};
use super::list::List;
use super::{Revocation, Revocations};
use crate::clock::Clock;

/// Revocations in a file, for all services of the process. Writing goes on until this is dropped.
pub struct DiskLedger(Arc<Shared>);

impl DiskLedger {
    /// The ledger [`LEDGER_FILE`] in this state directory, which is made if missing. Nothing is opened yet.
    pub fn new(state_directory: &Path, clock: Clock, events: DiskEvents) -> Self {
        Self::with_patience(state_directory, clock, events, Patience::default())
    }

    pub(super) fn with_patience(
        state_directory: &Path,
        clock: Clock,
        events: DiskEvents,
        patience: Patience,
    ) -> Self {
        Self(Arc::new(Shared {
            path: state_directory.join(LEDGER_FILE),
            clock,
            events,
            patience,
            readers: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
        }))
    }

    /// What is read of this service goes there. For services that are attached before [`Self::start`].
    pub fn attach(&self, revocations: &Arc<Revocations>) {
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(revocations));
    }

    /// Opens the file, and waits until everything in it is known, or until it is clear that this takes longer
    /// (which is told): then the process goes on with what it has in memory, and the rest follows.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(&self) -> std::io::Result<()> {
        let (ready, known) = sync_channel(1);
        let shared = self.0.clone();
        std::thread::Builder::new().name("revocations".to_owned()).spawn(move || shared.run(ready))?;
        // That the other end is gone is the answer.
        let _ = known.recv_timeout(START_WAIT);
        Ok(())
    }
}

impl Ledger for DiskLedger {
    fn append(&self, service: &str, revocation: &Revocation) -> Written {
        let mut state = self.0.state();
        let list = state.pending.entry(service.into()).or_insert_with(List::new);
        list.put(*revocation, self.0.clock.now());
        let (tell, told) = oneshot::channel();
        if state.is_in_trouble || state.waiting.len() >= MAX_WAITING {
            return Box::pin(std::future::ready(Err(LedgerError::NotDurable)));
        }
        state.waiting.push(tell);
        drop(state);
        self.0.wake.notify_all();
        Box::pin(async move { told.await.unwrap_or(Err(LedgerError::NotDurable)) })
    }
}

impl Drop for DiskLedger {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.wake.notify_all();
    }
}

impl fmt::Debug for DiskLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiskLedger").field(&self.0.path).finish()
    }
}

struct Shared {
    path: PathBuf,
    clock: Clock,
    events: DiskEvents,
    patience: Patience,
    readers: Mutex<Vec<Weak<Revocations>>>,
    state: Mutex<State>,
    wake: Condvar,
}

/// What the thread and those who append have in common.
#[derive(Default)]
struct State {
    /// Not written yet, by service. Each list has its bound; what it folds, it folds to the safe side.
    pending: BTreeMap<Box<str>, List>,
    waiting: Vec<oneshot::Sender<Result<(), LedgerError>>>,
    /// The file can't be used now, so that nobody needs to wait for it.
    is_in_trouble: bool,
    is_over: bool,
}

impl Shared {
    /// The thread's life. `ready` is dropped when everything is known, or when that takes longer.
    fn run(&self, ready: SyncSender<()>) {
        let mut ready = Some(ready);
        let began = Instant::now();
        let mut told: Option<Trouble> = None;
        while !self.state().is_over {
            let trouble = match self.use_file(&mut ready, &mut told) {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
            let trouble = self.set_aside(trouble);
            let patient = trouble.is_lock() && began.elapsed() < self.patience.lock;
            if let Some(trouble) = trouble.told().filter(|_| !patient) {
                self.refuse_waiting();
                if told.as_ref() != Some(trouble) {
                    (self.events)(trouble.event(&self.path));
                    told = Some(trouble.clone());
                }
                ready = None;
            }
            let soon = patient || trouble == Trouble::Gone;
            self.pause(if soon { LOCK_STEP } else { self.patience.retry });
        }
    }

    /// Opens the file, makes known what is in it, and writes what comes, until the process is over or something
    /// is wrong.
    fn use_file(
        &self,
        ready: &mut Option<SyncSender<()>>,
        told: &mut Option<Trouble>,
    ) -> Result<(), Trouble> {
        let file = guarded(|| File::open(&self.path))?;
        let lists = guarded(|| file.thin_out(self.clock.now()))?;
        for revocations in self.readers() {
            let known = lists.get(revocations.service().as_ref());
            known.into_iter().flat_map(List::revocations).for_each(|it| revocations.learn(it));
        }
        drop(lists);
        // Whatever waits is written before anybody is told that it works.
        self.write_pending(&file)?;
        self.state().is_in_trouble = false;
        if told.take().is_some() {
            (self.events)(DiskEvent::Works { path: self.path.clone() });
        }
        *ready = None;
        let mut thinned = Instant::now();
        while self.wait_for_pending() {
            self.write_pending(&file)?;
            if thinned.elapsed() >= THIN_OUT_EVERY {
                thinned = Instant::now();
                guarded(|| file.thin_out(self.clock.now()))?;
            }
        }
        Ok(())
    }

    fn write_pending(&self, file: &File) -> Result<(), Trouble> {
        let mut state = self.state();
        let (pending, waiting) = (std::mem::take(&mut state.pending), std::mem::take(&mut state.waiting));
        drop(state);
        let written = if pending.is_empty() { Ok(()) } else { guarded(|| file.write(&pending)) };
        if written.is_err() {
            let now = self.clock.now();
            let mut state = self.state();
            for (service, list) in pending {
                let since = state.pending.entry(service).or_insert_with(List::new);
                for revocation in list.revocations() {
                    since.put(revocation, now);
                }
            }
        }
        for waiting in waiting {
            // Whoever has gone needs no answer.
            let _ = waiting.send(written.as_ref().map(|_| ()).map_err(|_| LedgerError::NotDurable));
        }
        written
    }

    /// Gives a broken file another name, and ends every session of before: nobody knows which of them were ended.
    fn set_aside(&self, trouble: Trouble) -> Trouble {
        let Trouble::Broken(reason) = trouble else { return trouble };
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".corrupt-{}", self.clock.now().0));
        let aside = PathBuf::from(aside);
        if let Err(error) = fs::rename(&self.path, &aside) {
            return Trouble::Unusable(format!("it is broken ({reason}), and can't be renamed: {error}"));
        }
        for revocations in self.readers() {
            let revocation = revocations.lose();
            let mut state = self.state();
            let list = state.pending.entry(revocations.service().as_ref().into()).or_insert_with(List::new);
            list.put(revocation, self.clock.now());
        }
        (self.events)(DiskEvent::SetAside { path: self.path.clone(), aside, reason });
        Trouble::Gone
    }

    fn refuse_waiting(&self) {
        let mut state = self.state();
        state.is_in_trouble = true;
        for waiting in state.waiting.drain(..) {
            let _ = waiting.send(Err(LedgerError::NotDurable));
        }
    }

    /// False when the process is over.
    fn wait_for_pending(&self) -> bool {
        let mut state = self.state();
        while state.pending.is_empty() && !state.is_over {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // What is pending at the end is written: it wants one more round.
        !state.pending.is_empty()
    }

    /// Waits, but not beyond the end.
    fn pause(&self, pause: Duration) {
        let state = self.state();
        let waited = self.wake.wait_timeout_while(state, pause, |state| !state.is_over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn readers(&self) -> Vec<Arc<Revocations>> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().filter_map(Weak::upgrade).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that makes the store panic is a broken file.
fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Trouble::Broken("the store could not make sense of it".to_owned())))
}

/// What happens to the ledger's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// Another process has it. Told once; it is waited for, and read as soon as it is free.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It can't be made, read or written. Told once; it is tried again.
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// After trouble: it is read, and everything that waited is written.
    Works {
        /// The file.
        path: PathBuf,
    },
    /// It was broken, and got another name; all sessions of before are over.
    SetAside {
        /// The file.
        path: PathBuf,
        /// Its name now.
        aside: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// Hears what happens to the ledger's file. Called on its thread.
pub type DiskEvents = Arc<dyn Fn(DiskEvent) + Send + Sync>;

/// How long the thread waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long a file that another process has is waited for before that is told, and before the start goes on.
    pub(super) lock: Duration,
    /// Between two tries after trouble was told.
    pub(super) retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { lock: Duration::from_secs(5), retry: Duration::from_secs(2) }
    }
}

/// The ledger in the state directory.
pub const LEDGER_FILE: &str = "revocations.redb";
/// Those who may wait for one commit; more don't wait.
const MAX_WAITING: usize = 4096;
/// Longest wait for the file at the start: for its lock, and for reading it.
const START_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at a locked file before that is told.
const LOCK_STEP: Duration = Duration::from_millis(50);
/// How often what has expired is taken out of the file, if anything is written at all.
const THIN_OUT_EVERY: Duration = Duration::from_secs(3600);
