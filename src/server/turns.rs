//! Turns of the streams of HTTP/2 connections: those of one connection take no more of their worker than those of
//! another, and whoever has just connected waits for a few of each, not for all of them.
//!
//! Streams are tasks, and a worker runs what is ready in the order in which it became so. A connection that begins a
//! hundred streams at once would thus get a hundred turns where others get one. So a stream has a turn of its own only
//! while the connection has some to give away. The others wait, in order, and the connection calls a few of them
//! whenever it has a turn itself: as many as its share among those connections of the worker whose streams wait. What
//! is ready at a worker are then a few streams of each connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::drive::Conversation;
use super::roster::Activity;

/// How many connections of a worker have streams that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Crowd(Cell<usize>);

impl Crowd {
    /// How many streams each of them may call at a time.
    fn share(&self) -> usize {
        (ROUND / self.0.get().max(1)).max(1)
    }
}

/// The turns of the streams of one connection.
#[derive(Debug)]
pub(super) struct Turns {
    crowd: Rc<Crowd>,
    activity: Rc<Activity>,
    /// Turns that streams may take without being called.
    free: Cell<usize>,
    /// The streams that wait. The first of them has the number `called`.
    waiting: RefCell<VecDeque<Waker>>,
    /// Those with a lower number have been called.
    called: Cell<u64>,
    /// How many of those that wait are still to be called before the connection reads and writes again. None: it has
    /// not looked yet.
    ahead: Cell<Option<usize>>,
    is_in_crowd: Cell<bool>,
}

/// A stream's place among those that wait, while it has one.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<u64>);

impl Turns {
    /// For a connection that `activity` can wake.
    pub(super) fn new(crowd: Rc<Crowd>, activity: Rc<Activity>) -> Self {
        Self {
            crowd,
            activity,
            free: Cell::new(FREE),
            waiting: RefCell::default(),
            called: Cell::new(0),
            ahead: Cell::new(None),
            is_in_crowd: Cell::new(false),
        }
    }

    /// Resolves when it is the turn of the stream with this ticket, for one time. It must be asked by the same task
    /// until then.
    pub(super) fn poll_turn(&self, ticket: &mut Ticket, cx: &Context<'_>) -> Poll<()> {
        match ticket.0 {
            Some(number) if number >= self.called.get() => return Poll::Pending,
            Some(_) => ticket.0 = None,
            None => match self.free.get().checked_sub(1) {
                Some(left) => self.free.set(left),
                None => {
                    ticket.0 = Some(self.wait(cx.waker().clone()));
                    return Poll::Pending;
                }
            },
        }
        Poll::Ready(())
    }

    /// Has a stream wait. Its number.
    fn wait(&self, stream: Waker) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        waiting.push_back(stream);
        if before == 0 {
            self.activity.wake();
            if !self.is_in_crowd.replace(true) {
                self.crowd.0.set(self.crowd.0.get() + 1);
            }
        }
        self.called.get() + before as u64
    }

    /// Calls the next streams. Ready if none of those is left that waited when this was begun: then the connection may
    /// read and write. It would write less at a time if it did so in between, and could read requests faster than they
    /// are begun.
    fn poll_ahead(&self, cx: &Context<'_>) -> Poll<()> {
        let ahead = self.ahead.get().unwrap_or_else(|| self.waiting.borrow().len());
        if ahead == 0 {
            self.ahead.set(None);
            return Poll::Ready(());
        }
        let now = ahead.min(self.crowd.share());
        self.call(now);
        self.ahead.set(Some(ahead - now));
        // Behind those that were called, also where they were the last.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Calls so many of those that wait.
    fn call(&self, count: usize) {
        self.called.set(self.called.get() + count as u64);
        for stream in self.waiting.borrow_mut().drain(..count) {
            stream.wake();
        }
    }

    /// The connection has read and written.
    fn go_on(&self, cx: &Context<'_>) {
        self.free.set(FREE);
        if !self.waiting.borrow().is_empty() {
            cx.waker().wake_by_ref();
        } else if self.is_in_crowd.get() {
            self.leave_crowd();
        }
    }

    /// Nobody will call streams any more: each may end when it likes.
    fn end(&self) {
        self.free.set(usize::MAX);
        self.leave_crowd();
        let count = self.waiting.borrow().len();
        self.call(count);
    }

    fn leave_crowd(&self) {
        if self.is_in_crowd.replace(false) {
            self.crowd.0.set(self.crowd.0.get() - 1);
        }
    }
}

/// A connection that calls its streams before it has a turn itself.
pub(super) struct Paced<C> {
    pub(super) conversation: C,
    pub(super) turns: Rc<Turns>,
}

impl<C: Conversation + Unpin> Future for Paced<C> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        std::task::ready!(this.turns.poll_ahead(cx));
        let polled = Pin::new(&mut this.conversation).poll(cx);
        this.turns.go_on(cx);
        polled
    }
}

impl<C: Conversation + Unpin> Conversation for Paced<C> {
    fn wind_up(self: Pin<&mut Self>) {
        Pin::new(&mut self.get_mut().conversation).wind_up();
    }
}

impl<C> Drop for Paced<C> {
    fn drop(&mut self) {
        self.turns.end();
    }
}

/// Turns that the streams of a connection may take between two of its own. Enough for those who read one page, so that
/// they never wait to be called.
const FREE: usize = 8;

/// Streams that all connections of a worker call in one round, as long as each calls one.
const ROUND: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::super::roster::{Presence, Roster};
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Streams, and the connection that calls them.
    struct Scene {
        turns: Turns,
        streams: Vec<(Ticket, Arc<Woken>)>,
        connection: Arc<Woken>,
        _presence: Presence,
    }

    impl Scene {
        fn of(streams: usize, crowd: &Rc<Crowd>) -> Self {
            let (activity, _presence) = Rc::new(Roster::default()).enter();
            let connection = Arc::new(Woken::default());
            activity.driven_by(&Context::from_waker(&connection.clone().into()));
            let turns = Turns::new(crowd.clone(), activity);
            let streams = (0..streams).map(|_| Default::default()).collect();
            Self { turns, streams, connection, _presence }
        }

        /// Asks for a turn of each of these streams; how many got one.
        fn ask(&mut self, which: std::ops::Range<usize>) -> usize {
            let turns = &self.turns;
            let is_its_turn = |(ticket, woken): &mut (Ticket, Arc<Woken>)| {
                turns.poll_turn(ticket, &Context::from_waker(&woken.clone().into())).is_ready()
            };
            self.streams[which].iter_mut().map(is_its_turn).filter(|is_its_turn| *is_its_turn).count()
        }

        fn woken(&self) -> usize {
            self.streams.iter().map(|(_, woken)| woken.count()).sum()
        }

        /// A turn of the connection. True: it may read and write.
        fn round(&self) -> bool {
            let waker = self.connection.clone().into();
            let cx = Context::from_waker(&waker);
            let is_ready = self.turns.poll_ahead(&cx).is_ready();
            if is_ready {
                self.turns.go_on(&cx);
            }
            is_ready
        }
    }

    #[test]
    fn streams_that_wait_are_called_in_order_and_before_their_connection_goes_on() {
        let crowd = Rc::new(Crowd::default());
        let mut scene = Scene::of(FREE + ROUND + 5, &crowd);
        let all = scene.streams.len();
        assert_eq!(scene.ask(0..all), FREE);
        assert_eq!((scene.connection.count(), crowd.0.get()), (1, 1), "woken once");
        assert!(!scene.round());
        assert_eq!((scene.woken(), scene.connection.count()), (ROUND, 2));
        // Woken by others, they wait all the same.
        assert_eq!(scene.ask(FREE + ROUND..all), 0);
        assert_eq!(scene.ask(FREE..FREE + ROUND), ROUND);
        // One that has had its turn comes last.
        assert_eq!(scene.ask(0..1), 0);
        assert!(!scene.round());
        assert_eq!(scene.woken(), ROUND + 5);
        assert_eq!(scene.ask(FREE + ROUND..all), 5);
        assert!(scene.round(), "those are all that waited when it began");
        assert!(!scene.round());
        assert_eq!(scene.ask(0..1), 1);
        assert!(scene.round());
        assert_eq!(crowd.0.get(), 0);
        assert_eq!(scene.ask(0..all), FREE, "free again");
    }

    #[test]
    fn connections_share_a_round_and_who_ends_keeps_nobody_waiting() {
        let crowd = Rc::new(Crowd::default());
        let mut scenes: Vec<Scene> = (0..ROUND / 4).map(|_| Scene::of(FREE + 10, &crowd)).collect();
        for scene in &mut scenes {
            assert_eq!(scene.ask(0..FREE + 10), FREE);
        }
        let mut one = scenes.remove(0);
        assert!(!one.round());
        assert_eq!(one.woken(), 4);
        one.turns.end();
        assert_eq!((one.woken(), crowd.0.get()), (10, scenes.len()));
        assert_eq!(one.ask(0..FREE + 10), FREE + 10);
        let many: Vec<Scene> = (0..ROUND * 2).map(|_| Scene::of(FREE + 10, &crowd)).collect();
        for mut scene in many {
            scene.ask(0..FREE + 10);
            scene.round();
            assert!(scene.woken() >= 1);
        }
    }
}
