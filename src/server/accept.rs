//! Accepting: a permit for each connection before it is taken, a pause when the system has no more to give,
//! and at the end nobody who was already queued turned away.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::lifecycle::Phase;
use super::worker::{Port, Worker};
use super::{Event, Handler};

/// The listeners of one worker. Other workers wait on the same sockets; whoever comes first accepts.
pub(super) struct Doors(Vec<(TcpListener, Rc<Port>)>);

impl Doors {
    /// Registers the listeners with this worker's runtime.
    pub(super) fn open(doors: Vec<(StdListener, Port)>) -> io::Result<Self> {
        let open = |(socket, port)| Ok((TcpListener::from_std(socket)?, Rc::new(port)));
        doors.into_iter().map(open).collect::<io::Result<_>>().map(Self)
    }
}

/// Accepts on all `doors` until the process drains and nobody is queued any more; then they are closed.
pub(super) async fn accept<H: Handler>(worker: &Rc<Worker<H>>, doors: Doors) {
    let mut loops = JoinSet::new();
    for (listener, port) in doors.0 {
        let worker = worker.clone();
        loops.spawn_local(async move {
            accept_at(&worker, &listener, &port).await;
            accept_queued(&worker, listener, &port).await;
        });
    }
    while loops.join_next().await.is_some() {}
}

/// Accepts until the process drains.
async fn accept_at<H: Handler>(worker: &Rc<Worker<H>>, listener: &TcpListener, port: &Rc<Port>) {
    let mut draining = std::pin::pin!(worker.lifecycle.reached(Phase::Draining));
    loop {
        // First that there is room, held only for a moment: a permit that is held while nobody comes would
        // be missing at another door.
        drop(permit(worker).await);
        let accepted = tokio::select! {
            biased;
            () = draining.as_mut() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => admit(worker, port, accepted).await,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                worker.report(|| Event::AcceptPaused { reason: error.to_string() });
                worker.roster.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Accepts who is queued by now. Asks the system itself: the runtime may not have heard of the last ones.
async fn accept_queued<H: Handler>(worker: &Rc<Worker<H>>, listener: TcpListener, port: &Rc<Port>) {
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    admit(worker, port, (stream, peer)).await;
                }
            }
            Err(error) if is_the_clients(&error) => {}
            Err(_) => return,
        }
    }
}

/// Lets a connection in. If another door took the last permit meanwhile, this one waits for the next.
async fn admit<H: Handler>(worker: &Rc<Worker<H>>, port: &Rc<Port>, accepted: (TcpStream, SocketAddr)) {
    if let Some(permit) = permit(worker).await {
        worker.admit(port, accepted, permit);
    }
    // In a storm, let other workers have some, and those that were let in begin.
    tokio::task::yield_now().await;
}

async fn permit<H: Handler>(worker: &Rc<Worker<H>>) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = worker.permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    loop {
        worker.roster.make_room();
        let next = worker.permits.clone().acquire_owned();
        if let Ok(permit) = tokio::time::timeout(ROOM_EVERY, next).await {
            return permit.ok();
        }
    }
}

/// Whether it is only that one connection, gone before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// How long accepting pauses when the system has no descriptors or memory for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// While all permits are taken, how often idle connections are asked to make room.
const ROOM_EVERY: Duration = Duration::from_millis(500);
