//! The two kinds of log line: the record of a request, and the event.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::RequestId;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Forwarded, or answered by one of our own endpoints.
    Accept,
    /// Refused, or sent to log in.
    Reject,
    /// Forwarded in `mode: observe` although the rules say no.
    Observe,
}

impl Action {
    /// The word in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "Accept",
            Action::Reject => "Reject",
            Action::Observe => "Observe",
        }
    }
}

/// Why a request was not served by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DropReason {
    /// A rule matched and its tags say no.
    Policy,
    /// No rule names this method and path.
    Api,
    /// The application could not be reached or did not answer.
    Dial,
    /// The request could not be judged: target, framing, Host.
    Format,
    /// A login is needed, or one failed.
    Login,
    /// A bearer token was refused.
    Token,
    /// A limit was passed.
    Limit,
}

impl DropReason {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Policy => "policy",
            DropReason::Api => "api",
            DropReason::Dial => "dial",
            DropReason::Format => "format",
            DropReason::Login => "login",
            DropReason::Token => "token",
            DropReason::Limit => "limit",
        }
    }
}

/// The rule that decided, by its place in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Name of the HTTP resource spec.
    pub spec: Arc<str>,
    /// URI pattern.
    pub uri: Arc<str>,
    /// Method, or `*`.
    pub method: Arc<str>,
}

/// One finished request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRecord {
    /// When the request began.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Also in `X-Request-Id` and on our own pages.
    pub request_id: RequestId,
    /// Service that the Host named; absent when it named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// Address of the client.
    pub client: IpAddr,
    /// Method, cut to 32 bytes.
    pub method: String,
    /// Path without the query, cut to 2 KiB.
    pub path: String,
    /// Status of the answer; 0 when the client went away before one was sent.
    pub status: u16,
    /// From the request's head to the last byte of the answer.
    #[serde(serialize_with = "milliseconds", rename = "durationMs")]
    pub duration: Duration,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// What became of it.
    pub action: Action,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<DropReason>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// `sub` of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Arc<str>>,
    /// Tags that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Arc<[String]>>,
    /// The cause in words, for whoever reads the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AccessRecord {
    /// The record as one line for a terminal. Control characters are escaped.
    pub fn write_text(&self, line: &mut String) {
        let _ = write!(line, "{} ", Time(self.time));
        escape(line, &self.method);
        line.push(' ');
        escape(line, &self.path);
        let millis = self.duration.as_secs_f64() * 1000.0;
        let _ = write!(line, " {} {millis:.1}ms {}", self.status, self.action.as_str());
        if let Some(reason) = self.drop_reason {
            let _ = write!(line, "({})", reason.as_str());
        }
        if let Some(rule) = &self.rule {
            let _ = write!(line, " rule=");
            escape(line, &format!("{}:{} {}", rule.spec, rule.method, rule.uri));
        }
        if let Some(subject) = &self.subject {
            line.push_str(" sub=");
            escape(line, subject);
        }
        if let Some(tags) = &self.tags {
            line.push_str(" tags=");
            escape(line, &tags.join(","));
        }
        let _ = write!(line, " client={} id={}", self.client, self.request_id);
        if let Some(service) = &self.service {
            line.push_str(" service=");
            escape(line, service);
        }
        if let Some(detail) = &self.detail {
            line.push_str(": ");
            escape(line, detail);
        }
    }
}

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
            escape(line, subject);
        }
        if let Some(blame) = self.blame {
            let _ = write!(line, " blame={blame}");
        }
        if let Some(message) = &self.message {
            line.push_str(": ");
            escape(line, message);
        }
        if let Some(id) = &self.request_id {
            let _ = write!(line, " id={id}");
        }
    }
}

/// Shows a time as RFC 3339 in UTC with milliseconds.
struct Time(SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let text = OffsetDateTime::from(self.0).format(format).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Time(*time))
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// Appends `text` with everything escaped that could move a terminal's cursor or forge a line.
fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            ' '..='~' => line.push(character),
            other if other.is_alphanumeric() => line.push(other),
            other => line.extend(other.escape_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            request_id: super::super::RequestIds::new().next_id(),
            service: Some("app".into()),
            client: [127, 0, 0, 1].into(),
            method: "GET".into(),
            path: "/a\r\nforged \u{1b}[31m\"x\"".into(),
            status: 200,
            duration: Duration::from_micros(1234),
            bytes_in: 1,
            bytes_out: 2,
            action: Action::Accept,
            drop_reason: None,
            rule: Some(RuleName { spec: "s".into(), uri: "/*".into(), method: "GET".into() }),
            subject: Some("alice".into()),
            tags: Some(["group=\"a\"".to_owned()].into()),
            detail: None,
        }
    }

    /// OPS-04: whatever a path or a claim holds, a record is one valid line.
    #[test]
    fn nothing_forges_a_line() {
        let json = serde_json::to_string(&record()).unwrap();
        assert!(!json.contains('\n') && !json.contains('\u{1b}'));
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["path"], record().path);
        let mut text = String::new();
        record().write_text(&mut text);
        assert!(text.chars().all(|character| !character.is_control()), "{text}");
    }

    #[test]
    fn the_record_has_the_documented_fields() {
        let json = serde_json::to_value(record()).unwrap();
        assert_eq!(json["time"], "1970-01-01T00:00:01.500Z");
        assert_eq!(json["durationMs"], 1.234);
        assert_eq!(json["action"], "Accept");
        for field in
            ["requestId", "service", "client", "method", "status", "bytesIn", "bytesOut", "subject", "tags"]
        {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["rule"]["uri"], "/*");
    }
}
