//! Where the frames of a WebSocket begin and end (RFC 6455 section 5.2), so that a tunnel can say goodbye between two.
//!
//! Owns the place in one direction and the bytes of a Close frame. May not know what frames carry: it reads heads,
//! passes over the rest, and keeps no byte.

/// The place in the frames of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    at: At,
    has_close: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Head(Head),
    /// So many bytes of the payload are left.
    Payload(u64),
    /// What came is no frame.
    Nowhere,
}

/// What is known of a head that has not come to its end.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Bytes so far.
    seen: u8,
    /// Bytes of the extended length.
    extended: u8,
    /// Bytes of the mask.
    mask: u8,
    /// The length of the payload, as far as it was told.
    length: u64,
}

/// Bytes that every head has.
const SHORTEST_HEAD: u8 = 2;

const MASK_BYTES: usize = 4;

/// In the second byte, beside the length.
const MASKED: u8 = 0x80;

/// What says that a frame is the last of its message, as every Close is (section 5.5).
const FINAL: u8 = 0x80;

const OPCODE: u8 = 0x0f;

const CLOSE: u8 = 0x8;

impl Frames {
    /// Before the first frame.
    pub(super) fn new() -> Self {
        Self { at: At::Head(Head::default()), has_close: false }
    }

    /// Goes on past `bytes`.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Head(Head { seen: 0, .. }) if let Some(after) = after_short_frame(bytes) => {
                    self.has_close |= first & OPCODE == CLOSE;
                    bytes = after;
                }
                At::Head(head) => {
                    self.has_close |= head.seen == 0 && first & OPCODE == CLOSE;
                    head.read(*first);
                    bytes = rest;
                    if head.is_whole() {
                        self.at = At::payload(head.length);
                    }
                }
                At::Payload(left) => {
                    let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(passed..).unwrap_or_default();
                    self.at = At::payload(*left - passed as u64);
                }
                At::Nowhere => return,
            }
        }
    }

    /// Whether a Close has come, or begun to.
    pub(super) fn has_close(&self) -> bool {
        self.has_close
    }

    /// Whether a Close may come next: between two frames, and after no other Close (section 5.5.1).
    pub(super) fn takes_close(&self) -> bool {
        !self.has_close && matches!(self.at, At::Head(Head { seen: 0, .. }))
    }
}

/// What comes after a frame with the shortest form of a length, if all of it is there: tiny messages may come by the
/// million, and are not worth a look at each byte.
fn after_short_frame(bytes: &[u8]) -> Option<&[u8]> {
    let [_, second, rest @ ..] = bytes else { return None };
    let mask = if second & MASKED == 0 { 0 } else { MASK_BYTES };
    match second & !MASKED {
        length @ ..126 => rest.get(mask + usize::from(length)..),
        _ => None,
    }
}

impl At {
    fn payload(left: u64) -> Self {
        match left {
            0 => At::Head(Head::default()),
            // The first bit of the longest form is 0.
            _ if left > i64::MAX as u64 => At::Nowhere,
            _ => At::Payload(left),
        }
    }
}

impl Head {
    fn read(&mut self, byte: u8) {
        if self.seen == 1 {
            self.mask = if byte & MASKED == 0 { 0 } else { MASK_BYTES as u8 };
            match byte & !MASKED {
                126 => self.extended = 2,
                127 => self.extended = 8,
                short => self.length = short.into(),
            }
        } else if (SHORTEST_HEAD..SHORTEST_HEAD + self.extended).contains(&self.seen) {
            self.length = self.length << 8 | u64::from(byte);
        }
        self.seen += 1;
    }

    fn is_whole(&self) -> bool {
        self.seen >= SHORTEST_HEAD + self.extended + self.mask
    }
}

/// A Close frame (section 5.5.1). A client's is masked, with four bytes of its choice; a server's is not. The reason
/// is at most [`MAX_REASON_BYTES`] long; a longer one is left out.
pub(super) fn close(code: u16, reason: &str, mask: Option<[u8; MASK_BYTES]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload
        .extend(Some(reason).filter(|reason| reason.len() <= MAX_REASON_BYTES).unwrap_or_default().bytes());
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let mut frame = vec![FINAL | CLOSE, length | if mask.is_some() { MASKED } else { 0 }];
    if let Some(mask) = mask {
        frame.extend(mask);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    frame.extend(payload);
    frame
}

/// What a control frame has room for beside the code.
const MAX_REASON_BYTES: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of `length` bytes that look like heads.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(length as u8 | mask),
            126..65_536 => {
                frame.push(126 | mask);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127 | mask);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([0x88; 4]);
        }
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    /// Every length form, whole messages and fragments with a ping between them, masked and not.
    fn conversation(masked: bool) -> Vec<Vec<u8>> {
        [
            (0x81, 0),
            (0x82, 1),
            (0x82, 125),
            (0x82, 126),
            (0x01, 127),
            (0x89, 4),
            (0x00, 65_535),
            (0x80, 65_536),
            (0xc1, 9),
        ]
        .map(|(first, length)| frame(first, length, masked))
        .to_vec()
    }

    #[test]
    fn a_close_may_come_between_frames_and_nowhere_else() {
        for masked in [false, true] {
            let mut frames = Frames::new();
            assert!(frames.takes_close());
            for frame in conversation(masked) {
                let (last, body) = frame.split_last().unwrap();
                for byte in body {
                    frames.follow(&[*byte]);
                    assert!(!frames.takes_close(), "{frames:?}");
                }
                frames.follow(&[*last]);
                assert!(frames.takes_close() && !frames.has_close(), "{frames:?}");
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_bytes_are_cut() {
        for masked in [false, true] {
            let all = conversation(masked).concat();
            // Every cut in the short frames, and around each head of the long ones.
            let mut ends: Vec<usize> = Vec::new();
            for frame in conversation(masked) {
                ends.push(ends.last().unwrap_or(&0) + frame.len());
            }
            let near = |at: usize| at < 700 || ends.iter().any(|end| at.abs_diff(*end) < 20);
            for at in (0..all.len()).filter(|at| near(*at)) {
                let mut frames = Frames::new();
                frames.follow(&all[..at]);
                assert_eq!(frames.takes_close(), at == 0 || ends.contains(&at), "at {at}");
                frames.follow(&all[at..]);
                assert!(frames.takes_close(), "cut at {at}");
            }
        }
    }

    #[test]
    fn nothing_comes_after_a_close() {
        for (code, reason, mask) in
            [(1008, "session ended", None), (1001, "", Some([1, 2, 3, 4])), (4000, "x", Some([0; 4]))]
        {
            let close = close(code, reason, mask);
            let mut frames = Frames::new();
            frames.follow(&conversation(mask.is_some()).concat());
            frames.follow(&close[..1]);
            assert!(frames.has_close());
            frames.follow(&close[1..]);
            assert!(frames.has_close() && !frames.takes_close());
            let mut whole = Frames::new();
            whole.follow(&close);
            assert!(whole.has_close() && !whole.takes_close());
        }
    }

    #[test]
    fn what_is_no_frame_is_never_followed_by_one() {
        let mut frames = Frames::new();
        frames.follow(&[&[0x82, 127][..], &[0xff; 8]].concat());
        frames.follow(&[0; 100]);
        assert!(!frames.takes_close());
    }

    #[test]
    fn a_close_is_as_the_standard_has_it() {
        assert_eq!(close(1008, "bye", None), b"\x88\x05\x03\xf0bye");
        assert_eq!(close(1001, "", Some([1, 2, 3, 4])), b"\x88\x82\x01\x02\x03\x04\x02\xeb");
        assert_eq!(close(1000, &"x".repeat(124), None), b"\x88\x02\x03\xe8", "a reason that has no room");
    }
}
