//! What the provider says, as a log may show it.
//!
//! A provider puts into its texts what it likes, and some repeat what they were sent. So whatever was sent to it in the
//! same exchange is taken out first, and then everything that could be a secret by its looks. What is lost with that
//! (trace ids, addresses with numbers) the provider's own log has too.

use url::form_urlencoded;

/// The secrets of one exchange with the provider: what it was sent, and may send back. Shows none of them.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a>(pub(super) &'a [&'a str]);

/// Stands for what is not shown.
const HIDDEN: &str = "[...]";
/// Shorter values are no secrets, and would be found in every word.
const LEAST_SECRET: usize = 4;
/// A shorter part of a longer one tells nobody anything, and may be there by accident.
const LEAST_PART: usize = 12;
/// From this length on a run of characters is opaque if it has digits, or capitals within. With 16 of 64 characters it
/// would be a secret of 96 bits; what is shorter and worth something is known, for it was sent.
const OPAQUE_RUN: usize = 16;
/// Longest word that is shown, whatever it is made of.
const MAX_WORD: usize = 40;
/// Longest text that is shown.
const MAX_TEXT: usize = 300;
/// Longest name or code that is shown.
const MAX_NAME: usize = 64;

/// A text from outside as a log line shows it: bounded, without anything that means something to a terminal, to HTML
/// or to a log reader, and without anything that could be a token, a code or a state that somebody put there.
pub(super) fn shown_text(text: &str, sent: Sent<'_>) -> String {
    cleaned(text, sent).chars().take(MAX_TEXT).collect()
}

/// An error code of the provider as an error shows it.
pub(super) fn shown_code(code: &str, sent: Sent<'_>) -> String {
    cleaned(code, sent).chars().take(MAX_NAME).collect()
}

/// A name from outside (an algorithm, a key id) as an error shows it.
pub(super) fn shown_name(name: &str) -> String {
    harmless(name).take(MAX_NAME).collect()
}

/// The same for a name that somebody sent who may know secrets.
pub(super) fn shown_name_without(name: &str, sent: Sent<'_>) -> String {
    shown_name(&without_sent(name, sent))
}

fn cleaned(text: &str, sent: Sent<'_>) -> String {
    // First, as long as it is as it was sent.
    let text: String = harmless(&without_sent(text, sent)).collect();
    let text = by_words(&text, is_of_run, |run| run.len() >= OPAQUE_RUN && is_mixed(run));
    by_words(&text, is_of_word, |word| word.len() > MAX_WORD)
}

/// Takes out what was sent, as it was and as forms and addresses have it.
fn without_sent(text: &str, Sent(values): Sent<'_>) -> String {
    let mut secrets: Vec<String> = values
        .iter()
        .filter(|value| value.len() >= LEAST_SECRET)
        .flat_map(|value| [(*value).to_owned(), form_urlencoded::byte_serialize(value.as_bytes()).collect()])
        .collect();
    // The longest first: one may be a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
}

/// The same for a text that was shortened, and may end within a secret: then nothing of it is shown.
pub(super) fn without_parts_of_sent(text: &str, sent: Sent<'_>) -> String {
    let text = without_sent(text, sent);
    let has_part = |secret: &&str| {
        let length = secret.len().clamp(LEAST_SECRET, LEAST_PART);
        let mut parts = secret.as_bytes().windows(length);
        parts.any(|part| text.as_bytes().windows(length).any(|shown| shown == part))
    };
    if sent.0.iter().any(has_part) { HIDDEN.to_owned() } else { text }
}

/// Hides each word of `text` that is `opaque`.
fn by_words(text: &str, is_part: fn(char) -> bool, is_opaque: fn(&str) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(|character| !is_part(character)) {
        let word = piece.trim_end_matches(|character| !is_part(character));
        shown.push_str(if is_opaque(word) { HIDDEN } else { word });
        shown.push_str(piece.strip_prefix(word).unwrap_or_default());
    }
    shown
}

/// What tokens are made of: base64 in both alphabets, hexadecimal digits, and what RFC 6750 section 2.1 allows.
fn is_of_run(character: char) -> bool {
    is_of_word(character) || matches!(character, '.' | '~' | '+' | '/' | '=')
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// Whether it has a digit, or capitals where words have none.
fn is_mixed(run: &str) -> bool {
    let has_inner_capital = run.as_bytes().windows(2).any(
        |pair| matches!(pair, [before, next] if before.is_ascii_alphabetic() && next.is_ascii_uppercase()),
    );
    let has_lower_case = run.bytes().any(|byte| byte.is_ascii_lowercase());
    run.bytes().any(|byte| byte.is_ascii_digit()) || (has_inner_capital && has_lower_case)
}

fn harmless(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|character| match character {
        '<' | '>' | '&' | '"' | '\'' | '\\' | '`' => false,
        character => character.is_ascii_graphic() || *character == ' ',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Sent<'static> = Sent(&[]);

    #[test]
    fn ops_03_a_shortened_text_does_not_end_within_a_secret() {
        let sent = Sent(&["c0de-of-the-login", "k3y", "pass"]);
        for (text, shown) in [
            ("\"https://idp.example\"", "\"https://idp.example\""),
            ("x c0de-of-the-login y", "x [...] y"),
            ("x c0de-of-the-", "[...]"),
            ("of-the-login x", "[...]"),
            ("c0de-of", "c0de-of"),
            ("k3y", "k3y"),
            ("a pass b", "a [...] b"),
            ("", ""),
        ] {
            assert_eq!(without_parts_of_sent(text, sent), shown, "{text}");
        }
    }

    #[test]
    fn ops_03_a_shown_text_has_no_token_in_it() {
        let [token, state, id] = ["t0".repeat(22), "S-_".repeat(50), "2f9c1d3e-".repeat(4)];
        let text = format!("denied: {token} (trace {id}) of {state}.{token}, sorry");
        assert_eq!(shown_text(&text, NOTHING), "denied: [...] (trace [...]) of [...], sorry");
        assert_eq!(shown_text(&token, NOTHING), "[...]");
        assert_eq!(shown_text(&"x".repeat(MAX_WORD), NOTHING), "x".repeat(MAX_WORD));
        assert_eq!(shown_text(&"x".repeat(MAX_WORD + 1), NOTHING), "[...]");
        assert_eq!(shown_text(&"x ".repeat(500), NOTHING).len(), MAX_TEXT);
        assert_eq!(shown_code(&format!("x {state}"), NOTHING), "x [...]");
        assert_eq!(shown_code(&"x ".repeat(500), NOTHING).len(), MAX_NAME);
    }

    #[test]
    fn ops_03_what_looks_opaque_is_hidden_and_words_are_not() {
        for opaque in [
            "0123456789abcdef",
            "SplxlOBeZQQYbYSm",
            "splxlobezqqybys6",
            "SPLXLOBEZQQYBYS6",
            "ab.cd~ef+gh/ij=1",
            "aaaaaaaaaaaaaaaA",
            "2f9c1d3e-5a7b-4c6d-8e9f-0a1b2c3d4e5f",
            "c2VjcmV0LXNlY3Jl",
        ] {
            for text in [opaque.to_owned(), format!("see ({opaque}), or <{opaque}>")] {
                let shown = shown_text(&text, NOTHING);
                assert!(shown.contains(HIDDEN) && !shown.contains(opaque), "{opaque}: {shown}");
            }
            assert_eq!(shown_code(opaque, NOTHING), HIDDEN);
        }
        for word in [
            "access_denied",
            "temporarily_unavailable",
            "unmet_authentication_requirements",
            "ACCESS_DENIED_BY_POLICY",
            "Internationalization",
            "Authentication-Required",
            "https://login.provider.example/error",
            "AADSTS50105: The signed in user is not assigned to a role",
            "0123456789abcde",
        ] {
            assert_eq!(shown_text(word, NOTHING), word);
        }
    }

    #[test]
    fn ops_03_what_was_sent_does_not_come_back() {
        let sent = Sent(&["k3y", "s3cr&t", "s3cr&t-longer", "code", "c\"q"]);
        for (text, wanted) in [
            ("your s3cr&t", "your [...]"),
            ("s3cr&t-longer and s3cr&ts", "[...] and [...]s"),
            ("s3cr%26t or s3cr%26t-longer", "[...] or [...]"),
            ("the code is code", "the [...] is [...]"),
            ("nothing of it: s3cr, k3y", "nothing of it: s3cr, k3y"),
        ] {
            assert_eq!(shown_text(text, sent), wanted);
            assert_eq!(shown_code(text, sent), wanted);
            assert_eq!(shown_name_without(text, sent), wanted);
        }
    }
}
