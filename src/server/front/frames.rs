//! The frame boundaries of one HTTP/2 connection (RFC 9113 section 4), to bound what the h2 crate does not:
//! the time that an unfinished header block may take, and floods of frames that carry nothing. It also sees which
//! streams are opened, for [`super::stream_interim`]. Pure but for the time that it is told. It never changes the bytes.

use std::time::Duration;

use tokio::time::Instant;

use super::stream_interim::StreamInterim;

/// Watches the bytes of a client.
#[derive(Debug)]
pub(super) struct FrameWatch {
    state: State,
    /// A header block was begun and not ended (RFC 9113 section 6.10).
    in_block: bool,
    resets: Allowance,
    control: Allowance,
}

#[derive(Debug)]
enum State {
    Preface {
        left: usize,
    },
    Header {
        bytes: [u8; HEADER_BYTES],
        have: usize,
    },
    Payload {
        left: usize,
        is_data: bool,
    },
    /// One setting after another (RFC 9113 section 6.5.1).
    Settings {
        left: usize,
        setting: [u8; SETTING_BYTES],
        have: usize,
    },
}

/// What is known after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// The preface, a header block or a frame that is not data has begun and not ended.
    pub(super) unfinished: bool,
    /// More empty frames than any use explains (RFC 9113 section 10.5).
    pub(super) abusive: bool,
}

impl FrameWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Preface { left: PREFACE_BYTES },
            in_block: false,
            resets: Allowance::new(now),
            control: Allowance::new(now),
        }
    }

    /// Looks at the next bytes, which arrived at `now`.
    pub(super) fn advance(&mut self, mut bytes: &[u8], now: Instant, streams: &StreamInterim) -> Watched {
        let mut abusive = false;
        while let Some((&byte, after)) = bytes.split_first() {
            match &mut self.state {
                State::Preface { left } | State::Payload { left, .. } => {
                    let taken = (*left).min(bytes.len());
                    *left -= taken;
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        self.state = State::HEADER;
                    }
                }
                State::Header { bytes: header, have } => {
                    if let Some(slot) = header.get_mut(*have) {
                        *slot = byte;
                    }
                    *have += 1;
                    bytes = after;
                    if *have == HEADER_BYTES {
                        let header = *header;
                        abusive |= !self.begin(header, now, streams);
                    }
                }
                State::Settings { left, setting, have } => {
                    if let Some(slot) = setting.get_mut(*have) {
                        *slot = byte;
                    }
                    (*left, *have, bytes) = (*left - 1, *have + 1, after);
                    if *have == SETTING_BYTES {
                        *have = 0;
                        if let [0, HEADER_TABLE_SIZE, value @ ..] = *setting {
                            streams.saw_table(u32::from_be_bytes(value));
                        }
                    }
                    if *left == 0 {
                        self.state = State::HEADER;
                    }
                }
            }
        }
        Watched { unfinished: self.is_unfinished(), abusive }
    }

    fn is_unfinished(&self) -> bool {
        match self.state {
            State::Preface { .. } => true,
            State::Header { have, .. } => self.in_block || have > 0,
            State::Payload { is_data, .. } => self.in_block || !is_data,
            State::Settings { .. } => true,
        }
    }

    /// Takes a frame header. False: this frame is one too many.
    fn begin(&mut self, header: [u8; HEADER_BYTES], now: Instant, streams: &StreamInterim) -> bool {
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.state = match length {
            0 => State::HEADER,
            left if kind == SETTINGS => State::Settings { left, setting: [0; SETTING_BYTES], have: 0 },
            left => State::Payload { left, is_data: kind == DATA },
        };
        if kind == HEADERS {
            // One bit is reserved.
            streams.saw_headers(u32::from_be_bytes(stream) & (u32::MAX >> 1));
        }
        match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => self.control.spend(now),
            DATA | WINDOW_UPDATE => {
                self.control.earn();
                true
            }
            HEADERS | CONTINUATION => {
                self.in_block = flags & END_HEADERS == 0;
                self.control.earn();
                true
            }
            RST_STREAM => self.resets.spend(now),
            _ => self.control.spend(now),
        }
    }
}

impl State {
    const HEADER: Self = Self::Header { bytes: [0; HEADER_BYTES], have: 0 };
}

/// A token bucket.
#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.refilled).as_millis() / REFILL_EVERY.as_millis();
        if gained > 0 {
            self.left = self.left.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)).min(BURST);
            self.refilled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn earn(&mut self) {
        self.left = (self.left + 1).min(BURST);
    }
}

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const SETTING_BYTES: usize = 6;
/// Of a setting's two bytes for its name the second; the first is 0 (RFC 9113 section 6.5.2).
const HEADER_TABLE_SIZE: u8 = 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames of one sort that may come at once.
const BURST: u32 = 1000;

/// How long it takes to be allowed one more: 200 a second, which cancelled downloads of many users behind one
/// gateway may reach, and which costs next to nothing.
const REFILL_EVERY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn advance(watch: &mut FrameWatch, bytes: &[u8], now: Instant) -> Watched {
        watch.advance(bytes, now, &StreamInterim::default())
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn after_preface() -> (FrameWatch, Instant) {
        let now = Instant::now();
        let mut watch = FrameWatch::new(now);
        assert!(watch.is_unfinished());
        assert!(advance(&mut watch, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", now).unfinished);
        assert!(!advance(&mut watch, b"\n", now).unfinished);
        (watch, now)
    }

    #[test]
    fn unfinished_blocks_and_frames_are_told_from_finished_ones() {
        let now = Instant::now();
        for (bytes, unfinished) in [
            (frame(HEADERS, END_HEADERS, b"x"), false),
            (frame(HEADERS, 0, b"x"), true),
            ([frame(HEADERS, 0, b"x"), frame(CONTINUATION, 0, b"")].concat(), true),
            ([frame(HEADERS, 0, b"x"), frame(CONTINUATION, END_HEADERS, b"y")].concat(), false),
            (frame(HEADERS, END_HEADERS, b"xyz")[..10].to_vec(), true),
            (frame(6, 0, b"12345678")[..9].to_vec(), true),
            (frame(DATA, 0, b"xyz")[..10].to_vec(), false),
            (frame(DATA, 0, b"xyz")[..3].to_vec(), true),
            (frame(4, 0, b""), false),
        ] {
            let wanted = Watched { unfinished, abusive: false };
            assert_eq!(advance(&mut after_preface().0, &bytes, now), wanted, "{bytes:?}");
            let (mut watch, _) = after_preface();
            let last = bytes.iter().map(|byte| advance(&mut watch, &[*byte], now)).last();
            assert_eq!(last, Some(wanted), "byte by byte: {bytes:?}");
        }
    }

    #[test]
    fn floods_are_told_from_use() {
        for (kind, flags, payload) in
            [(3, 0, &b"0000"[..]), (6, 0, b"00000000"), (4, 0, b""), (2, 0, b"00000"), (0, 0, b"")]
        {
            let (mut watch, now) = after_preface();
            let burst = frame(kind, flags, payload).repeat(BURST as usize);
            assert!(!advance(&mut watch, &burst, now).abusive, "kind {kind}");
            assert!(advance(&mut watch, &frame(kind, flags, payload), now).abusive, "kind {kind}");
            let later = now + REFILL_EVERY * 10;
            assert!(
                !advance(&mut watch, &frame(kind, flags, payload).repeat(10), later).abusive,
                "kind {kind}"
            );
            assert!(advance(&mut watch, &frame(kind, flags, payload), later).abusive, "kind {kind}");
        }
        // Each pause between two of them counts, however short.
        let (mut watch, now) = after_preface();
        let mut twice = (0..4 * BURST).map(|frames| now + REFILL_EVERY * frames / 2);
        let abused = twice.position(|now| advance(&mut watch, &frame(3, 0, b"0000"), now).abusive);
        assert_eq!(abused, Some(2 * BURST as usize - 1), "half of them are paid for");
        let (mut watch, now) = after_preface();
        let download = [frame(WINDOW_UPDATE, 0, b"0000"), frame(6, 0, b"00000000")].concat().repeat(10_000);
        assert!(!advance(&mut watch, &download, now).abusive, "pings along with data that flows");
        let (mut watch, now) = after_preface();
        let reset = [frame(HEADERS, END_HEADERS, b"x"), frame(3, 0, b"0000")].concat().repeat(1001);
        assert!(advance(&mut watch, &reset, now).abusive, "requests earn no resets");
        let (mut watch, now) = after_preface();
        assert!(
            !advance(&mut watch, &frame(DATA, END_STREAM, b"").repeat(10_000), now).abusive,
            "ends of uploads"
        );
    }
}
