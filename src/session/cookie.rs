//! The text of cookies: names, the Cookie field that browsers send, the Set-Cookie field that they get.
//!
//! Owns the attributes of every cookie that we set. It does not know what their
//! values mean. Values are bytes here: a Cookie field may hold anything that HTTP allows, and none of it may
//! fail a request.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::header::{COOKIE, HeaderMap, HeaderValue};

/// The name of a cookie that we set: begins with `__Host-`, which makes browsers refuse it from any other
/// host, without TLS, or with a Domain (RFC 6265bis section 4.1.3.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CookieName(String);

impl CookieName {
    /// The session cookie's, unless the configuration names another.
    pub const SESSION: &str = "__Host-portcullis";
    /// The cookies' of logins in progress, before the dot and their id.
    pub const LOGIN: &str = "__Host-portcullis-login";

    /// Takes `name` if it begins with `__Host-`, has only characters that a cookie name may have, is not too
    /// long, and can't be mistaken for a part (`.1`) of another cookie.
    pub fn parse(name: &str) -> Result<Self, CookieNameError> {
        let rest = name.strip_prefix("__Host-").ok_or(CookieNameError::Prefix)?;
        if rest.is_empty() || !rest.bytes().all(is_token_byte) {
            return Err(CookieNameError::Characters);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(CookieNameError::TooLong);
        }
        match rest.rsplit_once('.') {
            Some((_, end)) if end.bytes().all(|byte| byte.is_ascii_digit()) => Err(CookieNameError::Part),
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// `base` with `-<service>` appended: cookies know no ports, so services on one host need names of their
    /// own. What a cookie name may not hold is percent-encoded, and so are dots.
    pub fn for_service(base: &str, service: &str) -> Result<Self, CookieNameError> {
        use fmt::Write as _;

        let mut name = format!("{base}-");
        for byte in service.bytes() {
            if is_token_byte(byte) && byte != b'.' && byte != b'%' {
                name.push(byte.into());
            } else {
                // Writing to a String can't fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
        Self::parse(&name)
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name for our cookies. The blame is the configuration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieNameError {
    /// Lacks `__Host-`.
    #[error("a cookie name must begin with `__Host-`, as in `__Host-portcullis`")]
    Prefix,
    /// Nothing after the prefix, or characters that a cookie name may not have.
    #[error("a cookie name has letters, digits and `-_.` after `__Host-`")]
    Characters,
    /// Longer than 128 bytes.
    #[error("a cookie name has at most {MAX_NAME_BYTES} characters")]
    TooLong,
    /// Ends like a part of a split cookie.
    #[error("a cookie name must not end with a dot and digits: that is how parts of a cookie are named")]
    Part,
}

/// One `name=value` of a Cookie field, without the white space around.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) raw: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The pairs of all Cookie fields (HTTP/2 splits them), in order. What is not a pair is skipped.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = Pair<'_>> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|segment| {
            let raw = segment.trim_ascii();
            let (name, value) = raw.split_at_checked(raw.iter().position(|byte| *byte == b'=')?)?;
            Some(Pair { raw, name: name.trim_ascii_end(), value: value.get(1..)?.trim_ascii_start() })
        })
}

/// Which part of the cookie `base` has this name: 0 is `base` itself, 7 is `<base>.7`.
pub(super) fn part_number(base: &CookieName, name: &[u8]) -> Option<usize> {
    match name.strip_prefix(base.as_str().as_bytes())? {
        [] => Some(0),
        [b'.', first @ b'1'..=b'9', rest @ ..] if rest.len() < MAX_PART_DIGITS => {
            rest.iter().try_fold(usize::from(first - b'0'), |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0'))
            })
        }
        _ => None,
    }
}

/// The inverse of [`part_number`].
pub(super) fn part_name(base: &CookieName, number: usize) -> Cow<'_, str> {
    match number {
        0 => base.as_str().into(),
        _ => format!("{base}.{number}").into(),
    }
}

/// The Set-Cookie field of one of our cookies; without a `lifetime` it ends with the browser's session.
/// `name` comes from a [`CookieName`], `value` is base64url, so the field is always well-formed.
pub(super) fn set(name: &str, value: &str, lifetime: Option<Duration>) -> HeaderValue {
    let mut cookie =
        Cookie::build((name, value)).http_only(true).same_site(SameSite::Lax).secure(true).path("/");
    if let Some(lifetime) = lifetime {
        cookie = cookie.max_age(lifetime.try_into().unwrap_or_default());
    }
    // Browsers ignore an empty Set-Cookie, which stands for what the types above rule out.
    secret_value(cookie.to_string().as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// The Set-Cookie field that deletes a cookie made by [`set`].
pub(super) fn delete(name: &str) -> HeaderValue {
    set(name, "", Some(Duration::ZERO))
}

/// Deletes the parts of `base` that the request carries, from number `from` on.
pub(super) fn delete_parts(request: &HeaderMap, base: &CookieName, from: usize) -> Vec<HeaderValue> {
    let present: BTreeSet<_> = pairs(request)
        .filter_map(|pair| part_number(base, pair.name))
        .filter(|number| *number >= from)
        .collect();
    present.into_iter().take(MAX_DELETIONS).map(|number| delete(&part_name(base, number))).collect()
}

/// Every pair of `base` and its parts as sent; borrowed where there is only one.
pub(super) fn key<'a>(headers: &'a HeaderMap, base: &CookieName) -> Option<Cow<'a, [u8]>> {
    let mut own = pairs(headers).filter(|pair| part_number(base, pair.name).is_some()).map(|pair| pair.raw);
    let first = own.next()?;
    Some(own.fold(first.into(), |mut key: Cow<'a, [u8]>, raw| {
        // A pair holds no semicolon, so one long pair can't look like two.
        key.to_mut().push(b';');
        key.to_mut().extend(raw);
        key
    }))
}

pub(super) fn secret_value(bytes: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What [`set`] puts after the value of a cookie without a lifetime; for counting.
pub(super) const ATTRIBUTES: &str = "; HttpOnly; SameSite=Lax; Secure; Path=/";
const MAX_NAME_BYTES: usize = 128;
/// Enough for every number that we make, and for deleting what others made up.
const MAX_PART_DIGITS: usize = 8;
/// The most deletions in one answer.
const MAX_DELETIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_bound_tokens() {
        let long = format!("__Host-{}", "a".repeat(122));
        let cases = [
            ("__Host-portcullis", None),
            ("__Host-my.session", None),
            ("__Host-a~!", None),
            ("portcullis", Some(CookieNameError::Prefix)),
            ("__Secure-portcullis", Some(CookieNameError::Prefix)),
            ("__host-portcullis", Some(CookieNameError::Prefix)),
            ("", Some(CookieNameError::Prefix)),
            ("__Host-", Some(CookieNameError::Characters)),
            ("__Host-a b", Some(CookieNameError::Characters)),
            ("__Host-a;b", Some(CookieNameError::Characters)),
            ("__Host-a=b", Some(CookieNameError::Characters)),
            ("__Host-é", Some(CookieNameError::Characters)),
            ("__Host-a.1", Some(CookieNameError::Part)),
            ("__Host-a.", Some(CookieNameError::Part)),
            (&long, Some(CookieNameError::TooLong)),
        ];
        for (name, error) in cases {
            assert_eq!(CookieName::parse(name).err(), error, "{name}");
        }
    }

    #[test]
    fn a_service_on_a_shared_host_has_its_own_name() {
        for (service, name) in [
            ("api", "__Host-portcullis-api"),
            ("a.1", "__Host-portcullis-a%2E1"),
            ("a b", "__Host-portcullis-a%20b"),
            ("a%2E1", "__Host-portcullis-a%252E1"),
            ("ü", "__Host-portcullis-%C3%BC"),
        ] {
            assert_eq!(CookieName::for_service(CookieName::SESSION, service).unwrap().as_str(), name);
        }
    }

    #[test]
    fn the_attributes_counted_are_those_that_are_set() {
        assert_eq!(set("n", "v", None), format!("n=v{ATTRIBUTES}"));
        assert_eq!(set("n", "v", Some(Duration::from_secs(600))), format!("n=v{ATTRIBUTES}; Max-Age=600"));
        assert_eq!(delete("n"), format!("n={ATTRIBUTES}; Max-Age=0"));
    }

    #[test]
    fn parts_are_named_by_plain_numbers() {
        let base = CookieName::parse("__Host-a").unwrap();
        for (name, number) in [
            ("__Host-a", Some(0)),
            ("__Host-a.1", Some(1)),
            ("__Host-a.10", Some(10)),
            ("__Host-a.12345678", Some(12_345_678)),
            ("__Host-a.123456789", None),
            ("__Host-a.0", None),
            ("__Host-a.01", None),
            ("__Host-a.1x", None),
            ("__Host-a.", None),
            ("__Host-ab", None),
            ("__Host-", None),
        ] {
            assert_eq!(part_number(&base, name.as_bytes()), number, "{name}");
            assert!(number.is_none_or(|number| part_name(&base, number) == name), "{name}");
        }
    }
}
