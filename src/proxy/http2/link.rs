//! One HTTP/2 connection to the application, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Connection, SendRequest};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Room;
use super::greeting::{Greeting, Heard, Overheard};
use super::vigil::{Verdict, Vigil};
use crate::proxy::{Connector, Error};

/// A connection as those see it who send requests on it.
pub(super) struct Link {
    /// `None` once no more requests may be sent.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    heard: Rc<Heard>,
    /// Calls under way.
    calls: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Heads and pieces of bodies that have come.
    news: Cell<u64>,
    unresponsive: Cell<bool>,
    /// The application was told of the [`NARROW_WINDOW`].
    narrow: Cell<bool>,
    /// Streams whose answers are whole, and whose ends have not come. At most [`MOST_LEAVING`]. `None` once the connection
    /// has ended.
    leaving: RefCell<Option<VecDeque<Leaving>>>,
    /// Wakes the driver, which does not notice by itself that nobody wants to send any more, or that a stream is to end.
    nudge: Notify,
    /// Told whenever a stream becomes free, or the connection ends.
    freed: Rc<Notify>,
}

/// A stream of which only the end is awaited. It counts as a call.
struct Leaving {
    stream: RecvStream,
    since: Instant,
}

/// Most streams of a connection of which only the end is awaited. With one more, the oldest is reset.
const MOST_LEAVING: usize = 32;

/// How long their ends are awaited, and until the connection is looked at again.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

impl Leaving {
    /// Ready when nothing more is awaited of it. What else comes than the end is not wanted.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(_) => return Poll::Ready(()),
                None => break,
            }
        }
        self.stream.poll_trailers(cx).map(drop)
    }
}

/// How patient a connection is with its peer, and with itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Silence during calls after which the peer is asked whether it is there.
    pub(super) quiet: Duration,
    /// How long it may take to say so.
    pub(super) pong: Duration,
    /// Shortest time between two such questions while the peer sends nothing else. Servers of gRPC end
    /// connections that ask more often than every five minutes.
    pub(super) spacing: Duration,
    /// How long a connection without calls is kept.
    pub(super) idle: Duration,
}

impl Patience {
    pub(super) fn new(idle: Duration) -> Self {
        Self { quiet: QUIET, pong: PONG, spacing: SPACING, idle }
    }
}

const QUIET: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(20);
const SPACING: Duration = Duration::from_secs(320);

/// Bytes of one answer that the application may be ahead of its client.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The same while there are many calls. They wait where nobody counts them, and a crowd of clients that take nothing of
/// what they asked for could fill the memory with them.
const NARROW_WINDOW: u32 = 8 * 1024;

/// Calls of the whole process that have the wider window; those that come when there are more have the narrow one.
const FEW_CALLS: usize = 64;

/// Calls under way on all connections of the process, as its memory is one.
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn is_crowded() -> bool {
    CALLS.load(Relaxed) > FEW_CALLS
}

/// Calls at a time on one connection, whatever the application allows.
pub(super) const MAX_CALLS: usize = 128;

/// Bytes of all answers together: so many that clients that read slowly, each up to its [`STREAM_WINDOW`], never
/// hold up the others on their connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_CALLS as u32;

/// What pieces of answers that are smaller than 256 bytes may cost in memory beyond their bytes. Where this is
/// used up, h2 ends the connection with all its calls: it has to be more than a few clients that read slowly
/// can make of small messages.
const SMALL_FRAMES_BUDGET: usize = 64 * 1024 * 1024;

/// Bytes of one request that wait for the connection.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Size of the head or the trailers of an answer, as RFC 9113 section 6.5.2 counts.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;

fn builder(is_narrow: bool) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(if is_narrow { NARROW_WINDOW } else { STREAM_WINDOW })
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES);
    builder
}

impl Drop for Link {
    fn drop(&mut self) {
        // Those whose end was awaited, if the connection was dropped before it ended.
        CALLS.fetch_sub(self.calls.get(), Relaxed);
    }
}

/// A connection that has been greeted.
pub(super) struct Greeted {
    sender: SendRequest<Bytes>,
    connection: Connection<Overheard, Bytes>,
    heard: Rc<Heard>,
    is_narrow: bool,
}

impl Link {
    /// Connects and waits for the application's greeting, all within `limit`; then the connection lives by
    /// itself, until nobody needs it.
    pub(super) async fn open(
        connector: &Connector,
        limit: Duration,
        patience: Patience,
        freed: Rc<Notify>,
    ) -> Result<Rc<Self>, Error> {
        let Greeted { sender, connection, heard, is_narrow } = greet(connector, limit).await?;
        let link = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            heard,
            calls: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            news: Cell::new(0),
            unresponsive: Cell::new(false),
            narrow: Cell::new(is_narrow),
            leaving: RefCell::new(Some(VecDeque::new())),
            nudge: Notify::new(),
            freed,
        });
        tokio::task::spawn_local(drive(connection, link.clone(), patience));
        Ok(link)
    }

    /// What sends one request; `None` if another connection is needed. A connection that will take no more is
    /// let go for good.
    pub(super) fn sender(&self) -> Option<SendRequest<Bytes>> {
        let mut own = self.sender.borrow_mut();
        let sender = own.as_mut()?;
        if let Poll::Ready(Err(_)) = sender.poll_ready(&mut asleep()) {
            drop(own);
            self.retire();
            return None;
        }
        let room = sender.current_max_send_streams().min(MAX_CALLS);
        (self.calls.get() < room).then(|| sender.clone())
    }

    /// Sends no more requests. Those under way go on, and the connection ends with the last of them.
    pub(super) fn retire(&self) {
        if self.sender.borrow_mut().take().is_some() {
            self.nudge.notify_one();
            self.freed.notify_waiters();
        }
    }

    /// Waits for the end of a stream whose answer is whole, instead of resetting it.
    pub(super) fn see_out(&self, stream: RecvStream, room: Room) {
        // If the connection has ended, there is nothing to wait for.
        if let Some(leaving) = self.leaving.borrow_mut().as_mut() {
            leaving.push_back(Leaving { stream, since: Instant::now() });
            self.begin_call();
            if leaving.len() > MOST_LEAVING && leaving.pop_front().is_some() {
                self.end_call();
            }
            self.nudge.notify_one();
        }
        drop(room);
    }

    fn poll_leaving(&self, cx: &mut Context<'_>) {
        if let Some(leaving) = self.leaving.borrow_mut().as_mut() {
            leaving.retain_mut(|leaver| {
                let stays = leaver.poll_end(cx).is_pending();
                if !stays {
                    self.end_call();
                }
                stays
            });
        }
    }

    /// Resets those whose end did not come.
    fn hurry_leaving(&self, now: Instant) {
        if let Some(leaving) = self.leaving.borrow_mut().as_mut() {
            let late = leaving.iter().take_while(|leaver| now >= leaver.since + LEAVE_WITHIN).count();
            leaving.drain(..late).for_each(|_| self.end_call());
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.sender.borrow().is_none()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.get()
    }

    pub(super) fn begin_call(&self) {
        self.calls.set(self.calls.get() + 1);
        CALLS.fetch_add(1, Relaxed);
    }

    pub(super) fn end_call(&self) {
        self.calls.set(self.calls.get().saturating_sub(1));
        CALLS.fetch_sub(1, Relaxed);
        self.idle_since.set(Instant::now());
        self.freed.notify_one();
    }

    /// Narrows the windows of all calls once there are many of them. Before the connection is polled, which then says so
    /// ahead of the next request.
    fn narrow(&self, connection: &mut Connection<Overheard, Bytes>) {
        // Fails while the application has not taken note of what it was told last. Then this is the next thing.
        if is_crowded() && !self.narrow.get() && connection.set_initial_window_size(NARROW_WINDOW).is_ok() {
            self.narrow.set(true);
        }
    }

    /// Widens them again. Only now and then, for who is told of windows all the time takes that for an attack.
    fn widen(&self, connection: &mut Connection<Overheard, Bytes>) {
        let are_few = CALLS.load(Relaxed) <= FEW_CALLS / 2;
        if are_few && self.narrow.get() && connection.set_initial_window_size(STREAM_WINDOW).is_ok() {
            self.narrow.set(false);
        }
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// Counts a head or a piece of a body.
    pub(super) fn receive(&self) {
        self.news.set(self.news.get().wrapping_add(1));
    }

    pub(super) fn news(&self) -> u64 {
        self.news.get()
    }

    /// Whether an answer has ever come.
    pub(super) fn has_served(&self) -> bool {
        self.news.get() > 0
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.heard.last()
    }

    /// Whether it was ended because the peer did not answer.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.unresponsive.get()
    }
}

/// A connection whose peer has shown that it speaks HTTP/2. Nothing is sent on it before: what would become of
/// a request at an application that speaks something else, nobody could tell.
pub(super) async fn greet(connector: &Connector, limit: Duration) -> Result<Greeted, Error> {
    let by = Instant::now() + limit;
    let (io, heard) = Overheard::new(connector.connect(limit).await?);
    let is_narrow = is_crowded();
    let greeted = async {
        let closed = || connector.not_http2("it closed the connection instead of beginning with SETTINGS");
        let (sender, mut connection) = builder(is_narrow).handshake(io).await.map_err(|_| closed())?;
        poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx).is_ready();
            Poll::Ready(match heard.greeting() {
                Greeting::Http2 => Ok(()),
                Greeting::Other => Err(connector.not_http2("it answered with something else")),
                Greeting::Awaited(_) if ended => Err(closed()),
                Greeting::Awaited(_) => return Poll::Pending,
            })
        })
        .await?;
        Ok((sender, connection))
    };
    match tokio::time::timeout_at(by, greeted).await {
        Ok(greeted) => greeted.map(|(sender, connection)| Greeted { sender, connection, heard, is_narrow }),
        Err(_) => {
            Err(connector.not_http2("it took the connection and said nothing within limits.connectTimeout"))
        }
    }
}

/// Moves the bytes of a connection until it ends.
async fn drive(mut connection: Connection<Overheard, Bytes>, link: Rc<Link>, patience: Patience) {
    let mut vigil = Vigil::new(connection.ping_pong(), patience);
    let mut look = pin!(tokio::time::sleep(vigil.interval()));
    loop {
        tokio::select! {
            biased;
            () = moved(&mut connection, &link) => break,
            () = link.nudge.notified() => {}
            () = &mut look => {
                link.hurry_leaving(Instant::now());
                match vigil.look(&link, Instant::now()) {
                    Verdict::Good => link.widen(&mut connection),
                    Verdict::Idle => link.retire(),
                    Verdict::Dead => {
                        link.unresponsive.set(true);
                        break;
                    }
                }
                look.as_mut().reset(Instant::now() + vigil.interval());
            }
        }
    }
    link.retire();
    link.leaving.take().into_iter().flatten().for_each(|_| link.end_call());
}

/// Moves bytes until the end.
async fn moved(connection: &mut Connection<Overheard, Bytes>, link: &Link) {
    poll_fn(|cx| {
        link.narrow(connection);
        // An error has gone to the calls already.
        let ended = Pin::new(&mut *connection).poll(cx).map(drop);
        link.poll_leaving(cx);
        ended
    })
    .await;
}

/// For polls that only look.
pub(super) fn asleep() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
