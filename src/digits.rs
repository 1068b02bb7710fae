//! Numbers and addresses as text, for what is written at every request: the formatting machinery of the standard
//! library costs more there than all the rest of a line. Knows nothing of who writes what.

use std::fmt::Write as _;
use std::net::IpAddr;

/// `000001002...999`: up to three digits are one look and one copy.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const THREE_DIGITS: &str = {
    const BYTES: [u8; 3000] = {
        let mut bytes = [0; 3000];
        let mut number = 0;
        while number < 1000 {
            bytes[3 * number] = b'0' + (number / 100) as u8;
            bytes[3 * number + 1] = b'0' + (number / 10 % 10) as u8;
            bytes[3 * number + 2] = b'0' + (number % 10) as u8;
            number += 1;
        }
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Appends a number in decimal.
pub fn push_number(text: &mut String, number: u64) {
    if number >= 1000 {
        push_number(text, number / 1000);
        return push_three_digits(text, number % 1000);
    }
    let zeros = usize::from(number < 100) + usize::from(number < 10);
    let last = 3 * number as usize;
    text.push_str(THREE_DIGITS.get(last + zeros..last + 3).unwrap_or_default());
}

/// Appends the last three digits of a number, with zeros where it has fewer.
pub fn push_three_digits(text: &mut String, number: u64) {
    let last = 3 * (number % 1000) as usize;
    text.push_str(THREE_DIGITS.get(last..last + 3).unwrap_or_default());
}

/// Appends an address as text, an IPv4 address in IPv6 clothes as what it is.
pub fn push_address(text: &mut String, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            push_number(text, first.into());
            for octet in rest {
                text.push('.');
                push_number(text, octet.into());
            }
        }
        IpAddr::V6(address) => {
            // Writing to a String can't fail.
            let _ = write!(text, "{address}");
        }
    }
}

/// A number as 32 hex digits.
pub fn hex(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    let places = digits.chunks_exact_mut(8);
    // Eight digits at a time, each in a byte of one number.
    for (place, shift) in places.zip([96_u32, 64, 32, 0]) {
        let mut nibbles = (number >> shift) as u64 & 0xffff_ffff;
        nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
        nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
        nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        // 10 and more have the fifth bit set once 6 is added.
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        let text = nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10);
        place.copy_from_slice(&text.to_be_bytes());
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 100, 101, 999, 1000, 1001, 65_535, 1_000_000, u64::MAX - 1, u64::MAX]
        {
            let (mut plain, mut three) = (String::new(), String::new());
            push_number(&mut plain, number);
            push_three_digits(&mut three, number);
            assert_eq!((plain, three), (number.to_string(), format!("{:03}", number % 1000)));
        }
    }

    #[test]
    fn hex_is_that_of_the_standard_library() {
        for number in [0, 1, 0x9a, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            assert_eq!(hex(number), *format!("{number:032x}").as_bytes());
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
