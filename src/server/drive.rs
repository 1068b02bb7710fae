//! Drives one connection to its end, and bounds how long it may stand still on the way.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection::Protocol;
use super::front::{Signals, Wire};
use super::limits::Limits;
use super::roster::{Activity, Wish};

/// A connection of hyper that can be told to end after what is under way.
pub(super) trait Conversation: Future<Output = hyper::Result<()>> {
    /// Stops taking requests; on an idle connection this is its end.
    fn wind_up(self: Pin<&mut Self>);

    /// Whether there is anything that [`Self::park`] would let go of.
    fn can_park(&self) -> bool {
        false
    }

    /// Lets go of what only a connection that is not idle needs. Asked between two requests, with nothing under way.
    fn park(self: Pin<&mut Self>) {}
}

/// What the driver needs to know.
pub(super) struct Driver {
    pub(super) wire: Arc<Wire>,
    pub(super) activity: Rc<Activity>,
    pub(super) protocol: Protocol,
    pub(super) patience: Patience,
}

/// How long each kind of standing still may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    head: Duration,
    idle: Duration,
    write: Duration,
}

impl Patience {
    /// What the limits allow.
    pub(super) fn of(limits: &Limits) -> Self {
        Self { head: limits.header_timeout, idle: limits.idle_timeout, write: limits.body_idle_timeout }
    }
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// Since when an HTTP/1 connection waits for one more request, to answer it and say goodbye with that.
    leaving_since: Option<Instant>,
    /// Since when it takes no more requests.
    wound_up_since: Option<Instant>,
    /// When it is cut off whatever is under way.
    cut_at: Option<Instant>,
}

impl Ending {
    fn has_begun(self) -> bool {
        self.leaving_since.is_some() || self.wound_up_since.is_some() || self.cut_at.is_some()
    }
}

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The connection is parked.
    Park,
    /// The front looks whether the client is still there.
    Look,
    /// The head under way is refused.
    Head,
    /// The connection is ended properly.
    End,
    /// The connection is dropped.
    Cut,
}

impl Driver {
    /// Runs `conversation` until it ends or a deadline ends it.
    pub(super) async fn run(self, mut conversation: Pin<&mut impl Conversation>) {
        let (mut ending, mut look_at) = (Ending::default(), None);
        // One timer for all deadlines. It is moved when one comes nearer and left alone when one goes away,
        // so that a busy connection hardly ever touches it.
        let (mut alarm, mut is_set) = (pin!(tokio::time::sleep(Duration::ZERO)), false);
        std::future::poll_fn(|cx| {
            loop {
                if conversation.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                self.activity.driven_by(cx);
                if self.attend(&mut ending) {
                    conversation.as_mut().wind_up();
                    continue;
                }
                let (can_park, signals) = (conversation.can_park(), self.wire.signals());
                let look = self.next_look(signals, &mut look_at);
                let Some((at, due)) = self.next_due(signals, ending, can_park, look) else {
                    return Poll::Pending;
                };
                if poll_until(at, alarm.as_mut(), &mut is_set, cx).is_pending() {
                    return Poll::Pending;
                }
                match due {
                    Due::Cut => return Poll::Ready(()),
                    Due::Look => {
                        look_at = Some(Instant::now() + LOOK_EVERY);
                        self.wire.look();
                    }
                    Due::Park => {
                        self.activity.park();
                        conversation.as_mut().park();
                    }
                    Due::Head if self.protocol == Protocol::Http1 => self.wire.expire_head(),
                    Due::Head => {
                        // There is no answer to half a header block; GOAWAY is what can be said.
                        ending.cut_at.get_or_insert(Instant::now() + GOODBYE);
                        ending.wound_up_since.get_or_insert_with(Instant::now);
                        conversation.as_mut().wind_up();
                    }
                    Due::End => {
                        ending.wound_up_since.get_or_insert_with(Instant::now);
                        conversation.as_mut().wind_up();
                    }
                }
            }
        })
        .await;
    }

    /// Looks at what is asked of the connection. True: it is to be wound up now.
    fn attend(&self, ending: &mut Ending) -> bool {
        let signals = self.wire.signals();
        if signals.abusive && ending.cut_at.is_none() {
            ending.cut_at = Some(Instant::now() + GOODBYE);
            return ending.wound_up_since.replace(Instant::now()).is_none();
        }
        if ending.wound_up_since.is_some() {
            return false;
        }
        let is_idle = self.is_idle(signals);
        let now = match (self.activity.wish(), self.protocol) {
            (Wish::Stay, _) => false,
            (Wish::Leave, Protocol::Http2) => true,
            (Wish::Leave, Protocol::Http1) => {
                ending.leaving_since.get_or_insert_with(Instant::now);
                !is_idle
            }
            (Wish::MakeRoom, _) => is_idle && signals.head_since.is_none(),
        };
        if now {
            ending.wound_up_since = Some(Instant::now());
        }
        now
    }

    /// Nothing is under way, and nothing waits to be written.
    fn is_idle(&self, signals: Signals) -> bool {
        self.activity.in_flight() == 0 && signals.write_blocked_since.is_none()
    }

    /// When to look whether the client is still there: while something of a request is not being read, because the
    /// application takes nothing of it, the client could leave and nobody would notice.
    fn next_look(&self, signals: Signals, look_at: &mut Option<Instant>) -> Option<Instant> {
        let is_held = signals.unread && self.protocol == Protocol::Http1 && self.activity.in_flight() > 0;
        // Left as it is where nothing is held any more: a busy upload is held now and then.
        is_held.then(|| *look_at.get_or_insert_with(|| Instant::now() + LOOK_EVERY))
    }

    /// The nearest deadline.
    fn next_due(
        &self,
        signals: Signals,
        ending: Ending,
        can_park: bool,
        look: Option<Instant>,
    ) -> Option<(Instant, Due)> {
        let Patience { head, idle, write } = self.patience;
        let is_idle = self.is_idle(signals);
        let look = look.map(|at| (at, Due::Look));
        if !is_idle && signals.is_quiet() && !ending.has_begun() {
            // A request is being served: the most usual state, and nothing else is due in it.
            return look;
        }
        let waits = is_idle && signals.head_since.is_none() && ending.wound_up_since.is_none();
        let parks = waits && can_park && signals.between_requests;
        // The first request is due like the rest of a head: whoever connects and says nothing holds a place.
        let idle = match (self.protocol, self.activity.calls()) {
            (Protocol::Http1, 0) => head.min(idle),
            _ => idle,
        };
        [
            signals.write_blocked_since.map(|since| (since + write, Due::Cut)),
            signals.lingering_since.map(|since| (since + LINGER, Due::Cut)),
            ending.cut_at.map(|at| (at, Due::Cut)),
            ending.wound_up_since.filter(|_| is_idle).map(|since| (since + FAREWELL, Due::Cut)),
            signals.head_since.filter(|_| ending.cut_at.is_none()).map(|since| (since + head, Due::Head)),
            waits.then(|| (self.activity.idle_since() + idle, Due::End)),
            parks.then(|| (self.activity.idle_since() + PARK_AFTER, Due::Park)),
            ending.leaving_since.filter(|_| waits).map(|since| (since + LAST_REQUEST, Due::End)),
            look,
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

/// Resolves at `at`, on a timer that is only moved when it would be late.
fn poll_until(at: Instant, mut alarm: Pin<&mut Sleep>, is_set: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if !*is_set || alarm.deadline() > at {
            alarm.as_mut().reset(at);
            *is_set = true;
        }
        ready!(alarm.as_mut().poll(cx));
        *is_set = false;
        if Instant::now() >= at {
            return Poll::Ready(());
        }
    }
}

/// How long an HTTP/1 connection is idle before it is parked. Longer than between the requests of one page, so that
/// a busy connection pays nothing for it.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(250);

/// How often to look whether a client is still there whose request is not being read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a connection that must end waits for a last request: one that is on its way is still answered.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// How long a connection that has nothing under way may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a connection that is being thrown off may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long what the client still sends is read after the last answer, so that it gets to read that.
const LINGER: Duration = Duration::from_secs(2);
