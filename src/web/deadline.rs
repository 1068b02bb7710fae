//! When waiting for the next bytes of a body is given up.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::body::BodyError;
use super::lifeline::{LISTEN_AFTER, Lifeline};

/// The bounds of one body.
#[derive(Default)]
pub(super) struct Deadline {
    /// The longest wait.
    pub(super) idle: Option<Duration>,
    /// The moment from which on nothing is waited for.
    pub(super) end: Option<Instant>,
    /// Whose cut is the end too.
    pub(super) lifeline: Option<Rc<Lifeline>>,
    /// Made at the first long wait.
    cut: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Since when the next bytes are waited for.
    since: Option<Instant>,
    /// Made at the first wait, reset at later ones: most small bodies never wait.
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Deadline {
    /// Whether the session has ended, however busy the body is.
    pub(super) fn is_cut(&self) -> bool {
        self.lifeline.as_ref().is_some_and(|lifeline| lifeline.is_cut())
    }

    /// Notes that something came.
    pub(super) fn moved(&mut self) {
        self.since = None;
        self.armed = false;
        if let Some(lifeline) = &self.lifeline {
            lifeline.note_movement();
        }
    }

    /// To be called while nothing comes. Ready: nothing is to be waited for any more, and why.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        loop {
            if let Some(cut) = &mut self.cut
                && cut.as_mut().poll(cx).is_ready()
            {
                self.cut = None;
                return Poll::Ready(BodyError::SessionEnded);
            }
            ready!(self.poll_timer(cx));
            let now = Instant::now();
            if self.end.is_some_and(|end| end <= now) {
                return Poll::Ready(BodyError::SessionEnded);
            }
            if self.idle_at().is_some_and(|at| at <= now) {
                return Poll::Ready(BodyError::Stalled);
            }
            if self.cut.is_none() {
                self.cut = self.lifeline.as_ref().map(Lifeline::listen);
            }
        }
    }

    /// The same while the next bytes are not asked for, because those before have not been taken: that is nobody's
    /// silence, and only the end of the session counts.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.since = None;
        self.armed = false;
        self.poll(cx)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let listening = (self.lifeline.is_some() && self.cut.is_none()).then(|| since + LISTEN_AFTER);
        let due = [self.idle_at(), self.end, listening].into_iter().flatten().min();
        let Some(due) = due else { return Poll::Pending };
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.armed {
                    timer.as_mut().reset(due);
                }
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(due))),
        };
        self.armed = true;
        ready!(timer.as_mut().poll(cx));
        self.armed = false;
        Poll::Ready(())
    }

    fn idle_at(&self) -> Option<Instant> {
        Some(self.since? + self.idle?)
    }
}
