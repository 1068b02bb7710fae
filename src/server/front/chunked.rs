//! The chunked transfer coding (RFC 9112 section 7.1), read strictly. Pure, one byte after the other where it
//! matters, and in strides over chunk data.

use super::Violation;
use super::head::split_field;
use super::syntax::is_imitation;

/// Where in a chunked body the next byte falls.
#[derive(Debug, Default)]
pub(super) struct ChunkParser {
    state: State,
    /// Bytes of extensions in this message so far.
    extension_bytes: usize,
    /// Bytes and fields of the trailer section so far.
    trailer_bytes: usize,
    trailer_fields: usize,
    /// The trailer line that is being read, without its CR.
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before the first digit of a chunk size.
    #[default]
    Start,
    /// Within the digits.
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    /// After the CR of the size line.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailer,
    /// After the CR of a trailer line.
    TrailerLf,
    Done,
}

impl ChunkParser {
    /// Takes the bytes of the body at the front of `bytes`: how many they were, and whether the body ended
    /// there. On a violation, nothing after it is part of anything.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Violation)> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            self.state = match self.state {
                State::Data { left } => {
                    let here = (bytes.len() - at) as u64;
                    if here < left {
                        self.state = State::Data { left: left - here };
                        return Ok((bytes.len(), false));
                    }
                    // Not truncated: `left` is at most `here`, which came from a usize.
                    at += left as usize;
                    self.state = State::DataCr;
                    continue;
                }
                State::Done => break,
                state => self.step(state, byte).map_err(|violation| (at, violation))?,
            };
            at += 1;
            if matches!(self.state, State::Done) {
                break;
            }
        }
        Ok((at, matches!(self.state, State::Done)))
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        match (state, byte) {
            (State::Start, _) => {
                let digit = hex(byte).ok_or(Violation::ChunkSize)?;
                Ok(State::Size { size: digit, digits: 1 })
            }
            (State::Size { size, .. }, b';') => self.extend().map(|()| State::Extension { size }),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, digits }, _) => {
                let digit = hex(byte).filter(|_| digits < MAX_SIZE_DIGITS).ok_or(Violation::ChunkSize)?;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(digit));
                let size = size.filter(|&size| i64::try_from(size).is_ok()).ok_or(Violation::ChunkSize)?;
                Ok(State::Size { size, digits: digits + 1 })
            }
            (State::Extension { size }, b'\t' | b' '..=b'~') => {
                self.extend().map(|()| State::Extension { size })
            }
            (State::Extension { .. }, _) => Err(Violation::ChunkExtension),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::SizeLf { .. }, _) => Err(Violation::ChunkSize),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Start),
            (State::DataCr | State::DataLf, _) => Err(Violation::ChunkEnd),
            (State::Trailer | State::TrailerLf, _) => self.trailer(state, byte),
            (State::Data { .. } | State::Done, _) => Ok(state),
        }
    }

    fn extend(&mut self) -> Result<(), Violation> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES { Err(Violation::ChunkExtension) } else { Ok(()) }
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(Violation::TrailersTooLarge);
        }
        match (state, byte) {
            (State::TrailerLf, b'\n') if self.line.is_empty() => Ok(State::Done),
            (State::TrailerLf, b'\n') => {
                self.trailer_fields += 1;
                if self.trailer_fields > MAX_TRAILER_FIELDS {
                    return Err(Violation::TrailersTooLarge);
                }
                let (name, _) = split_field(&self.line).map_err(|_| Violation::Trailer)?;
                if is_imitation(name) || DELIMITING.iter().any(|field| name.eq_ignore_ascii_case(field)) {
                    return Err(Violation::Trailer);
                }
                self.line.clear();
                Ok(State::Trailer)
            }
            (State::TrailerLf, _) => Err(Violation::Trailer),
            (_, b'\r') => Ok(State::TrailerLf),
            (_, b'\t' | b' '..=b'~' | 0x80..) => {
                self.line.push(byte);
                Ok(State::Trailer)
            }
            _ => Err(Violation::Trailer),
        }
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// Digits of a chunk size, leading zeros included. 16 digits hold any 64-bit size.
const MAX_SIZE_DIGITS: u8 = 16;

/// Bytes of chunk extensions in one message. Nothing defines any; the bound caps the work for nothing.
const MAX_EXTENSION_BYTES: usize = 4096;

/// Bytes of one trailer section; below what the parser behind takes.
const MAX_TRAILER_BYTES: usize = 8192;

/// Fields of one trailer section.
const MAX_TRAILER_FIELDS: usize = 32;

/// Fields that must not come in trailers because they delimit or route (RFC 9110 section 6.5.1).
const DELIMITING: [&[u8]; 4] = [b"content-length", b"host", b"transfer-encoding", b"trailer"];
