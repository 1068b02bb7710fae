//! Accepting: a permit for each connection before it is taken, a pause when the system has no more to give, a
//! worker that has room for it, and at the end nobody who was already queued turned away.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::balance::{Arrival, Arrivals, Peers};
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

/// Accepts on all `doors` until the process drains and nobody is queued any more; then they are closed. Takes in
/// what other workers pass on for as long as they do.
pub(super) async fn accept<H: Handler>(
    worker: &Rc<Worker<H>>,
    doors: Doors,
    (peers, mut arrivals): (Peers, Arrivals),
) {
    let mut loops = JoinSet::new();
    let ports: Vec<Rc<Port>> = doors.0.iter().map(|(_, port)| port.clone()).collect();
    for (listener, port) in doors.0 {
        let (worker, peers) = (worker.clone(), peers.clone());
        loops.spawn_local(async move {
            accept_at(&worker, &listener, &port, &peers).await;
            accept_queued(&worker, listener, &port, &peers).await;
        });
    }
    // The others wait for the last of these, as this worker does for theirs.
    drop(peers);
    while let Some(arrival) = arrivals.recv().await {
        take_in(worker, &ports, arrival);
    }
    while loops.join_next().await.is_some() {}
}

/// Accepts until the process drains.
async fn accept_at<H: Handler>(
    worker: &Rc<Worker<H>>,
    listener: &TcpListener,
    port: &Rc<Port>,
    peers: &Peers,
) {
    let mut draining = std::pin::pin!(worker.lifecycle.reached(Phase::Draining));
    let mut in_a_row = 0;
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
            Ok(accepted) => {
                admit(worker, port, peers, accepted).await;
                in_a_row += 1;
                if in_a_row == MOST_IN_A_ROW {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
            }
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
async fn accept_queued<H: Handler>(
    worker: &Rc<Worker<H>>,
    listener: TcpListener,
    port: &Rc<Port>,
    peers: &Peers,
) {
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    admit(worker, port, peers, (stream, peer)).await;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_the_clients(&error) => {}
            Err(_) => return,
        }
    }
}

/// Lets a connection in, here or at a worker that has fewer. If another door took the last permit meanwhile, this
/// one waits for the next.
async fn admit<H: Handler>(
    worker: &Rc<Worker<H>>,
    port: &Rc<Port>,
    peers: &Peers,
    (stream, peer): (TcpStream, SocketAddr),
) {
    if let Some(permit) = permit(worker).await {
        match peers.assign() {
            (counted, None) => worker.admit(port, (stream, peer), (permit, counted)),
            (counted, Some(other)) => {
                if let Ok(stream) = stream.into_std()
                    && let Err(back) =
                        other.send(Arrival { listener: port.index, stream, peer, permit, counted })
                {
                    // That worker is gone, and the process is about to be.
                    take_in(worker, std::slice::from_ref(port), Arrival { counted: peers.keep(), ..back.0 });
                }
            }
        }
    }
}

/// Lets a connection in that another worker accepted.
fn take_in<H: Handler>(worker: &Rc<Worker<H>>, ports: &[Rc<Port>], arrival: Arrival) {
    let Arrival { listener, stream, peer, permit, counted } = arrival;
    let port = ports.iter().find(|port| port.index == listener);
    if let (Some(port), Ok(stream)) = (port, TcpStream::from_std(stream)) {
        worker.admit(port, (stream, peer), (permit, counted));
    }
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

/// Connections that are let in before those begin that were let in, and other workers have some. More than one: where
/// others keep the worker busy, each turn may be long in coming, and newcomers would wait one for each of those before
/// them.
const MOST_IN_A_ROW: u32 = 8;

/// How long accepting pauses when the system has no descriptors or memory for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// While all permits are taken, how often idle connections are asked to make room.
const ROOM_EVERY: Duration = Duration::from_millis(500);
