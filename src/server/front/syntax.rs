//! The alphabets of HTTP: tokens, targets, hosts. Pure functions over bytes.

/// Whether `byte` may be part of a token (RFC 9110 section 5.6.2).
pub(in crate::server) fn is_token(byte: u8) -> bool {
    has(byte, TOKEN)
}

/// Whether `byte` may be part of an origin-form target. Within visible ASCII this is what the `http`
/// crate's `Uri` takes, without `#`, which it would silently cut off, and without bytes over 0x7F.
pub(in crate::server) fn is_target(byte: u8, in_query: bool) -> bool {
    has(byte, if in_query { QUERY } else { PATH })
}

/// In which alphabets each byte is: every byte of every head is looked up.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const ALPHABETS: [u8; 256] = {
    let mut alphabets = [0; 256];
    let mut byte = 0;
    while byte < alphabets.len() {
        let text = byte as u8;
        let is_token = text.is_ascii_alphanumeric()
            || matches!(text, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        let is_target = !matches!(text, 0..=b' ' | b'#' | b'<' | b'>' | 0x7f..);
        let mut found = 0;
        if is_token {
            found |= TOKEN;
        }
        if is_target && text != b'`' {
            found |= PATH;
        }
        if is_target && text != b'"' {
            found |= QUERY;
        }
        alphabets[byte] = found;
        byte += 1;
    }
    alphabets
};

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;

fn has(byte: u8, alphabet: u8) -> bool {
    ALPHABETS.get(usize::from(byte)).is_some_and(|found| found & alphabet != 0)
}

/// Index of the first control character (tab and DEL are among them), or the length.
pub(super) fn find_control(bytes: &[u8]) -> usize {
    /// One step of the wide scan; the compiler turns it into vector compares.
    const WIDTH: usize = 32;
    let is_control = |byte: u8| byte < b' ' || byte == 0x7f;
    let mut skipped = 0;
    for chunk in bytes.chunks_exact(WIDTH) {
        if chunk.iter().fold(false, |found, &byte| found | is_control(byte)) {
            break;
        }
        skipped += WIDTH;
    }
    // Most lines are short. Eight bytes as one number, with the first as its lowest byte.
    let (words, rest) = bytes.get(skipped..).unwrap_or_default().as_chunks();
    for word in words {
        let found = controls(u64::from_le_bytes(*word));
        if found != 0 {
            return skipped + (found.trailing_zeros() / u8::BITS) as usize;
        }
        skipped += word.len();
    }
    skipped + rest.iter().position(|&byte| is_control(byte)).unwrap_or(rest.len())
}

/// Has the highest bit of each byte of `word` that is a control character. Above the lowest one it may have others as
/// well, for a subtraction borrows from the next byte.
fn controls(word: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let del = word ^ (EACH * 0x7f);
    let below_space = word.wrapping_sub(EACH * 0x20) & !word;
    let is_del = del.wrapping_sub(EACH) & !del;
    (below_space | is_del) & (EACH * 0x80)
}

/// Whether `host` is a registered name, an IPv4 address or a bracketed IPv6 address, with an optional
/// port. Stricter than RFC 3986: no percent-encoding, no sub-delims, no user information, no empty port.
pub(in crate::server) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !host.ends_with(b"]") => {
            let (name, port) = host.split_at(colon);
            (name, port.get(1..))
        }
        _ => (host, None),
    };
    let name_is_good = match name {
        [b'[', inside @ .., b']'] => {
            std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        [] => false,
        _ => {
            name.len() <= MAX_NAME
                && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        }
    };
    name_is_good && port.is_none_or(is_port)
}

fn is_port(port: &[u8]) -> bool {
    (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

/// Whether `name` is one of the fields that delimit or route messages in another spelling: equal once
/// letters are lowered and all but letters and digits are turned into `-`, yet not the name itself.
pub(in crate::server) fn is_imitation(name: &[u8]) -> bool {
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    FRAMING_NAMES.iter().any(|real| {
        real.len() == name.len()
            && name.iter().zip(real.iter()).all(|(&byte, &wanted)| plain(byte) == wanted)
            && !name.eq_ignore_ascii_case(real)
    })
}

/// Names with a hyphen; a name without one has no other spelling that is a token.
const FRAMING_NAMES: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// Longest host name, as in DNS, with room for a final dot.
const MAX_NAME: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_token_here_is_one_for_the_parser_behind() {
        for byte in 0..=255u8 {
            let there = http::Method::from_bytes(&[b'A', byte]).is_ok();
            assert_eq!(is_token(byte), there, "{byte:#x} in a method");
            assert_eq!(is_token(byte), http::HeaderName::from_bytes(&[b'a', byte]).is_ok(), "{byte:#x}");
        }
    }

    #[test]
    fn what_passes_in_a_target_passes_the_parser_behind_unchanged() {
        for byte in 0..=255u8 {
            for (prefix, in_query) in [("/a", false), ("/a?b", true)] {
                let target = [prefix.as_bytes(), &[byte], b"z"].concat();
                let parsed = http::Uri::try_from(target.as_slice());
                let kept = parsed.is_ok_and(|uri| uri.to_string().as_bytes() == target);
                let wanted = kept && byte < 0x7f && byte > b' ';
                assert_eq!(is_target(byte, in_query), wanted, "{byte:#x}, query {in_query}");
            }
        }
    }

    #[test]
    fn the_first_control_is_found_wherever_it_is() {
        for length in 0..100 {
            let mut bytes = vec![b'x'; length];
            assert_eq!(find_control(&bytes), length);
            for at in 0..length {
                for control in [0, b'\t', b'\r', b'\n', 0x1f, 0x7f] {
                    bytes[at] = control;
                    assert_eq!(find_control(&bytes), at);
                }
                bytes[at] = 0x80;
                assert_eq!(find_control(&bytes), length, "bytes over 0x7f are no controls");
            }
        }
        for around in [b' ', b'!', b'~', 0x80, 0x9f, 0xa0, 0xff] {
            for at in 0..20 {
                for control in (0..b' ').chain([0x7f]) {
                    let mut bytes = [around; 20];
                    bytes[at] = control;
                    assert_eq!(find_control(&bytes), at, "{control:#x} among {around:#x}");
                }
            }
            assert_eq!(find_control(&[around; 20]), 20, "{around:#x}");
        }
    }

    #[test]
    fn hosts() {
        for good in
            ["a", "example.com", "EXAMPLE.com.", "a_b", "127.0.0.1", "a:1", "a:65535", "[::1]", "[::1]:8443"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        let long = "a".repeat(255);
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a:x",
            "a:65536",
            "a:123456",
            "u@a",
            "a b",
            "a,b",
            "a/b",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[::1]:",
            "[a]",
            "a%41",
            "a:1:2",
            "é",
            "[::1%25eth0]",
            &long,
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn imitations() {
        for name in ["Transfer_Encoding", "transfer.encoding", "CONTENT_LENGTH", "content~length"] {
            assert!(is_imitation(name.as_bytes()), "{name}");
        }
        for name in ["Transfer-Encoding", "content-LENGTH", "x-content-length", "contentlength", "Host"] {
            assert!(!is_imitation(name.as_bytes()), "{name}");
        }
    }
}
