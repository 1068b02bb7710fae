//! The record of a request: one line when it ends, as JSON or for a terminal.
//!
//! Owns its fields, their names and their order, and the words for what became of a request and why.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::RequestId;
use super::written::{Stamp, escape, value};
use crate::digits::{push_address, push_number, push_three_digits};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Name of the HTTP resource spec.
    pub spec: Arc<str>,
    /// URI pattern.
    pub uri: Arc<str>,
    /// Method, or `*`.
    pub method: Arc<str>,
}

/// What a request was decided on.
#[derive(Clone, Copy, Debug)]
pub enum Grounds<'a> {
    /// Put together for this request.
    Loose {
        /// The rule that decided.
        rule: Option<&'a RuleName>,
        /// `sub` of the user.
        subject: Option<&'a str>,
        /// Tags that decided.
        tags: Option<&'a [String]>,
    },
    /// Written down before.
    Ready(&'a ReadyGrounds),
}

impl<'a> Grounds<'a> {
    fn parts(self) -> (Option<&'a RuleName>, Option<&'a str>, Option<&'a [String]>) {
        match self {
            Grounds::Loose { rule, subject, tags } => (rule, subject, tags),
            Grounds::Ready(ready) => (Some(&ready.rule), Some(&ready.subject), ready.tags.as_deref()),
        }
    }
}

/// The grounds on which somebody is let in by a rule: the same at each of their requests, so written down once.
#[derive(Debug)]
pub struct ReadyGrounds {
    rule: RuleName,
    subject: Arc<str>,
    tags: Option<Arc<[String]>>,
    json: Box<str>,
}

impl ReadyGrounds {
    /// Writes them down.
    pub fn new(rule: RuleName, subject: Arc<str>, tags: Option<Arc<[String]>>) -> Self {
        let mut json = String::new();
        write_grounds(&mut json, Some(&rule), Some(&subject), tags.as_deref());
        Self { rule, subject, tags, json: json.into() }
    }

    /// The rule.
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }
}

/// One finished request, as its worker knows it when it ends.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the request began.
    pub time: SystemTime,
    /// Also in `X-Request-Id` and on our own pages.
    pub request_id: RequestId,
    /// Service that the Host named; absent when it named none.
    pub service: Option<&'a str>,
    /// Address of the client.
    pub client: IpAddr,
    /// Method, cut to 32 bytes.
    pub method: &'a str,
    /// Path without the query, cut to 2 KiB.
    pub path: &'a str,
    /// Status of the answer; 0 when the client went away before one was sent.
    pub status: u16,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// What became of it.
    pub action: Action,
    /// Why it was refused.
    pub drop_reason: Option<DropReason>,
    /// What was decided on.
    pub grounds: Grounds<'a>,
    /// The cause in words, for whoever reads the record.
    pub detail: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// The record as one JSON object. Written by hand: it is the only line that every request pays for.
    pub fn write_json(&self, stamp: &mut Stamp, line: &mut String) {
        line.push_str("{\"time\":\"");
        stamp.write(self.time, line);
        line.push_str("\",\"requestId\":\"");
        line.push_str(self.request_id.as_str());
        line.push('"');
        if let Some(service) = self.service {
            string_field(line, "service", service);
        }
        line.push_str(",\"client\":\"");
        push_address(line, self.client);
        line.push('"');
        string_field(line, "method", self.method);
        string_field(line, "path", self.path);
        let micros = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        for (name, number) in [(",\"status\":", u64::from(self.status)), (",\"durationMs\":", micros / 1000)]
        {
            line.push_str(name);
            push_number(line, number);
        }
        line.push('.');
        push_three_digits(line, micros);
        for (name, number) in [(",\"bytesIn\":", self.bytes_in), (",\"bytesOut\":", self.bytes_out)] {
            line.push_str(name);
            push_number(line, number);
        }
        line.push_str(",\"action\":\"");
        line.push_str(self.action.as_str());
        line.push('"');
        if let Some(reason) = self.drop_reason {
            string_field(line, "dropReason", reason.as_str());
        }
        match self.grounds {
            Grounds::Ready(ready) => line.push_str(&ready.json),
            Grounds::Loose { rule, subject, tags } => write_grounds(line, rule, subject, tags),
        }
        if let Some(detail) = self.detail {
            string_field(line, "detail", detail);
        }
        line.push('}');
    }

    /// The record as one line for a terminal. Control characters are escaped.
    pub fn write_text(&self, stamp: &mut Stamp, line: &mut String) {
        stamp.write(self.time, line);
        line.push(' ');
        escape(line, self.method);
        line.push(' ');
        escape(line, self.path);
        let millis = self.duration.as_secs_f64() * 1000.0;
        let _ = write!(line, " {} {millis:.1}ms {}", self.status, self.action.as_str());
        if let Some(reason) = self.drop_reason {
            let _ = write!(line, "({})", reason.as_str());
        }
        let (rule, subject, tags) = self.grounds.parts();
        if let Some(rule) = rule {
            let _ = write!(line, " rule=");
            escape(line, &format!("{}:{} {}", rule.spec, rule.method, rule.uri));
        }
        if let Some(subject) = subject {
            line.push_str(" sub=");
            value(line, subject);
        }
        if let Some(tags) = tags {
            line.push_str(" tags=");
            value(line, &tags.join(","));
        }
        let _ = write!(line, " client={} id={}", self.client, self.request_id);
        if let Some(service) = self.service {
            line.push_str(" service=");
            escape(line, service);
        }
        if let Some(detail) = self.detail {
            line.push_str(": ");
            escape(line, detail);
        }
    }
}

fn write_grounds(line: &mut String, rule: Option<&RuleName>, subject: Option<&str>, tags: Option<&[String]>) {
    if let Some(RuleName { spec, uri, method }) = rule {
        line.push_str(",\"rule\":{\"spec\":");
        json_string(line, spec);
        string_field(line, "uri", uri);
        string_field(line, "method", method);
        line.push('}');
    }
    if let Some(subject) = subject {
        string_field(line, "subject", subject);
    }
    if let Some(tags) = tags {
        line.push_str(",\"tags\":[");
        for (place, tag) in tags.iter().enumerate() {
            if place > 0 {
                line.push(',');
            }
            json_string(line, tag);
        }
        line.push(']');
    }
}

/// Appends `,"name":"value"`.
fn string_field(line: &mut String, name: &str, value: &str) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
    json_string(line, value);
}

/// Appends a JSON string. Nearly all are plain text and go as they are.
fn json_string(line: &mut String, value: &str) {
    // Without a way out early, so that many bytes are looked at in one instruction.
    let is_special = |byte: u8| !matches!(byte, b' '..=b'~') || byte == b'"' || byte == b'\\';
    if !value.bytes().fold(false, |found, byte| found | is_special(byte)) {
        line.push('"');
        line.push_str(value);
        line.push('"');
    } else {
        // A string always serialises.
        line.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/a\r\nforged \u{1b}[31m\"x\"\\";

    fn written(write: impl FnOnce(AccessRecord<'_>, &mut Stamp, &mut String)) -> String {
        let rule = RuleName { spec: "s".into(), uri: "/*".into(), method: "GET".into() };
        let tags = ["group=\"a\"".to_owned(), "b=c".to_owned()];
        let record = AccessRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            request_id: super::super::RequestIds::new().next_id(),
            service: Some("app"),
            client: [127, 0, 0, 1].into(),
            method: "GET",
            path: PATH,
            status: 200,
            duration: Duration::from_micros(1234),
            bytes_in: 1,
            bytes_out: 2,
            action: Action::Accept,
            drop_reason: Some(DropReason::Dial),
            grounds: Grounds::Ready(&ReadyGrounds::new(rule, "al\u{ef}ce".into(), Some(tags.into()))),
            detail: Some("why"),
        };
        let mut line = String::new();
        write(record, &mut Stamp::default(), &mut line);
        line
    }

    /// OPS-04: whatever a path or a claim holds, a record is one valid line.
    #[test]
    fn nothing_forges_a_line() {
        let json = written(|record, stamp, line| record.write_json(stamp, line));
        assert!(!json.contains('\n') && !json.contains('\u{1b}'));
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["path"], PATH);
        let text = written(|record, stamp, line| record.write_text(stamp, line));
        assert!(text.chars().all(|character| !character.is_control()), "{text}");
    }

    #[test]
    fn the_record_has_the_documented_fields() {
        let line = written(|record, stamp, line| record.write_json(stamp, line));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let id = json["requestId"].as_str().unwrap();
        assert_eq!(id.len(), 32);
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.500Z", "requestId": id, "service": "app", "client": "127.0.0.1",
            "method": "GET", "path": PATH, "status": 200, "durationMs": 1.234, "bytesIn": 1, "bytesOut": 2,
            "action": "Accept", "dropReason": "dial", "rule": {"spec": "s", "uri": "/*", "method": "GET"},
            "subject": "al\u{ef}ce", "tags": ["group=\"a\"", "b=c"], "detail": "why",
        });
        assert_eq!(json, expected);
    }
}
