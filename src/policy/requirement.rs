//! Requirements on tags: `key=value`, `key=*`, `key=pre*suf`, `key!=value`.
//!
//! Every distinct requirement of a policy has a number. Binding a tag set looks each tag up once and sets the
//! bits of the requirements that it meets; a decision only reads bits.

use std::collections::{BTreeSet, HashMap};

use crate::tag::{TagSet, canonical_name, claim_of};

/// Which requirements of a policy hold for one tag set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    bits: Box<[u64]>,
    /// Those that may hold and may not: an address can be read in more than one way. Mostly none.
    doubtful: Vec<usize>,
    pub(super) email_unverified: bool,
}

impl Held {
    fn get(&self, number: usize) -> bool {
        self.bits.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether it holds as far as anybody can tell, in some reading.
    fn may(&self, number: usize) -> bool {
        self.get(number) || self.doubtful.contains(&number)
    }

    fn set(&mut self, number: usize) {
        if let Some(word) = self.bits.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }
}

/// One requirement within a clause: its number in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Term {
    number: usize,
    /// `!=`: holds where the positive form does not.
    negated: bool,
    /// On `email`, which counts for nothing while it is unverified.
    email: bool,
}

impl Term {
    /// Whether it lets a caller pass. A requirement on an unverified address fails, in either form; so does one on which
    /// there is doubt.
    pub(super) fn allows(self, held: &Held) -> bool {
        let holds = if self.negated { !held.may(self.number) } else { held.get(self.number) };
        holds && !(self.email && held.email_unverified)
    }

    /// Whether it stops a caller. Here an unverified address must not help: `email=x` stops whoever claims x,
    /// and `email!=x` stops whoever can't prove x. Nor must doubt.
    pub(super) fn denies(self, held: &Held) -> bool {
        let unproven = self.email && self.negated && held.email_unverified;
        unproven || if self.negated { !held.get(self.number) } else { held.may(self.number) }
    }

    /// Whether it asks for an address.
    pub(super) fn is_email(self) -> bool {
        self.email
    }
}

/// Why a text is not a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SyntaxError {
    NoEquals,
    NoKey,
    WildcardInKey,
    Control,
    /// White space around the key.
    Space,
    /// No claim has a tag of this name; perhaps of that one.
    Spelling(String),
}

/// All distinct requirements of a policy.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// As the file has them, for records and pages.
    texts: Vec<Box<str>>,
    numbers: HashMap<Box<str>, usize>,
    /// `key=value` to number.
    exact: HashMap<Box<str>, usize>,
    /// By key: what a tag of that key has to be compared with.
    by_key: HashMap<Box<str>, Vec<(Pattern, usize)>>,
}

impl Requirements {
    /// Reads a requirement and gives it a number. `negated` shares the number of its positive form.
    pub(super) fn intern(&mut self, text: &str) -> Result<Term, SyntaxError> {
        let (key, value, negated) = split(text)?;
        let email = key == "email";
        let positive = format!("{key}={value}");
        let term = |number| Term { number, negated, email };
        if let Some(number) = self.numbers.get(positive.as_str()) {
            return Ok(term(*number));
        }
        let number = self.texts.len();
        match Pattern::parse(value, email) {
            Pattern::Exact(literal) => {
                self.exact.insert(format!("{key}={literal}").into(), number);
            }
            pattern => self.by_key.entry(key.into()).or_default().push((pattern, number)),
        }
        self.texts.push(positive.as_str().into());
        self.numbers.insert(positive.into(), number);
        Ok(term(number))
    }

    /// Works out which requirements hold. The cost is that of the tags, and of the wildcards for their keys.
    pub(super) fn bind(&self, tags: &TagSet) -> Held {
        let words = self.texts.len().div_ceil(64);
        let (bits, doubtful) = (vec![0; words].into(), Vec::new());
        let mut held = Held { bits, doubtful, email_unverified: tags.email_unverified() };
        for tag in tags.iter() {
            if let Some(number) = self.exact.get(tag) {
                held.set(*number);
            }
            let Some((key, value)) = tag.split_once('=') else { continue };
            for (pattern, number) in self.by_key.get(key).into_iter().flatten() {
                if pattern.matches(value) {
                    held.set(*number);
                } else if pattern.may_match(value) {
                    held.doubtful.push(*number);
                }
            }
        }
        held
    }

    /// The claims that all requirements name.
    pub(super) fn claims(&self) -> BTreeSet<String> {
        let keys = self.texts.iter().filter_map(|text| text.split_once('=').map(|(key, _)| key));
        let mut claims: BTreeSet<String> =
            keys.filter(|key| !key.starts_with(['@', '$'])).map(claim_of).collect();
        if claims.contains("email") {
            claims.insert("email_verified".to_owned());
        }
        claims
    }
}

/// Key, value and whether it is `!=`.
fn split(text: &str) -> Result<(&str, &str, bool), SyntaxError> {
    if text.chars().any(char::is_control) {
        return Err(SyntaxError::Control);
    }
    let (key, value) = text.split_once('=').ok_or(SyntaxError::NoEquals)?;
    let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
    if key.is_empty() {
        return Err(SyntaxError::NoKey);
    }
    if key.contains('*') {
        return Err(SyntaxError::WildcardInKey);
    }
    if key.trim() != key {
        return Err(SyntaxError::Space);
    }
    let canonical = canonical_name(key);
    if canonical != key {
        return Err(SyntaxError::Spelling(canonical));
    }
    Ok((key, value, negated))
}

/// What a value has to look like.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Present,
    /// Literal pieces with anything between them.
    Wild(Vec<String>),
    /// An address: the local part as it is, the domain without regard to ASCII case.
    Email {
        local: Vec<String>,
        domain: Vec<String>,
    },
    /// An address pattern without `@`.
    WholeEmail(Vec<String>),
}

impl Pattern {
    fn parse(value: &str, email: bool) -> Self {
        if value == "*" {
            return Self::Present;
        }
        if email {
            return match value.rsplit_once('@') {
                Some((local, domain)) => {
                    Self::Email { local: pieces(local), domain: pieces(&domain.to_ascii_lowercase()) }
                }
                None => Self::WholeEmail(pieces(&value.to_ascii_lowercase())),
            };
        }
        let mut pieces = pieces(value);
        match pieces.len() {
            1 => Self::Exact(pieces.pop().unwrap_or_default()),
            _ => Self::Wild(pieces),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(literal) => literal == value,
            Self::Present => true,
            Self::Wild(pieces) => glob(pieces, value),
            Self::Email { local, domain } => {
                // Two `@` are two readings of who owns the address.
                let mut parts = value.split('@');
                let (Some(own), Some(host), None) = (parts.next(), parts.next(), parts.next()) else {
                    return false;
                };
                glob(local, own) && glob(domain, &host.to_ascii_lowercase())
            }
            Self::WholeEmail(pieces) => glob(pieces, &value.to_ascii_lowercase()),
        }
    }

    /// Whether an address that does not match would in another reading: with more than one `@`, or with a dot or white
    /// space after its domain, its owner is a matter of who reads it.
    fn may_match(&self, value: &str) -> bool {
        let Self::Email { local, domain } = self else { return false };
        value.match_indices('@').any(|(at, _)| {
            let (own, rest) = (value.get(..at).unwrap_or_default(), value.get(at + 1..).unwrap_or_default());
            let host = rest.split('@').next().unwrap_or_default();
            let host = host.trim_matches(|end: char| end == '.' || end.is_whitespace());
            glob(local, own.trim()) && glob(domain, &host.to_ascii_lowercase())
        })
    }
}

/// The literal pieces between stars; `\*` is a literal star.
fn pieces(value: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            '*' => None,
            '\\' if characters.peek() == Some(&'*') => characters.next(),
            other => Some(other),
        };
        match (literal, pieces.last_mut()) {
            (Some(literal), Some(piece)) => piece.push(literal),
            _ => pieces.push(String::new()),
        }
    }
    pieces
}

/// Whether `value` is these pieces in order, with anything between them. Leftmost matches suffice: linear.
fn glob(pieces: &[String], value: &str) -> bool {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return false };
    if pieces.len() == 1 {
        return first == value;
    }
    let Some(rest) = value.strip_prefix(first.as_str()) else { return false };
    let Some(mut rest) = rest.strip_suffix(last.as_str()) else { return false };
    for piece in pieces.get(1..pieces.len() - 1).unwrap_or_default() {
        let Some(at) = rest.find(piece.as_str()) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    true
}
