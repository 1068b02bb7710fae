//! What happens beside requests, or because of one, and is worth a line: a login, a key rotation, a reload.
//!
//! Owns the fields of such a line and how it reads on a terminal. Which events there are is for those who tell of them.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::RequestId;
use super::written::{Time, escape, value};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something normal happened.
    Info,
    /// Something works less well than it should.
    Warning,
    /// Something does not work.
    Error,
}

/// Something that happened beside requests: a login, a key rotation, a reload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What, in kebab case: `login`, `login-failed`, `logout`, `key-rotation`, `discovery`, ...
    pub event: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Service it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// Request during which it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// `sub` of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Arc<str>>,
    /// Id of the session it concerns: what `POST /sessions/end` takes. No credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// Whose fault, for failures: `browser`, `provider`, `upstream`, `configuration`, `portcullis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blame: Option<&'static str>,
    /// What happened, in words that tell the reader what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// An event that happens now.
    pub fn new(event: &'static str, level: Level) -> Self {
        Self {
            time: SystemTime::now(),
            event,
            level,
            service: None,
            request_id: None,
            subject: None,
            session: None,
            blame: None,
            message: None,
        }
    }

    /// With the service it belongs to.
    pub fn service(mut self, service: &Arc<str>) -> Self {
        self.service = Some(service.clone());
        self
    }

    /// With the request during which it happened.
    pub fn request(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }

    /// With the user it concerns.
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// With the session it concerns.
    pub fn session(mut self, id: &dyn fmt::Display) -> Self {
        self.session = Some(id.to_string().into());
        self
    }

    /// With whose fault it is.
    pub fn blame(mut self, blame: &'static str) -> Self {
        self.blame = Some(blame);
        self
    }

    /// With a text.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// The event as one line for a terminal. Control characters are escaped.
    pub fn write_text(&self, line: &mut String) {
        let level = match self.level {
            Level::Info => "info",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let _ = write!(line, "{} {level} {}", Time(self.time), self.event);
        if let Some(service) = &self.service {
            line.push_str(" service=");
            escape(line, service);
        }
        if let Some(subject) = &self.subject {
            line.push_str(" sub=");
            value(line, subject);
        }
        if let Some(session) = &self.session {
            line.push_str(" session=");
            escape(line, session);
        }
        if let Some(blame) = self.blame {
            let _ = write!(line, " blame={blame}");
        }
        if let Some(id) = &self.request_id {
            let _ = write!(line, " id={id}");
        }
        // Last, for it may be in others' words.
        if let Some(message) = &self.message {
            line.push_str(": ");
            escape(line, message);
        }
    }
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Time(*time))
}
