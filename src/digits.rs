//! Numbers and addresses as text, for what is written at every request: the formatting machinery of the standard
//! library costs more there than all the rest of a line. Knows nothing of who writes what.

use std::fmt::Write as _;
use std::net::IpAddr;

/// A number in decimal.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; MOST_DIGITS],
    from: usize,
}

impl Decimal {
    /// Writes `number` down.
    pub fn new(mut number: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; MOST_DIGITS], from: MOST_DIGITS };
        for digit in decimal.digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            decimal.from -= 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        decimal
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let digits = self.digits.get(self.from..).unwrap_or_default();
        // Digits only, so this is the text.
        std::str::from_utf8(digits).unwrap_or_default()
    }

    /// The text with zeros before it, so that it has at least three digits.
    pub fn three_digits(&self) -> &str {
        let from = self.from.min(MOST_DIGITS - 3);
        std::str::from_utf8(self.digits.get(from..).unwrap_or_default()).unwrap_or_default()
    }
}

/// Digits of the largest `u64`.
const MOST_DIGITS: usize = 20;

/// Appends an address as text, an IPv4 address in IPv6 clothes as what it is.
pub fn push_address(text: &mut String, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            text.push_str(Decimal::new(first.into()).as_str());
            for octet in rest {
                text.push('.');
                text.push_str(Decimal::new(octet.into()).as_str());
            }
        }
        IpAddr::V6(address) => {
            // Writing to a String can't fail.
            let _ = write!(text, "{address}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 100, 101, 999, 1000, 65_535, u64::MAX - 1, u64::MAX] {
            assert_eq!(Decimal::new(number).as_str(), number.to_string());
            assert_eq!(Decimal::new(number).three_digits(), format!("{number:03}"));
        }
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("255.10.0.99", "255.10.0.99"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::1", "::1"),
            ("2001:db8::ff00:42:8329", "2001:db8::ff00:42:8329"),
        ] {
            let mut text = String::new();
            push_address(&mut text, address.parse().unwrap());
            assert_eq!(text, expected);
        }
    }
}
