//! What stands in Redis for one session: a name that tells nothing, and bytes that only the browser's ticket
//! opens. Knows no connection.
//!
//! Format of a record: version (1) | nonce (12) | AES-256-GCM of (length (4, big endian) | payload | zeros to
//! a multiple of [`BLOCK_BYTES`]) with its tag (16). The key is HKDF-SHA256 (RFC 5869) of the ticket's; a
//! session is written anew a few hundred times at most, so random nonces don't meet. The associated data are
//! the service, host, issuer, client and handle: a record that is moved to another handle, or to another
//! service, does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::StoreError;
use super::ticket::Ticket;
use crate::session::seal::{Binding, associated_data};

/// Whose a record is: one service, host, issuer and client. Made once for a service.
#[derive(Clone)]
pub struct Scope {
    associated: Box<[u8]>,
    id: ScopeId,
}

/// A scope as Redis sees it: a digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub(super) [u8; SCOPE_ID_BYTES]);

/// The two keys of one session in Redis. They share a hash tag, so a cluster keeps them in one slot, where a
/// script may use both.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) record: String,
    pub(super) lease: String,
}

impl Scope {
    /// The scope of `binding`.
    pub fn new(binding: &Binding) -> Self {
        let associated = associated_data(b"redis record", binding);
        let mut id = [0; SCOPE_ID_BYTES];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &associated).as_ref()) {
            *to = *from;
        }
        Self { associated, id: ScopeId(id) }
    }

    /// What entries of this scope's revocations carry.
    pub fn id(&self) -> ScopeId {
        self.id
    }

    pub(super) fn names(&self, ticket: &Ticket) -> Names {
        let name = digest(&SHA256, &self.associated_with(ticket));
        let name = URL_SAFE_NO_PAD.encode(name);
        Names {
            record: format!("{KEY_PREFIX}session:{{{name}}}"),
            lease: format!("{KEY_PREFIX}lease:{{{name}}}"),
        }
    }

    /// Lengths are fixed or stand before what they measure, so no two scopes and handles look the same.
    fn associated_with(&self, ticket: &Ticket) -> Vec<u8> {
        [&self.associated, ticket.handle().as_slice()].concat()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scope").field(&self.id).finish()
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The record of `payload`, of at most [`MAX_PAYLOAD_BYTES`].
pub(super) fn seal(scope: &Scope, ticket: &Ticket, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
    let too_large = StoreError::TooLarge { bytes: payload.len() };
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(too_large);
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_large)?;
    let padded = (LENGTH_BYTES + payload.len()).next_multiple_of(BLOCK_BYTES);
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| StoreError::Cipher)?;

    let mut record = Vec::with_capacity(HEAD_BYTES + padded + TAG_BYTES);
    record.push(VERSION);
    record.extend(nonce);
    record.extend(length.to_be_bytes());
    record.extend(payload);
    record.resize(HEAD_BYTES + padded, 0);
    let body = record.get_mut(HEAD_BYTES..).ok_or(StoreError::Cipher)?;
    let associated = Aad::from(scope.associated_with(ticket));
    let tag = key(ticket)
        .and_then(|key| key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), associated, body))
        .map_err(|_| StoreError::Cipher)?;
    record.extend(tag.as_ref());
    Ok(record)
}

/// Opens what [`seal`] made for the same scope and ticket. Anything else is `None`.
pub(super) fn open(scope: &Scope, ticket: &Ticket, record: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
    let mut record = Zeroizing::new(record);
    let (version, rest) = record.split_first()?;
    let nonce = *rest.first_chunk::<NONCE_LEN>()?;
    if *version != VERSION {
        return None;
    }
    let associated = Aad::from(scope.associated_with(ticket));
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = key(ticket).ok()?.open_within(nonce, associated, &mut record, HEAD_BYTES..).ok()?;
    let (length, padded) = plain.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    padded.get(..length)?;
    record.copy_within(LENGTH_BYTES..LENGTH_BYTES + length, 0);
    record.truncate(length);
    Some(record)
}

fn key(ticket: &Ticket) -> Result<LessSafeKey, Unspecified> {
    let material = hkdf::Salt::new(hkdf::HKDF_SHA256, ticket.handle()).extract(ticket.key());
    Ok(LessSafeKey::new(UnboundKey::from(material.expand(&[RECORD_INFO], &AES_256_GCM)?)))
}

/// What every key of ours in Redis begins with: the pattern of the ACL.
pub(super) const KEY_PREFIX: &str = "portcullis:";
/// The largest payload of a session.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// No record is larger; more is never read.
pub(super) const MAX_RECORD_BYTES: usize = MAX_PAYLOAD_BYTES + HEAD_BYTES + BLOCK_BYTES + TAG_BYTES;
/// Sizes are told to Redis no finer than this.
const BLOCK_BYTES: usize = 256;
pub(super) const SCOPE_ID_BYTES: usize = 16;
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + NONCE_LEN;
const LENGTH_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
const RECORD_INFO: &[u8] = b"portcullis redis record 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(service: &str) -> Scope {
        let text = |text: &str| text.to_owned();
        let (host, issuer, client_id) = (text("h"), text("i"), text("c"));
        Scope::new(&Binding { service: text(service), host, issuer, client_id })
    }

    #[test]
    fn a_record_opens_for_its_ticket_and_scope_only() {
        let (mine, other) = (scope("a"), scope("b"));
        let (ticket, stranger) = (Ticket::new().unwrap(), Ticket::new().unwrap());
        for length in [0, 1, 251, 252, 253, 5000, MAX_PAYLOAD_BYTES] {
            let payload = vec![b'p'; length];
            let record = seal(&mine, &ticket, &payload).unwrap();
            assert!(record.len() <= MAX_RECORD_BYTES);
            assert_eq!((record.len() - HEAD_BYTES - TAG_BYTES) % BLOCK_BYTES, 0);
            assert_eq!(open(&mine, &ticket, record.clone()).as_deref(), Some(&payload));
            assert_eq!(open(&other, &ticket, record.clone()), None);
            assert_eq!(open(&mine, &stranger, record.clone()), None);
            // The right key at another handle: what swapping two records of one person would need.
            let mut moved = *ticket.to_bytes();
            moved[1] ^= 1;
            assert_eq!(open(&mine, &Ticket::from_bytes(&moved).unwrap(), record.clone()), None);
        }
        assert_ne!(format!("{mine:?}"), format!("{other:?}"));
        assert!(!format!("{mine:?}").contains("\"i\""), "a digest, and not what it is of: {mine:?}");
        let error = seal(&mine, &ticket, &vec![0; MAX_PAYLOAD_BYTES + 1]).unwrap_err();
        assert_eq!(error, StoreError::TooLarge { bytes: MAX_PAYLOAD_BYTES + 1 });
    }

    /// A session of 1 MiB is kept, and its record is the largest that is read: to its last byte, and no further.
    #[test]
    fn the_largest_session_makes_the_largest_record() {
        let (scope, ticket) = (scope("a"), Ticket::new().unwrap());
        let record = seal(&scope, &ticket, &vec![b'p'; 1_048_576]).unwrap();
        // A version, a nonce, the payload with its length before it, up to the next 256 bytes, and a tag.
        assert_eq!((record.len(), MAX_RECORD_BYTES), (1 + 12 + 1_048_832 + 16, 1_048_861));
        assert!(seal(&scope, &ticket, &vec![b'p'; 1_048_577]).is_err());
    }

    #[test]
    fn a_changed_byte_anywhere_closes_a_record() {
        let (scope, ticket) = (scope("a"), Ticket::new().unwrap());
        let record = seal(&scope, &ticket, b"payload").unwrap();
        for index in 0..record.len() {
            let mut changed = record.clone();
            changed[index] ^= 1;
            assert_eq!(open(&scope, &ticket, changed), None, "byte {index}");
        }
        for length in 0..record.len() {
            assert_eq!(open(&scope, &ticket, record[..length].to_vec()), None, "{length} bytes");
        }
    }

    #[test]
    fn names_share_a_slot_and_tell_nothing() {
        let ticket = Ticket::new().unwrap();
        let names = scope("secret-service").names(&ticket);
        let tag = |name: &str| name.split(['{', '}']).nth(1).unwrap().to_owned();
        assert_eq!(tag(&names.record), tag(&names.lease));
        assert_ne!(tag(&names.record), tag(&scope("b").names(&ticket).record));
        assert!(names.record.starts_with(KEY_PREFIX) && names.lease.starts_with(KEY_PREFIX));
        assert!(!names.record.contains("secret-service"));
    }
}
