//! What the operator sees: one record per request and per event, metrics, and the admin listener.
//!
//! Owns the shape of the log lines, the names of the metrics and the admin protections. Knows nothing of
//! identity providers, sessions or rules: it is told what happened. No secret, token, code or cookie value
//! is ever handed to it.

pub mod admin;
mod event;
mod journal;
mod log;
mod metrics;
mod record;
mod request_id;
mod written;

pub use event::{Event, Level};
pub use journal::Journal;
pub use log::{Format, Log, LogWriter};
pub use metrics::{LoginResult, Metrics, RefreshResult, RequestCounters};
pub use record::{AccessRecord, Action, DropReason, Grounds, ReadyGrounds, RuleName};
pub use request_id::{RequestId, RequestIds};
