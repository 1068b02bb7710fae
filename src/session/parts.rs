//! A session in several cookies, because browsers keep no cookie above 4096 bytes.
//!
//! Owns how a payload is cut, sealed and put together again. It does not know what the payload says.
//!
//! Every part is sealed on its own. Inside the seal, before its bytes, stand the number of the set (random,
//! one for each sealing), the number of the part, and how many there are. So a part of another session, of an
//! earlier sealing, or at another place does not fit; a count can't be forged; and with several cookies of one
//! name each is tried once, never each combination.

use aws_lc_rs::rand;
use http::HeaderMap;
use zeroize::Zeroizing;

use super::Absent;
use super::cookie::{self, ATTRIBUTES, CookieName};
use super::seal::{Purpose, SealError, Sealer, plain_capacity};

/// Cuts and seals `payload`: the value of cookie `name`, of `name.1`, and so on. `None`: it does not fit.
pub(super) fn split(
    sealer: &Sealer,
    name: &CookieName,
    payload: &[u8],
) -> Result<Option<Vec<String>>, SealError> {
    let capacity = capacity(name);
    let count = payload.len().div_ceil(capacity);
    let (Ok(count), true) = (u8::try_from(count), count <= MAX_PARTS) else { return Ok(None) };
    let mut set = [0; SET_BYTES];
    rand::fill(&mut set).map_err(|_| SealError::Random)?;

    let mut sealed = Vec::with_capacity(count.into());
    for (number, bytes) in (0..).zip(payload.chunks(capacity)) {
        let mut part = Zeroizing::new(Vec::with_capacity(FRAME_BYTES + bytes.len()));
        part.extend(set);
        part.extend([number, count]);
        part.extend(bytes);
        sealed.push(sealer.seal(Purpose::Session, &part)?);
    }
    let sent: usize = sealed.iter().map(|value| longest_name(name) + "=; ".len() + value.len()).sum();
    Ok((sent <= MAX_SENT_BYTES).then_some(sealed))
}

/// Every payload that is complete and ours among the cookies of a request: mostly one, and at least one.
pub(super) fn join(
    sealer: &Sealer,
    name: &CookieName,
    headers: &HeaderMap,
) -> Result<Vec<Zeroizing<Vec<u8>>>, Absent> {
    let sent: Vec<(usize, &str)> = cookie::pairs(headers)
        .filter_map(|pair| Some((cookie::part_number(name, pair.name)?, str::from_utf8(pair.value).ok()?)))
        .filter(|(number, _)| *number < MAX_PARTS)
        .take(MAX_TRIES)
        .collect();
    if sent.is_empty() {
        return Err(Absent::NoCookie);
    }
    let firsts = open_parts(sealer, sent.iter().filter(|(number, _)| *number == 0));
    let Some(most) = firsts.iter().map(|part| part.count).max() else {
        let has_first = sent.iter().any(|(number, _)| *number == 0);
        return Err(if has_first { Absent::Unreadable } else { Absent::Incomplete });
    };
    let others = sent.iter().filter(|(number, _)| *number > 0 && *number < usize::from(most));
    let others = open_parts(sealer, others);
    let payloads: Vec<_> = firsts.iter().filter_map(|first| first.complete(&others)).collect();
    if payloads.is_empty() { Err(Absent::Incomplete) } else { Ok(payloads) }
}

/// One part as opened.
struct Part {
    set: [u8; SET_BYTES],
    number: u8,
    count: u8,
    plain: Zeroizing<Vec<u8>>,
}

impl Part {
    fn open(sealer: &Sealer, number: usize, text: &str) -> Option<Part> {
        let plain = sealer.open(Purpose::Session, text)?;
        let (set, rest) = plain.split_first_chunk::<SET_BYTES>()?;
        let ([sealed_number, count], _) = rest.split_first_chunk::<2>()?;
        let (set, sealed_number, count) = (*set, *sealed_number, *count);
        (usize::from(sealed_number) == number).then_some(Part { set, number: sealed_number, count, plain })
    }

    fn bytes(&self) -> &[u8] {
        self.plain.get(FRAME_BYTES..).unwrap_or_default()
    }

    /// The payload that begins with this part, if `others` hold the rest.
    fn complete(&self, others: &[Part]) -> Option<Zeroizing<Vec<u8>>> {
        let mut payload = Zeroizing::new(Vec::with_capacity(self.plain.len() * usize::from(self.count)));
        payload.extend(self.bytes());
        for number in 1..self.count {
            let part = others.iter().find(|part| part.set == self.set && part.number == number)?;
            payload.extend(part.bytes());
        }
        Some(payload)
    }
}

fn open_parts<'a>(sealer: &Sealer, sent: impl Iterator<Item = &'a (usize, &'a str)>) -> Vec<Part> {
    sent.filter_map(|(number, text)| Part::open(sealer, *number, text)).collect()
}

/// How many bytes of payload a part holds, so that its whole Set-Cookie field stays within bounds.
fn capacity(name: &CookieName) -> usize {
    let others = longest_name(name) + "=".len() + ATTRIBUTES.len();
    plain_capacity(MAX_COOKIE_BYTES.saturating_sub(others)).saturating_sub(FRAME_BYTES).max(1)
}

fn longest_name(name: &CookieName) -> usize {
    name.as_str().len() + ".11".len()
}

/// The most cookies of one session.
pub(super) const MAX_PARTS: usize = 12;
/// The most bytes of a session in the Cookie field, names and separators included.
pub(super) const MAX_SENT_BYTES: usize = 40 * 1024;
/// The most bytes of a Set-Cookie field: what every browser keeps (RFC 6265 section 6.1).
pub(super) const MAX_COOKIE_BYTES: usize = 4096;
/// The most cookies that are opened for one request, whatever others planted beside ours.
pub(super) const MAX_TRIES: usize = 128;
const SET_BYTES: usize = 16;
const FRAME_BYTES: usize = SET_BYTES + 2;
