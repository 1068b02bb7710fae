//! The key ring and the keys in it.
//!
//! Owns the text of a key file, and how the key of a seal follows from a key of the ring. It does not know
//! what is sealed, or where the text is kept.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, rand};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use zeroize::Zeroizing;

use super::seal::SALT_BYTES;
use crate::secret::Secret;

/// One or more keys: the first seals, all open.
pub struct KeyRing {
    number: u64,
    first: Key,
    others: Vec<Key>,
}

impl KeyRing {
    /// Parses a key file: one key of 32 bytes a line, in base64 of either alphabet, padded or not; `#`
    /// begins a comment. Every mistake is returned; none shows what the line holds.
    pub fn parse(text: &str) -> Result<KeyRing, Vec<KeyMistake>> {
        let mut keys: Vec<(usize, Key)> = Vec::new();
        let mut mistakes = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            if keys.len() == MAX_KEYS {
                mistakes.push(KeyMistake::TooMany { line });
                break;
            }
            match Key::parse(text, line) {
                Err(mistake) => mistakes.push(mistake),
                // A seal names its key by the id, so no two keys of a ring share one.
                Ok(key) => match keys.iter().find(|(_, other)| other.id == key.id) {
                    Some((first, _)) => mistakes.push(KeyMistake::Repeated { line, first: *first }),
                    None => keys.push((line, key)),
                },
            }
        }
        let mut keys = keys.into_iter().map(|(_, key)| key);
        match keys.next() {
            Some(first) if mistakes.is_empty() => {
                Ok(KeyRing { number: next_number(), first, others: keys.collect() })
            }
            None if mistakes.is_empty() => Err(vec![KeyMistake::NoKey]),
            _ => Err(mistakes),
        }
    }

    /// A ring of one new key.
    pub(super) fn random() -> Result<KeyRing, Unspecified> {
        Ok(KeyRing { number: next_number(), first: Key::new(random_key()?)?, others: Vec::new() })
    }

    /// The text of a key file with one new key.
    pub(super) fn random_text() -> Result<Secret<String>, Unspecified> {
        let key = random_key_text()?;
        Ok(Secret::new(format!(
            "# Session keys of Portcullis. The first seals, all open.\n{}\n",
            key.as_str()
        )))
    }

    /// Tells this ring from every other that this process has loaded.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The key that seals.
    pub(super) fn first(&self) -> &Key {
        &self.first
    }

    /// The key with this id.
    pub(super) fn find(&self, id: [u8; KEY_ID_BYTES]) -> Option<&Key> {
        self.iter().find(|key| key.id.0 == id)
    }

    /// The ids of the keys, the one that seals first. They tell whether two rings are the same, and nothing
    /// about the keys: fit for a log.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.iter().map(|key| key.id)
    }

    fn iter(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

fn next_number() -> u64 {
    static LOADED: AtomicU64 = AtomicU64::new(1);
    LOADED.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// The name of a key: derived from it by HKDF, so that it says nothing about it. Stands in every seal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One key of the ring. Seals nothing itself; every seal has a key derived from it.
pub(super) struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Key, Unspecified> {
        let mut id = [0; KEY_ID_BYTES];
        hkdf::Salt::none(hkdf::HKDF_SHA256)
            .extract(bytes.as_slice())
            .expand(&[KEY_ID_INFO], KeyIdLength)
            .and_then(|material| material.fill(&mut id))?;
        Ok(Key { id: KeyId(id), bytes })
    }

    fn parse(text: &str, line: usize) -> Result<Key, KeyMistake> {
        let engine = if text.contains(['-', '_']) { &URL_SAFE_ANY } else { &STANDARD_ANY };
        let bytes = engine.decode(text).map(Zeroizing::new).map_err(|_| KeyMistake::NotBase64 { line })?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return Err(KeyMistake::WrongLength { line, bytes: bytes.len() });
        }
        key.copy_from_slice(&bytes);
        Key::new(key).map_err(|_| KeyMistake::NotBase64 { line })
    }

    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// The key of the one seal that has this salt.
    pub(super) fn subkey(&self, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, Unspecified> {
        let material = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.bytes.as_slice());
        let key = UnboundKey::from(material.expand(&[SEAL_INFO], &AES_256_GCM)?);
        Ok(LessSafeKey::new(key))
    }
}

struct KeyIdLength;

impl hkdf::KeyType for KeyIdLength {
    fn len(&self) -> usize {
        KEY_ID_BYTES
    }
}

/// One thing wrong with a key file, by line; never what the line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyMistake {
    /// Not base64.
    #[error("line {line} is not base64; {HINT}")]
    NotBase64 {
        /// From 1.
        line: usize,
    },
    /// Base64 of something shorter or longer than a key.
    #[error("line {line} holds {bytes} bytes and not 32; {HINT}")]
    WrongLength {
        /// From 1.
        line: usize,
        /// What the base64 holds.
        bytes: usize,
    },
    /// The same key again.
    #[error("line {line} repeats the key of line {first}; remove one")]
    Repeated {
        /// From 1.
        line: usize,
        /// Where the key stands already.
        first: usize,
    },
    /// More than [`MAX_KEYS`].
    #[error("line {line} is one key too many; {MAX_KEYS} are the most, remove the oldest")]
    TooMany {
        /// From 1.
        line: usize,
    },
    /// Nothing but comments and blank lines.
    #[error("there is no key in it; {HINT}")]
    NoKey,
}

/// One new key as it stands in a key file.
pub(super) fn random_key_text() -> Result<Zeroizing<String>, Unspecified> {
    Ok(Zeroizing::new(STANDARD.encode(random_key()?.as_slice())))
}

fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>, Unspecified> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// The most keys of a ring.
pub const MAX_KEYS: usize = 16;
pub(super) const KEY_ID_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
const KEY_ID_INFO: &[u8] = b"portcullis key id 1";
const SEAL_INFO: &[u8] = b"portcullis seal 1";
const HINT: &str = "make a key with `portcullis keygen`";
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

#[cfg(test)]
mod tests {
    use super::*;

    fn standard(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    #[test]
    fn a_key_file_has_keys_comments_and_blank_lines() {
        let url_safe = standard(0xfb).replace('+', "-").replace('/', "_");
        assert!(url_safe.contains(['-', '_']));
        let text = format!(
            "# new\n\n  {}  # July\r\n\t\n{}\n{}",
            standard(1),
            standard(2).trim_end_matches('='),
            url_safe
        );
        let ring = KeyRing::parse(&text).unwrap();
        let expected: Vec<_> =
            [1, 2, 0xfb].map(|byte| KeyRing::parse(&standard(byte)).unwrap().first().id()).into();
        assert_eq!(ring.ids().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn mistakes_have_lines_and_never_show_the_key() {
        let long = STANDARD.encode([7; 33]);
        let hex = "0123456789abcdef".repeat(4);
        let many = (0..=MAX_KEYS as u8).map(standard).collect::<Vec<_>>().join("\n");
        let (one, half) = (standard(1), STANDARD.encode([7; 16]));
        let cases = [
            (String::new(), vec![KeyMistake::NoKey]),
            ("# nothing\n\n".into(), vec![KeyMistake::NoKey]),
            ("hunter2!".into(), vec![KeyMistake::NotBase64 { line: 1 }]),
            (format!("{one}\n\nsecret key"), vec![KeyMistake::NotBase64 { line: 3 }]),
            (half.clone(), vec![KeyMistake::WrongLength { line: 1, bytes: 16 }]),
            (hex.clone(), vec![KeyMistake::WrongLength { line: 1, bytes: 48 }]),
            (
                format!("#\n{long}\n{one}\n?\n{one}"),
                vec![
                    KeyMistake::WrongLength { line: 2, bytes: 33 },
                    KeyMistake::NotBase64 { line: 4 },
                    KeyMistake::Repeated { line: 5, first: 3 },
                ],
            ),
            (many, vec![KeyMistake::TooMany { line: MAX_KEYS + 1 }]),
        ];
        for (text, expected) in cases {
            let mistakes = KeyRing::parse(&text).unwrap_err();
            assert_eq!(mistakes, expected, "{text}");
            let shown: String = mistakes.iter().map(ToString::to_string).collect();
            assert!(text.split_whitespace().all(|word| word.len() < 7 || !shown.contains(word)), "{shown}");
        }
    }
}
