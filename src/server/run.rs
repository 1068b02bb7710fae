//! Runs the workers through the life of the process.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::balance::{ConnectionCounts, Peers};
use super::descriptors::affordable_connections;
use super::lifecycle::{Lifecycle, Phase};
use super::limits::Limits;
use super::listener::{Bound, Listener};
use super::worker::{Port, Start};
use super::{Event, Events, Handler};

/// Serves on `bound` until `stop` resolves, then stops as section 10 of the product says: not ready but still
/// accepting for `limits.shutdown_delay`, no longer accepting, what is under way finished within
/// `limits.drain`. `factory` makes the handler of each worker, on that worker's thread. `counts` is for
/// `limits.workers` workers.
///
/// Dropping the future leaves the workers running; let `stop` resolve instead.
pub async fn run<H, F>(
    bound: Bound,
    limits: Limits,
    lifecycle: Lifecycle,
    stop: impl Future<Output = ()>,
    events: Events,
    counts: ConnectionCounts,
    factory: F,
) -> Result<Stopped, RunError>
where
    H: Handler,
    F: Fn(usize) -> Rc<H> + Send + Sync + 'static,
{
    let limits = Arc::new(limits.within_reach());
    let mut workers = start(&bound, &limits, &lifecycle, &events, &counts, Arc::new(factory)).await?;
    // Each worker has its own copies. The sockets close when the last worker has taken in who was queued.
    drop(bound);
    lifecycle.advance(Phase::Serving);
    let leave = async {
        stop.await;
        lifecycle.advance(Phase::Leaving);
        tokio::time::sleep(limits.shutdown_delay).await;
        lifecycle.advance(Phase::Draining);
        tokio::time::sleep(limits.drain).await;
        lifecycle.advance(Phase::Over);
        // The workers end now, and `finish` with them.
        std::future::pending().await
    };
    tokio::select! {
        result = finish(&mut workers) => {
            lifecycle.advance(Phase::Over);
            result
        }
        result = leave => result,
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were still busy after `limits.drain` and were cut off.
    pub cut: usize,
}

/// Why the server could not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system gave no thread, descriptor or event queue.
    #[error("cannot start a worker: {0}; are the limits of open files and threads high enough?")]
    Start(#[source] io::Error),
    /// A worker thread ended by a bug. What it served is lost; a supervisor should start the process again.
    #[error("a worker thread died")]
    Died,
}

type Workers = JoinSet<Result<usize, RunError>>;

async fn start<H, F>(
    bound: &Bound,
    limits: &Arc<Limits>,
    lifecycle: &Lifecycle,
    events: &Events,
    counts: &ConnectionCounts,
    factory: Arc<F>,
) -> Result<Workers, RunError>
where
    H: Handler,
    F: Fn(usize) -> Rc<H> + Send + Sync + 'static,
{
    let connections = affordable_connections(limits.connections);
    if connections < limits.connections {
        events(Event::ConnectionsReduced { wanted: limits.connections, possible: connections });
    }
    let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let mut workers = JoinSet::new();
    for (index, peers) in Peers::connect(limits.workers.max(1), counts).into_iter().enumerate() {
        let start = Start {
            index,
            doors: doors(bound).map_err(RunError::Start)?,
            peers,
            limits: limits.clone(),
            lifecycle: lifecycle.clone(),
            permits: permits.clone(),
            events: events.clone(),
            factory: factory.clone(),
        };
        let (is_up, up) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let body = move || {
            let result = start.run(|| {
                // Nobody listens any more only if starting was given up.
                let _ = is_up.send(());
            });
            let _ = ended.send(result.map_err(RunError::Start));
        };
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(body).map_err(RunError::Start)?;
        workers.spawn(async move { end.await.unwrap_or(Err(RunError::Died)) });
        if up.await.is_err() {
            lifecycle.advance(Phase::Over);
            return Err(workers
                .join_next()
                .await
                .and_then(Result::ok)
                .and_then(Result::err)
                .unwrap_or(RunError::Died));
        }
    }
    Ok(workers)
}

fn doors(bound: &Bound) -> io::Result<Vec<(std::net::TcpListener, Port)>> {
    let copy = |(index, (socket, listener)): (usize, &(std::net::TcpListener, Listener))| {
        let number = socket.local_addr()?.port();
        let (kind, balancers) = (listener.kind.clone(), listener.balancers.clone());
        Ok((socket.try_clone()?, Port { index, number, kind, balancers }))
    };
    bound.0.iter().enumerate().map(copy).collect()
}

/// Waits for all workers to end.
async fn finish(workers: &mut Workers) -> Result<Stopped, RunError> {
    let mut cut = 0;
    while let Some(worker) = workers.join_next().await {
        cut += worker.unwrap_or(Err(RunError::Died))?;
    }
    Ok(Stopped { cut })
}
