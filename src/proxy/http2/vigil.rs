//! Watches over one connection: whether its peer is still there, and whether anybody still needs it.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::link::{Link, Patience, asleep};

/// The watch over one connection. Looks at it from time to time; what happens in between costs nothing.
pub(super) struct Vigil {
    pings: Option<PingPong>,
    patience: Patience,
    /// When the question was sent that has no answer yet.
    asked: Option<Instant>,
    /// When the last question was sent, and what had come by then.
    last_asked: Option<(Instant, u64)>,
}

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Nobody has used it for long.
    Idle,
    /// The peer does not answer.
    Dead,
}

impl Vigil {
    pub(super) fn new(pings: Option<PingPong>, patience: Patience) -> Self {
        Self { pings, patience, asked: None, last_asked: None }
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        let Patience { quiet, pong, idle, .. } = self.patience;
        (quiet.min(pong).min(idle) / 2).max(SHORTEST_INTERVAL)
    }

    /// Looks at the connection.
    pub(super) fn look(&mut self, link: &Link, now: Instant) -> Verdict {
        self.hear_answer();
        if let Some(asked) = self.asked
            && now >= asked.max(link.heard_at()) + self.patience.pong
        {
            return Verdict::Dead;
        }
        if link.calls() == 0 {
            let idle = now >= link.idle_since() + self.patience.idle;
            return if idle { Verdict::Idle } else { Verdict::Good };
        }
        if self.is_due(link, now)
            && let Some(pings) = &mut self.pings
            && pings.send_ping(Ping::opaque()).is_ok()
        {
            self.asked = Some(now);
            self.last_asked = Some((now, link.news()));
        }
        Verdict::Good
    }

    fn hear_answer(&mut self) {
        if let Some(pings) = &mut self.pings
            && pings.poll_pong(&mut asleep()).is_ready()
        {
            self.asked = None;
        }
    }

    /// Whether it is time to ask: after silence, and not so often that a server takes it for abuse. Servers
    /// forget earlier questions once they have sent something else.
    fn is_due(&self, link: &Link, now: Instant) -> bool {
        let spaced =
            self.last_asked.is_none_or(|(at, news)| news != link.news() || now >= at + self.patience.spacing);
        self.asked.is_none() && spaced && now >= link.heard_at() + self.patience.quiet
    }
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
