//! Connections to the application that wait for the next request, one pool a worker and service.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Conn;

/// Idle connections, the latest used on top: under little load the others grow old and go.
#[derive(Default)]
pub(super) struct Pool {
    #[allow(clippy::vec_box, reason = "a connection stays in its box when it carries a body")]
    idle: RefCell<Vec<Box<Conn>>>,
    sweeping: Cell<bool>,
    /// The application has given answers with many fields: connections are made for that.
    wide: Cell<bool>,
}

/// Most connections that wait at a time, for each worker and service.
const MAX_IDLE: usize = 128;

/// How often connections that are too old, or that the application has closed, are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

impl Pool {
    /// Hears the news that have arrived by now: for requests that can't be repeated should a connection turn out to be
    /// closed.
    pub(super) async fn hear(&self) {
        if !self.idle.borrow().is_empty() {
            // Yielding makes the runtime ask the kernel, and so notice connections that were closed.
            tokio::task::yield_now().await;
        }
    }

    /// A connection that was still open when last heard of.
    pub(super) fn take(&self, now: Instant) -> Option<Box<Conn>> {
        loop {
            let mut conn = self.idle.borrow_mut().pop()?;
            if conn.is_open(now) {
                return Some(conn);
            }
        }
    }

    /// Makes connections take answers with more fields from now on. False: they did already.
    pub(super) fn widen(&self) -> bool {
        self.idle.borrow_mut().retain(|conn| conn.is_wide());
        !self.wide.replace(true)
    }

    pub(super) fn is_wide(&self) -> bool {
        self.wide.get()
    }

    /// Takes a connection back, if it can be used again and there is room.
    pub(super) fn put(self: Rc<Self>, mut conn: Box<Conn>) {
        let fits = conn.is_wide() || !self.is_wide();
        if !conn.settle() || !fits || self.idle.borrow().len() >= MAX_IDLE {
            return;
        }
        self.idle.borrow_mut().push(conn);
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(&self)));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

/// Nothing watches an idle connection but this. It ends when there is none left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let mut idle = pool.idle.borrow_mut();
        idle.retain_mut(|conn| conn.is_open(now));
        if idle.is_empty() {
            idle.shrink_to_fit();
            pool.sweeping.set(false);
            return;
        }
    }
}
