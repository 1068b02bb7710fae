//! The seal: authenticated encryption of a small text for one purpose of one service.
//!
//! Owns the format of everything that we seal, and what a seal is bound to. It does not know what the text
//! means or where it is kept.
//!
//! Format, then base64url without padding: version (1) | key id (4) | salt (24) | AES-256-GCM of the text
//! with its tag (16). Each seal has a key of its own, by HKDF-SHA256 (RFC 5869) over the random salt, so
//! the number of seals under one key of the ring has no practical limit and nonces can't repeat.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::keys::{KEY_ID_BYTES, KeyRing};

/// What a sealed text is for. A text sealed for one purpose can't be opened for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A part of a session.
    Session,
    /// A login in progress.
    Login,
    /// The `state` parameter of an authorization request.
    State,
    /// The logout form.
    Logout,
}

/// Whom a seal belongs to. What one service seals, no other can open, also with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The service's name.
    pub service: String,
    /// The host that its users see, in the one form that the configuration resolved it to.
    pub host: String,
    /// The issuer of its identities.
    pub issuer: String,
    /// The client that it is at the issuer.
    pub client_id: String,
}

/// Seals and opens texts for one service. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(Arc<Inner>);

struct Inner {
    ring: Arc<ArcSwap<KeyRing>>,
    session: Box<[u8]>,
    login: Box<[u8]>,
    state: Box<[u8]>,
    logout: Box<[u8]>,
}

impl Sealer {
    /// A sealer with the keys of `ring`, which its owner may replace at any time.
    pub fn new(ring: Arc<ArcSwap<KeyRing>>, binding: &Binding) -> Self {
        Self(Arc::new(Inner {
            ring,
            session: associated_data(b"session", binding),
            login: associated_data(b"login", binding),
            state: associated_data(b"state", binding),
            logout: associated_data(b"logout", binding),
        }))
    }

    /// The number of the key ring in use: another number, other keys.
    pub fn ring(&self) -> u64 {
        self.0.ring.load().number()
    }

    /// Seals at most [`MAX_PLAIN_BYTES`] with the first key of the ring; base64url without padding.
    pub fn seal(&self, purpose: Purpose, plain: &[u8]) -> Result<String, SealError> {
        if plain.len() > MAX_PLAIN_BYTES {
            return Err(SealError::TooLong { bytes: plain.len() });
        }
        let ring = self.0.ring.load();
        let key = ring.first();
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| SealError::Random)?;

        let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + plain.len());
        sealed.push(VERSION);
        sealed.extend(key.id().0);
        sealed.extend(salt);
        sealed.extend(plain);
        let body = sealed.get_mut(HEAD_BYTES..).ok_or(SealError::Cipher)?;
        let tag = key
            .subkey(&salt)
            .and_then(|subkey| {
                subkey.seal_in_place_separate_tag(nonce(), Aad::from(self.0.associated(purpose)), body)
            })
            .map_err(|_| SealError::Cipher)?;
        sealed.extend(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what [`Sealer::seal`] made for the same purpose and binding with any key of the ring. Anything
    /// else, whatever is wrong with it, is `None`.
    pub fn open(&self, purpose: Purpose, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let mut sealed = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let (head, _) = sealed.split_first_chunk::<HEAD_BYTES>()?;
        let (version, head) = head.split_first()?;
        let (key_id, salt) = head.split_first_chunk::<KEY_ID_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let salt: [u8; SALT_BYTES] = salt.try_into().ok()?;
        let ring = self.0.ring.load();
        let subkey = ring.find(*key_id)?.subkey(&salt).ok()?;
        let associated = Aad::from(self.0.associated(purpose));
        let length = subkey.open_within(nonce(), associated, &mut sealed, HEAD_BYTES..).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Inner {
    fn associated(&self, purpose: Purpose) -> &[u8] {
        match purpose {
            Purpose::Session => &self.session,
            Purpose::Login => &self.login,
            Purpose::State => &self.state,
            Purpose::Logout => &self.logout,
        }
    }
}

/// Why a text could not be sealed. The fault is ours or the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than [`MAX_PLAIN_BYTES`].
    #[error("{bytes} bytes are too many for one sealed text")]
    TooLong {
        /// How many there were.
        bytes: usize,
    },
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
    /// The text could not be written down.
    #[error("the session could not be encoded")]
    Encoding,
    /// The cipher failed.
    #[error("the cipher failed")]
    Cipher,
}

/// The most plain bytes that can have been sealed into `text` characters of base64url.
pub(super) const fn plain_capacity(text: usize) -> usize {
    (text * 3 / 4).saturating_sub(OVERHEAD_BYTES)
}

/// What a seal is bound to, each field with its length before it, so that no two bindings look the same.
pub(super) fn associated_data(purpose: &[u8], binding: &Binding) -> Box<[u8]> {
    let Binding { service, host, issuer, client_id } = binding;
    let mut data = Vec::new();
    for field in
        [purpose, &[VERSION], service.as_bytes(), host.as_bytes(), issuer.as_bytes(), client_id.as_bytes()]
    {
        data.extend((field.len() as u64).to_be_bytes());
        data.extend(field);
    }
    data.into()
}

/// Each key seals one text only, so the nonce may be the same for all.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const VERSION: u8 = 1;
/// 192 bits: two seals with the same salt are out of reach.
pub(super) const SALT_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES;
const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;
/// The longest text that is looked at; longer than any cookie or `state` that we make.
const MAX_TEXT_BYTES: usize = 8 * 1024;
/// The most bytes that one seal holds.
pub const MAX_PLAIN_BYTES: usize = plain_capacity(MAX_TEXT_BYTES);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::session::KeySource;

    const PURPOSES: [Purpose; 4] = [Purpose::Session, Purpose::Login, Purpose::State, Purpose::Logout];

    fn sealer() -> Sealer {
        let ring = KeyRing::load(&KeySource::Ephemeral).unwrap();
        let binding =
            Binding { service: "s".into(), host: "h".into(), issuer: "i".into(), client_id: "c".into() };
        Sealer::new(Arc::new(ArcSwap::from_pointee(ring)), &binding)
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_only() {
        let sealer = sealer();
        for length in [0, 1, 2, 3, 100, MAX_PLAIN_BYTES] {
            let plain = vec![b'x'; length];
            for sealed_for in PURPOSES {
                let text = sealer.seal(sealed_for, &plain).unwrap();
                assert!(
                    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                );
                for purpose in PURPOSES {
                    let opened = sealer.open(purpose, &text);
                    assert_eq!(opened.is_some(), purpose == sealed_for);
                    assert!(opened.is_none_or(|opened| *opened == plain));
                }
            }
        }
        let error = sealer.seal(Purpose::Login, &vec![0; MAX_PLAIN_BYTES + 1]);
        assert_eq!(error, Err(SealError::TooLong { bytes: MAX_PLAIN_BYTES + 1 }));
    }

    #[test]
    fn no_two_seals_are_alike() {
        let sealer = sealer();
        let texts: HashSet<_> = (0..1000).map(|_| sealer.seal(Purpose::State, b"x").unwrap()).collect();
        assert_eq!(texts.len(), 1000);
    }

    #[test]
    fn the_capacity_of_a_text_is_exact() {
        let sealer = sealer();
        for text in 61..400 {
            let plain = plain_capacity(text);
            assert!(sealer.seal(Purpose::Session, &vec![0; plain]).unwrap().len() <= text);
            assert!(sealer.seal(Purpose::Session, &vec![0; plain + 1]).unwrap().len() > text);
        }
        assert_eq!(plain_capacity(0), 0);
    }

    #[test]
    fn text_in_another_alphabet_or_padded_is_not_ours() {
        let sealer = sealer();
        let text = loop {
            let text = sealer.seal(Purpose::State, b"abcd").unwrap();
            if text.contains(['-', '_']) {
                break text;
            }
        };
        assert!(sealer.open(Purpose::State, &text).is_some());
        let standard = text.replace('-', "+").replace('_', "/");
        for other in [standard, format!("{text}=="), format!(" {text}"), format!("{text}\n"), String::new()] {
            assert!(sealer.open(Purpose::State, &other).is_none(), "{other}");
        }
    }
}
