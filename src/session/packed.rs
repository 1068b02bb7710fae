//! A JWT in three quarters of its bytes: the parts of it (RFC 7515 section 3.1) without their base64url, which is made
//! again when it is unpacked. A session travels with every request, and the token in it is the most of it.
//!
//! Knows nothing of what a token says. What it can't give back byte for byte it does not pack.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The parts, each after its length in two bytes.
pub(super) fn pack(token: &str) -> Option<Vec<u8>> {
    let mut packed = Vec::with_capacity(token.len());
    let mut parts = 0;
    for part in token.split('.') {
        // Takes no form but the one that `unpack` makes: no padding, no stray bits (RFC 4648 section 3.5).
        let part = URL_SAFE_NO_PAD.decode(part).ok()?;
        packed.extend(u16::try_from(part.len()).ok()?.to_be_bytes());
        packed.extend(part);
        parts += 1;
    }
    (parts == PARTS).then_some(packed)
}

/// The token. `None`: this is nothing that was packed.
pub(super) fn unpack(mut packed: &[u8]) -> Option<String> {
    let mut token = String::with_capacity(packed.len() * 4 / 3);
    for number in 0..PARTS {
        let (length, rest) = packed.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        if number > 0 {
            token.push('.');
        }
        URL_SAFE_NO_PAD.encode_string(part, &mut token);
        packed = rest;
    }
    packed.is_empty().then_some(token)
}

/// Header, payload, signature.
const PARTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was() {
        for token in ["eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.AAECAwQF_-8", "YQ.YWI.YWJj", "..", "YQ..YQ"] {
            let packed = pack(token).unwrap();
            assert_eq!(unpack(&packed).as_deref(), Some(token));
            for cut in 0..packed.len() {
                assert_eq!(unpack(&packed[..cut]), None, "{token} cut to {cut}");
            }
            assert_eq!(unpack(&[&packed[..], &[0]].concat()), None, "{token} and more");
        }
        let token = format!("{}.{}.", "a".repeat(1200), "b".repeat(4000));
        assert!(pack(&token).unwrap().len() <= token.len() * 3 / 4 + 6);
    }

    #[test]
    fn what_would_not_come_back_is_not_packed() {
        let huge = "a".repeat(4 * usize::from(u16::MAX));
        for token in [
            "",
            "YQ",
            "YQ.YQ",
            "YQ.YQ.YQ.YQ",
            "YQ==.YQ.YQ",
            "YR.YQ.YQ",
            "Y Q.YQ.YQ",
            "Y+.YQ.YQ",
            "Y.YQ.YQ",
            &huge,
        ] {
            assert_eq!(pack(token), None, "{token:.20}");
            assert_eq!(pack(&format!("YQ.YQ.{huge}")), None);
        }
    }
}
