//! The one form of a request's target: what the rules judge, what a login returns to, and what the application
//! receives, byte for byte.
//!
//! Two servers that read one target differently are a hole in every proxy between them. So nothing is repaired
//! here: a target that two common servers could read differently is refused. The only changes are those that
//! RFC 3986 section 6.2.2.2 calls equivalent (escapes of unreserved characters are decoded), and merged slashes
//! where the configuration asks for it.

use std::borrow::Cow;

/// How targets of one service are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether `//` is read as `/` instead of being refused.
    pub merge_slashes: bool,
    /// What to do with `%2F` and `%5C`.
    pub encoded_slashes: EncodedSlashes,
}

/// What to do with `%2F` and `%5C`, which some servers read as separators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// Refuse the request.
    #[default]
    Refuse,
    /// Leave them inside their segment.
    Keep,
}

/// A target that can be judged: path and query. The only thing that rules judge, and the only thing that is
/// forwarded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NormalPath {
    text: String,
    path_bytes: usize,
}

impl NormalPath {
    /// Reads a target in origin form (RFC 9112 section 3.2.1) as it was sent.
    pub fn parse(target: &str, options: &Options) -> Result<Self, PathError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut text = normal_path(path, options)?;
        let path_bytes = text.len();
        if let Some(query) = query {
            check_query(query)?;
            text.push('?');
            text.push_str(query);
        }
        Ok(Self { text, path_bytes })
    }

    /// The path, beginning with `/`.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_bytes).unwrap_or_default()
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_bytes + 1..)
    }

    /// Path and query: the target that is forwarded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path between its first slash and a trailing one: segments with slashes between them.
    pub(crate) fn inner(&self) -> &str {
        let inner = self.path().strip_prefix('/').unwrap_or_default();
        inner.strip_suffix('/').unwrap_or(inner)
    }

    /// The segments of the path. A trailing slash makes none.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.inner().split('/').filter(|segment| !segment.is_empty())
    }
}

/// A query may hold what nobody else should read.
impl std::fmt::Debug for NormalPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path())
    }
}

/// Why a target can't be judged. The blame is the client's, or for a pattern the configuration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// Empty, `*`, a full URL or a host.
    #[error("the target does not begin with a slash")]
    NotAPath,
    /// `//`, or a segment that is nothing but parameters.
    #[error("the path has an empty segment (two slashes in a row)")]
    EmptySegment,
    /// `.`, `..`, however encoded, or with parameters.
    #[error("the path has a dot segment (`.` or `..`)")]
    DotSegment,
    /// `\`, which some servers read as a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// `%2F` or `%5C`.
    #[error("the path has an encoded slash or backslash")]
    EncodedSlash,
    /// A control character, raw or encoded.
    #[error("the target has a control character")]
    Control,
    /// A character that must be percent-encoded in a target.
    #[error("the target has a character that must be percent-encoded")]
    Character,
    /// `#`, which is never sent in a target.
    #[error("the target has a fragment")]
    Fragment,
    /// A `%` without two hex digits.
    #[error("the path has a percent sign that begins no escape")]
    Escape,
    /// Escapes that decode to something other than UTF-8.
    #[error("the path does not decode to UTF-8")]
    Utf8,
}

fn normal_path(path: &str, options: &Options) -> Result<String, PathError> {
    let inner = path.strip_prefix('/').ok_or(PathError::NotAPath)?;
    let mut text = String::with_capacity(path.len());
    let mut raw_segments = inner.split('/').peekable();
    while let Some(raw) = raw_segments.next() {
        if !raw.is_empty() {
            text.push('/');
            push_segment(&mut text, raw, options)?;
        } else if raw_segments.peek().is_none() {
            // `/` itself, or a trailing slash.
            text.push('/');
        } else if !options.merge_slashes {
            return Err(PathError::EmptySegment);
        }
    }
    Ok(text)
}

/// Appends one segment with the escapes of unreserved characters decoded.
fn push_segment(text: &mut String, raw: &str, options: &Options) -> Result<(), PathError> {
    let start = text.len();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            check_raw(byte)?;
            text.push(char::from(byte));
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else { return Err(PathError::Escape) };
        let value = escaped(high, low).ok_or(PathError::Escape)?;
        if is_unreserved(value) {
            text.push(char::from(value));
        } else {
            text.extend(['%', char::from(high), char::from(low)]);
        }
    }
    check_segment(text.get(start..).unwrap_or_default(), options)
}

/// Looks at a segment as whoever decodes it will.
fn check_segment(segment: &str, options: &Options) -> Result<(), PathError> {
    let decoded = decode(segment).ok_or(PathError::Utf8)?;
    // This includes U+0080 to U+009F.
    if decoded.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if options.encoded_slashes == EncodedSlashes::Refuse && decoded.contains(['/', '\\']) {
        return Err(PathError::EncodedSlash);
    }
    // With kept slashes: whoever decodes them must not find a dot segment or an empty one.
    for part in decoded.split(['/', '\\']) {
        // Some servers cut parameters off before they look for dots.
        let name = part.split(';').next().unwrap_or_default();
        match name {
            "." | ".." => return Err(PathError::DotSegment),
            "" => return Err(PathError::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

/// A segment as the rules compare it: percent-decoded once. A decoded slash can't be mistaken for a separator,
/// for a segment has none.
pub(crate) fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { escaped(bytes.next()?, bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A raw byte of a path: `pchar` of RFC 3986 section 3.3, and the few others that browsers send unencoded.
fn check_raw(byte: u8) -> Result<(), PathError> {
    match byte {
        0..=0x1f | 0x7f => Err(PathError::Control),
        b'\\' => Err(PathError::Backslash),
        b'#' => Err(PathError::Fragment),
        b' ' | b'"' | b'<' | b'>' | b'`' | 0x80.. => Err(PathError::Character),
        _ => Ok(()),
    }
}

fn check_query(query: &str) -> Result<(), PathError> {
    for byte in query.bytes() {
        match byte {
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'#' => return Err(PathError::Fragment),
            b' ' | 0x80.. => return Err(PathError::Character),
            _ => {}
        }
    }
    Ok(())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Options = Options { merge_slashes: false, encoded_slashes: EncodedSlashes::Refuse };
    const MERGE: Options = Options { merge_slashes: true, encoded_slashes: EncodedSlashes::Refuse };
    const KEEP: Options = Options { merge_slashes: false, encoded_slashes: EncodedSlashes::Keep };

    #[test]
    fn what_is_forwarded() {
        for (options, target, expected) in [
            (STRICT, "/", "/"),
            (STRICT, "/a", "/a"),
            (STRICT, "/a/", "/a/"),
            (STRICT, "/a/b?x=1", "/a/b?x=1"),
            (STRICT, "/a?", "/a?"),
            // Only unreserved characters are decoded; hex case and query stay.
            (STRICT, "/%61%2D%2e%5f%7Eb", "/a-._~b"),
            (STRICT, "/a%2db%c3%A9?%61=%2f%zz", "/a-b%c3%A9?%61=%2f%zz"),
            (STRICT, "/a%20b", "/a%20b"),
            (STRICT, "/a!$&'()*+,;=:@b", "/a!$&'()*+,;=:@b"),
            (STRICT, "/a%21b%3b", "/a%21b%3b"),
            // AZ-06: decoded at most once.
            (STRICT, "/%252e%252e/x", "/%252e%252e/x"),
            (STRICT, "/%25%32%66", "/%252f"),
            // AZ-13: only the path is looked at.
            (STRICT, "/a?x=/../b//c", "/a?x=/../b//c"),
            (STRICT, "/a?b?c", "/a?b?c"),
            (STRICT, "/public%3f", "/public%3f"),
            // AZ-14: other names, not other spellings.
            (STRICT, "/ADMIN", "/ADMIN"),
            (STRICT, "/admin.", "/admin."),
            (STRICT, "/...", "/..."),
            (STRICT, "/admin%20", "/admin%20"),
            (STRICT, "/a;v=1/b", "/a;v=1/b"),
            (STRICT, "/[x]|{y}^", "/[x]|{y}^"),
            // AZ-03 with mergeSlashes.
            (MERGE, "//admin", "/admin"),
            (MERGE, "///admin//", "/admin/"),
            (MERGE, "//", "/"),
            (MERGE, "/a//b?c//d", "/a/b?c//d"),
            // AZ-07 with encodedSlashes: keep.
            (KEEP, "/a%2Fb%5cc", "/a%2Fb%5cc"),
            (KEEP, "/a%252Fb", "/a%252Fb"),
        ] {
            let parsed =
                NormalPath::parse(target, &options).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(parsed.as_str(), expected, "{target}");
            // The form that is judged is a fixed point: reading it again changes nothing.
            assert_eq!(NormalPath::parse(expected, &options).as_ref(), Ok(&parsed));
        }
    }

    #[test]
    fn what_is_refused() {
        use PathError as E;
        for (options, target, expected) in [
            (STRICT, "", E::NotAPath),
            (STRICT, "*", E::NotAPath),
            (STRICT, "a", E::NotAPath),
            (STRICT, "?x", E::NotAPath),
            (STRICT, "http://evil.test/", E::NotAPath),
            // AZ-03
            (STRICT, "//", E::EmptySegment),
            (STRICT, "//admin", E::EmptySegment),
            (STRICT, "///admin", E::EmptySegment),
            (STRICT, "/public//../admin", E::EmptySegment),
            (STRICT, "/admin//", E::EmptySegment),
            (MERGE, "/public//../admin", E::DotSegment),
            // AZ-04, AZ-05
            (STRICT, "/public/../admin", E::DotSegment),
            (STRICT, "/./admin", E::DotSegment),
            (STRICT, "/a/b/../../admin/..", E::DotSegment),
            (STRICT, "/.", E::DotSegment),
            (STRICT, "/..?x", E::DotSegment),
            (STRICT, "/%2e%2e/admin", E::DotSegment),
            (STRICT, "/.%2E/admin", E::DotSegment),
            (STRICT, "/%2e/", E::DotSegment),
            // AZ-07
            (STRICT, "/a%2fb", E::EncodedSlash),
            (STRICT, "/a%5Cb", E::EncodedSlash),
            (STRICT, "/a\\b", E::Backslash),
            (KEEP, "/a\\b", E::Backslash),
            (KEEP, "/public%2f..%2fadmin", E::DotSegment),
            (KEEP, "/public%5C%2e%2e%5Cadmin", E::DotSegment),
            (KEEP, "/a%2F%2Fb", E::EmptySegment),
            (KEEP, "/%2Fadmin", E::EmptySegment),
            (KEEP, "/admin%2F", E::EmptySegment),
            (KEEP, "/a%2F..;x%2Fb", E::DotSegment),
            // AZ-08
            (STRICT, "/public/..;/admin", E::DotSegment),
            (STRICT, "/public/..;x=1/admin", E::DotSegment),
            (STRICT, "/public/%2e%2e%3b/admin", E::DotSegment),
            (STRICT, "/.;a", E::DotSegment),
            (STRICT, "/;a/admin", E::EmptySegment),
            (STRICT, "/%3Ba/admin", E::EmptySegment),
            // AZ-09
            (STRICT, "/a%00", E::Control),
            (STRICT, "/a%0d%0aX: y", E::Character),
            (STRICT, "/a%0d%0a", E::Control),
            (STRICT, "/a%09", E::Control),
            (STRICT, "/a%7f", E::Control),
            (STRICT, "/a%c2%85", E::Control),
            (STRICT, "/a\tb", E::Control),
            (STRICT, "/a\u{7f}b", E::Control),
            (STRICT, "/a\u{1}%", E::Control),
            (STRICT, "/a b", E::Character),
            (STRICT, "/a?b c", E::Character),
            (STRICT, "/a?b\u{0}", E::Control),
            // AZ-10
            (STRICT, "/%c0%ae%c0%ae/admin", E::Utf8),
            (STRICT, "/%e0%80%af", E::Utf8),
            (STRICT, "/%ff", E::Utf8),
            (STRICT, "/\u{ff0f}admin", E::Character),
            (STRICT, "/%u002e", E::Escape),
            (STRICT, "/a%", E::Escape),
            (STRICT, "/a%2", E::Escape),
            (STRICT, "/a%2g", E::Escape),
            (STRICT, "/a%+1", E::Escape),
            // AZ-12
            (STRICT, "/a#b", E::Fragment),
            (STRICT, "/a?b#c", E::Fragment),
        ] {
            assert_eq!(NormalPath::parse(target, &options), Err(expected), "{target}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let path = NormalPath::parse("/a?token=secret", &STRICT).unwrap();
        assert_eq!(format!("{path:?}"), "/a");
        assert_eq!(path.query(), Some("token=secret"));
        assert_eq!(path.segments().collect::<Vec<_>>(), ["a"]);
    }

    proptest::proptest! {
        /// Nothing that is accepted resolves, as a WHATWG URL, to another path.
        #[test]
        fn a_url_parser_changes_nothing(target in "/[a-z./%2e5cf;\\\\?]{0,24}") {
            if let Ok(path) = NormalPath::parse(&target, &KEEP) {
                let url = url::Url::parse("https://app.test").unwrap().join(path.as_str()).unwrap();
                proptest::prop_assert_eq!(url.host_str(), Some("app.test"));
                proptest::prop_assert_eq!(url.path(), path.path());
            }
        }
    }
}
