//! A session's payload in fewer bytes: deflated (RFC 1951). Names and values stand in it several times, in the claims
//! that were kept and in the ID token; and browsers send all of it with every request.
//!
//! Only what fits into one cookie anyhow is made smaller. How many claims a session can hold does not depend on how
//! well they can be deflated: nobody could tell why one group more is too much.
//!
//! Nothing in a payload is chosen by somebody who could see its length change with it: it is what the provider said of
//! one person, and stands in that person's cookie. Knows nothing of what a payload says.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use zeroize::Zeroizing;

/// The payload as it is sealed.
pub(super) fn shrink(payload: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if payload.len() > MAX_BYTES {
        return payload;
    }
    let mut shrunk = Zeroizing::new(vec![DEFLATED]);
    shrunk.extend_from_slice(&Zeroizing::new(compress_to_vec(&payload, LEVEL)));
    if shrunk.len() < payload.len() { shrunk } else { payload }
}

/// The payload that [`shrink`] got. `None`: no payload comes out of it, or a larger one than it shrinks.
pub(super) fn restore(sealed: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    match sealed.split_first() {
        Some((&DEFLATED, deflated)) => {
            decompress_to_vec_with_limit(deflated, MAX_BYTES).ok().map(Zeroizing::new)
        }
        _ => Some(sealed),
    }
}

/// What stands before a payload that is deflated. No payload begins so: it is JSON.
const DEFLATED: u8 = 1;

/// The most bytes of a payload that is deflated: about what one cookie holds.
const MAX_BYTES: usize = 2800;

/// Of ten. A session is sealed seldom, and sent often.
const LEVEL: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(bytes.to_vec())
    }

    #[test]
    fn a_payload_comes_back_as_it_was() {
        let repeated = r#"{"email":"a@b.example"}"#.repeat(40);
        for (text, is_smaller) in [("", false), ("{}", false), (&repeated, true)] {
            let shrunk = shrink(payload(text.as_bytes()));
            assert_eq!(shrunk.len() < text.len(), is_smaller, "{text:.30}");
            assert!(shrunk.len() <= text.len());
            assert_eq!(&**restore(shrunk.clone()).unwrap(), text.as_bytes());
            if is_smaller {
                for cut in 1..shrunk.len() {
                    assert_eq!(restore(payload(&shrunk[..cut])), None, "cut to {cut}");
                }
            }
        }
    }

    #[test]
    fn what_was_not_shrunk_is_read() {
        assert_eq!(&**restore(payload(b"{\"v\":2}")).unwrap(), b"{\"v\":2}");
    }

    #[test]
    fn large_payloads_stay_as_they_are_and_nothing_grows_beyond_the_bound() {
        let most = vec![b'{'; MAX_BYTES];
        let shrunk = shrink(payload(&most));
        assert!(shrunk.len() < 100, "{}", shrunk.len());
        assert_eq!(&**restore(shrunk).unwrap(), &most);
        let more = [&most[..], b"{"].concat();
        assert_eq!(&**shrink(payload(&more)), &more);
        let bomb = [&[DEFLATED][..], &compress_to_vec(&more, LEVEL)].concat();
        assert_eq!(restore(payload(&bomb)), None);
    }
}
