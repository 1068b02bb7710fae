//! What nobody may see, in whatever form and however little of it, and everything that was shown to somebody.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Values that may appear in no log, page, metric or error, and the answers that were seen so far. Shared by all who
/// learn a secret or see an answer.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    values: HashSet<String>,
    shown: Vec<(String, String)>,
}

/// Shorter values would be found by accident.
const LEAST_BYTES: usize = 12;
/// A piece of a long value gives it away too: pieces of this length, one every [`STEP`] bytes, are looked for, so that
/// no 24 bytes in a row of any value or of a form of it stay unnoticed.
const PIECE: usize = 16;
const STEP: usize = 8;
/// Most bytes that are kept of one answer.
const SHOWN_BYTES: usize = 64 << 10;

impl Secrets {
    /// Remembers a value.
    pub fn add(&self, value: &str) {
        if value.len() >= LEAST_BYTES {
            self.0.lock().unwrap().values.insert(value.to_owned());
        }
    }

    /// Remembers the keys that the proxy made: every line of the files below that are named so.
    pub fn add_keys(&self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                self.add_keys(&entry.path());
            } else if name.contains("key") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                // Every key of a kind begins with the same line of PEM, which public keys have in part too.
                let skipped = if text.starts_with("-----BEGIN") { 2 } else { 0 };
                let lines = text.lines().skip(skipped).filter(|line| !line.starts_with(['-', '#']));
                lines.for_each(|line| self.add(line));
            }
        }
    }

    /// Remembers what an answer showed, to be looked at once all secrets are known.
    pub fn shown(&self, what: String, text: String) {
        self.0.lock().unwrap().shown.push((what, text.chars().take(SHOWN_BYTES).collect()));
    }

    /// The first value that `text` gives away: as it is, encoded, or in part.
    pub fn found_in(&self, text: &str) -> Option<String> {
        self.found_in_all([("", text)]).map(|(_, value)| value)
    }

    /// The first answer of all that were shown that gives a value away, and the value.
    pub fn found_in_shown(&self) -> Option<(String, String)> {
        let shown = std::mem::take(&mut self.0.lock().unwrap().shown);
        self.found_in_all(shown.iter().map(|(what, text)| (what.as_str(), text.as_str())))
    }

    fn found_in_all<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Option<(String, String)> {
        let values = self.0.lock().unwrap().values.clone();
        let (short, long): (Vec<String>, Vec<String>) =
            values.iter().flat_map(|value| forms(value)).partition(|form| form.len() < PIECE);
        let pieces: HashSet<&[u8]> = long.iter().flat_map(|form| pieces(form.as_bytes())).collect();
        texts.into_iter().find_map(|(what, text)| {
            let piece = text.as_bytes().windows(PIECE).find(|window| pieces.contains(window));
            let found = piece.map(|piece| String::from_utf8_lossy(piece).into_owned());
            let found = found.or_else(|| short.iter().find(|form| text.contains(form.as_str())).cloned());
            found.map(|found| (what.to_owned(), owner(&values, &found)))
        })
    }
}

/// The value that a piece is of, for the message of a failed test.
fn owner(values: &HashSet<String>, piece: &str) -> String {
    let of = values.iter().find(|value| forms(value).iter().any(|form| form.contains(piece)));
    format!("{piece} of {}", of.map_or("?", String::as_str))
}

/// A value as it is, percent-encoded, in hex, and in Base64 of both alphabets wherever in a longer text it begins.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), url::form_urlencoded::byte_serialize(value.as_bytes()).collect()];
    forms.push(value.bytes().map(|byte| format!("{byte:02x}")).collect());
    for offset in 0..3 {
        let rest = &value.as_bytes()[offset..];
        let whole = &rest[..rest.len() / 3 * 3];
        forms.push(STANDARD.encode(whole));
        forms.push(URL_SAFE_NO_PAD.encode(whole));
    }
    forms.retain(|form| form.len() >= LEAST_BYTES);
    forms
}

fn pieces(form: &[u8]) -> impl Iterator<Item = &[u8]> {
    form.windows(PIECE).step_by(STEP).chain(form.windows(PIECE).last())
}
