//! What is wrong with a configuration, and where. Owns the form in which mistakes are printed; knows nothing
//! of what the keys mean. No value of a secret-bearing key and no expansion of a variable gets in here: a value
//! is quoted only as [`Shown`], which is made from the text as the file has it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::problem::Problem;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Where the file comes in the order of reading.
    pub(super) order: usize,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// The file, as the operator named it.
    pub file: Arc<str>,
}

impl Place {
    /// The beginning of a file, or the file as a whole.
    pub(super) fn start_of(file: &Arc<str>, order: usize) -> Self {
        Self { order, line: 1, column: 1, file: Arc::clone(file) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One mistake: prints as `file:line:column: key.path: what is wrong; what to do`, in one line whatever the file
/// holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// The key's path, such as `services[0].OIDCProviderURL`. Empty for the file as a whole.
    pub key: String,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, problem } = self;
        let text = format!("{place}: {key}{}{problem}", if key.is_empty() { "" } else { ": " });
        text.chars().try_for_each(|character| match character {
            ' '..='~' => f.write_char(character),
            // A key may hold what steers a terminal.
            other => write!(f, "{}", other.escape_debug()),
        })
    }
}

impl std::error::Error for Mistake {}

/// Every mistake of a configuration, in the order of the files. Prints one a line, and then how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Sorts and deduplicates; `None` if there is nothing wrong.
    pub(super) fn new(mut found: Vec<Mistake>) -> Option<Self> {
        found.sort_by(|a, b| a.place.cmp(&b.place));
        let mut kept: Vec<Mistake> = Vec::with_capacity(found.len());
        for mistake in found {
            // What an anchor or a shared spec repeats is one mistake: it is at one place.
            let seen = kept.iter().rev().take_while(|earlier| earlier.place == mistake.place);
            if !seen.into_iter().any(|earlier| earlier.problem == mistake.problem) {
                kept.push(mistake);
            }
        }
        if kept.is_empty() { None } else { Some(Self(kept)) }
    }

    /// Just this one.
    pub(super) fn one(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }

    /// The mistakes, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 mistake in the configuration"),
            many => write!(f, "{many} mistakes in the configuration"),
        }
    }
}

impl std::error::Error for Mistakes {}

/// Something that works, and that the operator should know of. Prints like a [`Mistake`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where, unless it is about something that the file doesn't have.
    pub place: Option<Place>,
    /// The key's path.
    pub key: String,
    /// What is so, what follows from it, and what to do.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// A value as the file has it: variables unexpanded, secrets left out, on one line and not too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

/// Most characters of a value that a message quotes.
const SHOWN_CHARACTERS: usize = 80;

impl Shown {
    /// Quotes `written`, the text before expansion. The caller vouches that its key bears no secret.
    pub(super) fn new(written: &str) -> Self {
        let mut text: String = written.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
        if written.chars().nth(SHOWN_CHARACTERS).is_some() {
            text.push('…');
        }
        Self(format!("`{text}`"))
    }

    /// What stands for the value of a secret-bearing key.
    pub(super) fn secret() -> Self {
        Self("the value".to_owned())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The one of `known` that is spelled most like `word`; case counts least.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded = word.to_ascii_lowercase();
    known.into_iter().min_by_key(|candidate| {
        let distance = strsim::damerau_levenshtein(&folded, &candidate.to_ascii_lowercase());
        (distance, strsim::damerau_levenshtein(word, candidate))
    })
}

/// Whether `word` is so much like `known` that it was surely meant.
pub(super) fn is_near(word: &str, known: &str) -> bool {
    let distance = strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &known.to_ascii_lowercase());
    distance <= 1.max(known.chars().count() / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_by_spelling_and_case_counts_least() {
        for (word, expected) in [
            ("oidcclientid", "OIDCClientID"),
            ("OIDCCleintSecret", "OIDCClientSecret"),
            ("prot", "port"),
            ("Hosts", "hosts"),
        ] {
            let known = ["port", "hosts", "OIDCClientSecret", "OIDCClientID", "OIDCClientSecretFile"];
            assert_eq!(nearest(word, known), Some(expected));
            assert!(is_near(word, expected), "{word}");
        }
        assert!(!is_near("weight", "hosts"));
    }

    #[test]
    fn a_mistake_stays_on_its_line() {
        let place = Place::start_of(&"a.yaml".into(), 0);
        let key = "services[0].a\u{1b}[31m\u{9b}\u{2028}ü".to_owned();
        let text = Mistake { place, key, problem: Problem::EmptyFile }.to_string();
        assert!(text.starts_with("a.yaml:1:1: services[0].a\\u{1b}[31m\\u{9b}\\u{2028}ü: "), "{text}");
    }

    #[test]
    fn a_shown_value_stays_on_its_line() {
        let text = Shown::new(&format!("a\nb\u{1b}[31m{}", "x".repeat(200))).to_string();
        assert!(!text.contains('\n') && !text.contains('\u{1b}') && text.ends_with("…`"), "{text}");
    }
}
