//! What a browser holds of a session that is in the store: where the record is, and the key that opens it.

use std::fmt;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::StoreError;

/// A random handle and the key of the record. Sealed into the cookie; the store sees neither: the record's
/// key in Redis is a digest of the handle.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    handle: [u8; HANDLE_BYTES],
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl Ticket {
    /// A ticket for a record that does not exist yet.
    pub fn new() -> Result<Self, StoreError> {
        let mut ticket = Self { handle: [0; HANDLE_BYTES], key: Zeroizing::new([0; KEY_BYTES]) };
        rand::fill(&mut ticket.handle).map_err(|_| StoreError::Cipher)?;
        rand::fill(ticket.key.as_mut_slice()).map_err(|_| StoreError::Cipher)?;
        Ok(ticket)
    }

    /// The ticket as it is sealed into the cookie: version (1) | handle (16) | key (32).
    pub fn to_bytes(&self) -> Zeroizing<[u8; TICKET_BYTES]> {
        let mut bytes = Zeroizing::new([0; TICKET_BYTES]);
        let fields = [VERSION].into_iter().chain(self.handle).chain(self.key.iter().copied());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// Reads what [`Ticket::to_bytes`] wrote. Anything else, a whole session in a cookie among it, is `None`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (handle, key) = rest.split_first_chunk::<HANDLE_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let mut ticket = Self { handle: *handle, key: Zeroizing::new([0; KEY_BYTES]) };
        let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
        ticket.key.copy_from_slice(key);
        Some(ticket)
    }

    pub(super) fn handle(&self) -> &[u8; HANDLE_BYTES] {
        &self.handle
    }

    pub(super) fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket([redacted])")
    }
}

/// 128 random bits: no two records share a handle, and none is guessed.
pub(super) const HANDLE_BYTES: usize = 16;
/// The input of HKDF, from which the record's AES-256 key comes.
pub(super) const KEY_BYTES: usize = 32;
/// A ticket, written down.
pub const TICKET_BYTES: usize = 1 + HANDLE_BYTES + KEY_BYTES;
/// No session payload begins with this byte.
const VERSION: u8 = 0xB1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_and_nothing_else_is_one() {
        let ticket = Ticket::new().unwrap();
        let bytes = ticket.to_bytes();
        assert_eq!(Ticket::from_bytes(bytes.as_slice()), Some(ticket.clone()));
        let other = Ticket::new().unwrap();
        assert!(other.handle() != ticket.handle() && other.key() != ticket.key());
        assert_eq!([&bytes[1..17], &bytes[17..]], [&ticket.handle()[..], &ticket.key()[..]]);
        let mut other_version = *bytes;
        other_version[0] ^= 1;
        let longer = [bytes.as_slice(), b"x"].concat();
        for wrong in [&b""[..], b"{}", &bytes[..TICKET_BYTES - 1], &longer, &other_version] {
            assert_eq!(Ticket::from_bytes(wrong), None);
        }
        assert_eq!(format!("{ticket:?}"), "Ticket([redacted])");
    }
}
