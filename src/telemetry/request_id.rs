//! Request ids: unique, cheap, and safe to show. They identify a request, they authorise nothing.

use std::cell::Cell;
use std::fmt;

use crate::digits::hex;

/// Name of one request in the record, in `X-Request-Id` and on our own pages: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn from_number(number: u128) -> Self {
        Self(hex(number))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Makes the ids of one worker: a random start, then one more for every request, so that no request costs a
/// call to the random number generator.
#[derive(Debug)]
pub struct RequestIds(Cell<u128>);

impl RequestIds {
    /// Starts at a random number. Should the system's generator fail, starts at the time instead: ids need
    /// to be unique, not secret.
    pub fn new() -> Self {
        let mut start = [0; 16];
        let start = match aws_lc_rs::rand::fill(&mut start) {
            Ok(()) => u128::from_ne_bytes(start),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |age| age.as_nanos() << 64),
        };
        Self(Cell::new(start))
    }

    /// The next id.
    pub fn next_id(&self) -> RequestId {
        let number = self.0.get();
        self.0.set(number.wrapping_add(1));
        RequestId::from_number(number)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_differ() {
        let ids = RequestIds::new();
        let (one, two) = (ids.next_id(), ids.next_id());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(RequestId::from_number(0x1f).as_str(), format!("{:032x}", 0x1f));
    }
}
