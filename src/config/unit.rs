//! Text forms of lengths of time and of sizes. Knows nothing of any key.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest length of time that can be written: ten years.
pub const MAX_SECONDS: u64 = 10 * 366 * 86_400;

/// Units of time, longest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `90s`, `15m`, `1h`, `1d` or `500ms`: one whole number, one unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let milliseconds = parse(text, &TIME_UNITS)?;
    (milliseconds <= MAX_SECONDS * 1_000).then(|| Duration::from_millis(milliseconds))
}

/// Reads `512B`, `64KiB`, `1MiB` or `1GiB`: bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// A short text that [`parse_duration`] reads as this.
pub fn show_duration(duration: Duration) -> String {
    // As people write them: 60s and 90s, but 1h and 1d.
    if duration.subsec_nanos() == 0 && (1..120).contains(&duration.as_secs()) {
        return format!("{}s", duration.as_secs());
    }
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "0s")
}

/// The shortest text that [`parse_size`] reads as this.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS, "0B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    let fitting = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor));
    fitting.map_or_else(|| amount.to_string(), |(name, factor)| format!("{}{name}", amount / factor))
}

/// A length of time as the file has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpan(pub Duration);

/// A number of bytes as the file has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

impl TimeSpan {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_duration(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not a length of time"))
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&show_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_size(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not a size"))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&show_size(self.0))
    }
}

impl schemars::JsonSchema for TimeSpan {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "time-span", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

/// For a key that counts seconds elsewhere, and may do so here: `31536000` is `365d`.
pub(super) fn seconds_or_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TimeSpan>, D::Error> {
    TimeSpan::deserialize(from).map(Some)
}

/// The schema of such a key. Its integers reach [`seconds_or_span`] as text with the unit.
pub(super) fn seconds_or_span_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": ["string", "integer"],
        "format": "time-span",
        "pattern": "^[0-9]+(ms|s|m|h|d)$",
        "minimum": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show() {
        for (text, milliseconds, shown) in [
            ("90s", 90_000, "90s"),
            ("15m", 900_000, "15m"),
            ("60m", 3_600_000, "1h"),
            ("60s", 60_000, "60s"),
            ("120s", 120_000, "2m"),
            ("12h", 43_200_000, "12h"),
            ("1d", 86_400_000, "1d"),
            ("500ms", 500, "500ms"),
            ("1500ms", 1_500, "1500ms"),
            ("0s", 0, "0s"),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!((read.as_millis(), show_duration(read).as_str()), (milliseconds, shown));
        }
        for bad in [
            "",
            "s",
            "5",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            "5S",
            "1h30m",
            "5y",
            "9999999d",
            "99999999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_read_and_show() {
        for (text, bytes, shown) in [
            ("64KiB", 65_536, "64KiB"),
            ("1MiB", 1 << 20, "1MiB"),
            ("100B", 100, "100B"),
            ("1024B", 1024, "1KiB"),
        ] {
            let read = parse_size(text).unwrap();
            assert_eq!((read, show_size(read).as_str()), (bytes, shown));
        }
        for bad in ["", "64", "64KB", "64kib", "1.5MiB", "-1B", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
