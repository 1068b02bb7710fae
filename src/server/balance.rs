//! Which worker serves a new connection: whoever came first to accept it, unless another has clearly fewer.
//!
//! All workers wait on the same sockets, and whoever is awake takes what is there: in a burst that may be nearly
//! all of it, and connections that are kept alive then stay where they are. Sockets of their own
//! (`SO_REUSEPORT`) would split by the hash of the addresses, worse than 40:60 for every tenth burst of 64, and
//! would let two processes share a port unnoticed. So a worker that has clearly more than another passes the
//! connection on to that one. It is the only time that a connection changes threads, and before its first byte.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How many connections each worker has. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionCounts(Arc<[AtomicUsize]>);

impl ConnectionCounts {
    /// For so many workers, none with any.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect())
    }

    /// The connections of each worker now, by its index: accepted and not ended.
    pub fn now(&self) -> Vec<usize> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Counts one more at `worker` while it is held.
    fn enter(&self, worker: usize) -> Counted {
        if let Some(count) = self.0.get(worker) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Counted { counts: self.clone(), worker }
    }

    /// Who should have the next one that `accepted` accepted.
    fn choose(&self, accepted: usize) -> usize {
        let counts = || self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let own = counts().nth(accepted).unwrap_or_default();
        match counts().enumerate().min_by_key(|(_, count)| *count) {
            Some((least, count)) if own > count + count / TOLERATED_SHARE + TOLERATED => least,
            _ => accepted,
        }
    }
}

/// One connection, counted at its worker.
#[derive(Debug)]
pub(super) struct Counted {
    counts: ConnectionCounts,
    worker: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(count) = self.counts.0.get(self.worker) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An accepted connection on its way to another worker.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The listener, by its index.
    pub(super) listener: usize,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) counted: Counted,
}

/// Where a worker sends connections on. Nothing waits there unbounded: each has its permit.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    worker: usize,
    counts: ConnectionCounts,
    all: Arc<[UnboundedSender<Arrival>]>,
}

/// Where a worker gets connections from the others. Ends when no worker accepts any more.
pub(super) type Arrivals = UnboundedReceiver<Arrival>;

impl Peers {
    /// The ends of each worker.
    pub(super) fn connect(workers: usize, counts: &ConnectionCounts) -> Vec<(Self, Arrivals)> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
        let all: Arc<[_]> = senders.into();
        let peers = |worker| Self { worker, counts: counts.clone(), all: all.clone() };
        receivers.into_iter().enumerate().map(|(worker, arrivals)| (peers(worker), arrivals)).collect()
    }

    /// Counts a connection at the worker that should have it. The other one, if that is not this worker.
    pub(super) fn assign(&self) -> (Counted, Option<&UnboundedSender<Arrival>>) {
        let chosen = self.counts.choose(self.worker);
        let other = self.all.get(chosen).filter(|_| chosen != self.worker);
        (self.counts.enter(if other.is_some() { chosen } else { self.worker }), other)
    }

    /// Counts a connection at this worker.
    pub(super) fn keep(&self) -> Counted {
        self.counts.enter(self.worker)
    }
}

/// How many more than the least busy worker one may have before it passes connections on: passing on wakes a
/// thread, and a few more or less make no difference.
const TOLERATED: usize = 2;

/// And this part of what the least busy one has: 1/8.
const TOLERATED_SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_split_is_within_bounds() {
        for (workers, connections) in [(2, 64), (2, 1000), (4, 64), (8, 800)] {
            let counts = ConnectionCounts::new(workers);
            // One worker does all the accepting.
            let held: Vec<Counted> =
                (0..connections).map(|_| counts.enter(counts.choose(workers - 1))).collect();
            let now = counts.now();
            assert_eq!(now.iter().sum::<usize>(), connections);
            let (least, most) = (now.iter().min().unwrap(), now.iter().max().unwrap());
            assert!(least * 100 >= most * 75, "{now:?}");
            drop(held);
            assert_eq!(counts.now(), vec![0; workers]);
        }
    }

    #[test]
    fn a_few_stay_where_they_were_accepted() {
        let counts = ConnectionCounts::new(2);
        let _few: Vec<Counted> = (0..=TOLERATED).map(|_| counts.enter(counts.choose(0))).collect();
        assert_eq!(counts.now(), [TOLERATED + 1, 0]);
        assert_eq!((counts.choose(0), counts.choose(1)), (1, 1));
    }
}
