//! How times and text from outside are written into a line of the log, whichever kind of line it is.
//!
//! Owns the format of times, and the promise that no text forges a line or moves the cursor of a terminal.

use std::fmt;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::digits::push_three_digits;

/// Writes times as RFC 3339 in UTC with milliseconds, and remembers the second that it wrote last: requests
/// come many in a second, and a calendar is slow.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    /// Up to the seconds, such as `2026-11-22T02:08:08`; empty before the first time.
    text: String,
}

impl Stamp {
    /// Appends `time` to `line`.
    pub fn write(&mut self, time: SystemTime, line: &mut String) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second || self.text.is_empty() {
            self.second = since.as_secs();
            self.text = Time(time).to_string();
            self.text.truncate(SECONDS_LENGTH);
        }
        line.push_str(&self.text);
        line.push('.');
        push_three_digits(line, since.subsec_millis().into());
        line.push('Z');
    }
}

/// Bytes of a time up to the seconds.
const SECONDS_LENGTH: usize = "2026-11-22T02:08:08".len();

/// Shows a time as RFC 3339 in UTC with milliseconds.
pub struct Time(pub SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let text = OffsetDateTime::from(self.0).format(format).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// Appends `text` with everything escaped that could move a terminal's cursor or forge a line.
pub fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            ' '..='~' => line.push(character),
            other if other.is_alphanumeric() => line.push(other),
            other => line.extend(other.escape_default()),
        }
    }
}

/// Appends a value that others chose: in quotes where it could pass for something else of the line.
pub fn value(line: &mut String, text: &str) {
    const MARKS: [char; 2] = ['"', '\\'];
    if !text.contains([' ', '=', ':']) && !text.contains(MARKS) {
        return escape(line, text);
    }
    line.push('"');
    for part in text.split_inclusive(MARKS) {
        let plain = part.strip_suffix(MARKS).unwrap_or(part);
        escape(line, plain);
        if let Some(mark) = part.get(plain.len()..).filter(|mark| !mark.is_empty()) {
            line.push('\\');
            line.push_str(mark);
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_is_one() {
        for (text, wanted) in [
            ("alice@example.com", "alice@example.com"),
            ("al\nice", "al\\nice"),
            ("a id=1", "\"a id=1\""),
            ("a\" id=\"1", "\"a\\\" id=\\\"1\""),
            ("a: b", "\"a: b\""),
            ("x\\\" id=1", "\"x\\\\\\\" id=1\""),
            ("a\\nb", "\"a\\\\nb\""),
            ("\u{1b}[1m x", "\"\\u{1b}[1m x\""),
        ] {
            let mut line = String::new();
            value(&mut line, text);
            assert_eq!(line, wanted);
        }
    }

    #[test]
    fn a_stamp_follows_the_clock() {
        let mut stamp = Stamp::default();
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (7, "1970-01-01T00:00:00.007Z"),
            (59_999, "1970-01-01T00:00:59.999Z"),
            (1_000, "1970-01-01T00:00:01.000Z"),
        ] {
            let mut line = String::new();
            stamp.write(SystemTime::UNIX_EPOCH + Duration::from_millis(millis), &mut line);
            assert_eq!(line, expected);
        }
    }
}
