//! The frames of a WebSocket, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "see crate::fuzzing")]

use super::frames::{Frames, close};

/// The bytes as one direction of a tunnel.
pub fn websocket(bytes: &[u8]) {
    let expected = reference(bytes);
    for size in [usize::MAX, 1, 2, 7] {
        let mut frames = Frames::new();
        for piece in bytes.chunks(size) {
            frames.follow(piece);
        }
        assert_eq!((frames.takes_close(), frames.has_close()), expected, "in pieces of {size}");
        if frames.takes_close() {
            // What is put in between two frames is one whole frame, for whoever follows.
            let mask = bytes.first_chunk::<4>().copied();
            let reason = String::from_utf8_lossy(bytes);
            let goodbye = close(1008, &reason, mask);
            assert!((4..=131).contains(&goodbye.len()));
            frames.follow(&goodbye);
            assert!(frames.has_close() && !frames.takes_close());
            assert_eq!(reference(&[bytes, &goodbye].concat()), (false, true));
            let body = &goodbye[if mask.is_some() { 6 } else { 2 }..];
            assert_eq!(usize::from(goodbye[1] & 0x7f), body.len());
        }
    }
}

/// Whether a Close may come next, and whether one has come, with all the bytes at hand.
fn reference(mut bytes: &[u8]) -> (bool, bool) {
    let mut closed = false;
    loop {
        let [first, rest @ ..] = bytes else { return (!closed, closed) };
        closed |= first & 0x0f == 8;
        let [second, rest @ ..] = rest else { return (false, closed) };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = extended + if second & 0x80 == 0 { 0 } else { 4 };
        let Some((head, rest)) = rest.split_at_checked(head) else { return (false, closed) };
        let number = head[..extended].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let length = if extended == 0 { u64::from(second & 0x7f) } else { number };
        if length > i64::MAX as u64 {
            return (false, closed);
        }
        match usize::try_from(length).ok().and_then(|length| rest.get(length..)) {
            Some(rest) => bytes = rest,
            None => return (false, closed),
        }
    }
}
