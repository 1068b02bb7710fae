//! Our cookies and the application's: one jar in the browser, two owners.
//!
//! Owns which cookies are Portcullis's, and keeps them from the application in both directions. It does not
//! know what they hold.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::cookie::{CookieName, secret_value};

/// Which cookies are Portcullis's: never shown to the application, never taken from it.
#[derive(Clone, Debug)]
pub struct OwnCookies {
    named: Vec<CookieName>,
}

impl OwnCookies {
    /// Every cookie whose name begins with `__Host-portcullis`, and those of `named` with their parts: the
    /// session cookies of all services of this process, for a browser sends them to every port of a host.
    pub fn new(named: Vec<CookieName>) -> Self {
        Self { named }
    }

    /// The Cookie field for the application: ours removed, all others byte for byte and in order.
    pub fn strip(&self, headers: &HeaderMap) -> Stripped {
        let mut kept: Option<Vec<u8>> = None;
        let mut removed = false;
        for field in headers.get_all(COOKIE) {
            let mut separator: &[u8] = b"; ";
            for segment in field.as_bytes().split(|byte| *byte == b';') {
                if self.is_own(name_of(segment)) {
                    removed = true;
                    continue;
                }
                // The white space before a segment belongs to the semicolon that the segment may have lost.
                let starts_field = separator.len() > 1;
                let text = if starts_field { segment.trim_ascii_start() } else { segment };
                match &mut kept {
                    None => kept = Some(text.to_vec()),
                    Some(kept) => {
                        kept.extend(separator);
                        kept.extend(text);
                    }
                }
                separator = b";";
            }
        }
        if !removed {
            return Stripped::Unchanged;
        }
        Stripped::Replaced(kept.filter(|kept| !kept.is_empty()).and_then(|kept| secret_value(&kept)))
    }

    /// Without regard to ASCII case: browsers take the prefix in any case, and some applications the name.
    fn is_own(&self, name: &[u8]) -> bool {
        // Those of this service and its logins, and those of other services, which have a suffix.
        if let Some([] | [b'.' | b'-', ..]) = strip_prefix_ignoring_case(name, CookieName::SESSION) {
            return true;
        }
        self.named.iter().any(|own| match strip_prefix_ignoring_case(name, own.as_str()) {
            Some([]) => true,
            Some([b'.', digits @ ..]) => digits.iter().all(u8::is_ascii_digit),
            _ => false,
        })
    }
}

/// What is left of a Cookie field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// None of ours was in it.
    Unchanged,
    /// What to send instead; `None`: no Cookie field.
    Replaced(Option<HeaderValue>),
}

/// The name in one segment of a Cookie field, or in the first of a Set-Cookie field. A nameless cookie whose
/// value looks like a pair is sent back by browsers as that pair, so it is judged as one.
fn name_of(segment: &[u8]) -> &[u8] {
    let segment = segment.trim_ascii();
    let pair = segment.strip_prefix(b"=").unwrap_or(segment);
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

fn strip_prefix_ignoring_case<'a>(name: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        fields.iter().map(|field| (COOKIE, HeaderValue::from_bytes(field).unwrap())).collect()
    }

    #[test]
    fn ses_11_our_cookies_never_reach_the_application() {
        let own = OwnCookies::new(vec![CookieName::parse("__Host-custom").unwrap()]);
        let unchanged: [&[&[u8]]; 9] = [
            &[],
            &[b"a=1"],
            &[b"a=1; b=2;c=3 ;  d"],
            &[b";;;=;"],
            &[b"x__Host-portcullis=1; __Host-other=2; __Secure-portcullis=3"],
            &[b"__Host-customer=1; __Host-custom.x=2; __Host-custo=3"],
            &[b"a=__Host-portcullis=1"],
            &[b"a=\"__Host-portcullis\"; b=\xe9\xff"],
            &[b"a=1", b"b=2"],
        ];
        for fields in unchanged {
            assert_eq!(own.strip(&headers(fields)), Stripped::Unchanged);
        }
        let changed: [(&[&[u8]], &[u8]); 22] = [
            (&[b"__Host-portcullis=x"], b""),
            (&[b"__Host-portcullis=x; "], b""),
            (&[b"__Host-portcullis"], b""),
            (&[b"__Host-portcullis=x; a=1"], b"a=1"),
            (&[b"a=1; __Host-portcullis=x"], b"a=1"),
            (&[b"a=1; __Host-portcullis=x; b=2"], b"a=1; b=2"),
            (&[b"a=1;__Host-portcullis=x;b=2"], b"a=1;b=2"),
            (&[b"a=1; __Host-portcullis=x; __Host-portcullis.1=y; __Host-portcullis.11=y"], b"a=1"),
            (&[b"__Host-portcullis-login.0a=x; a=1; a=1;  b=\"q; r\"; c"], b"a=1; a=1;  b=\"q; r\"; c"),
            (&[b"a=\xe9; __Host-portcullis-other=x; b=\xff\"\\,"], b"a=\xe9; b=\xff\"\\,"),
            (&[b"__Host-custom=x; a=1; __Host-custom.7=y"], b"a=1"),
            (
                &[b"__Host-portcullisX=1; __Host-portcullis2=2; __Host-portcullis=x"],
                b"__Host-portcullisX=1; __Host-portcullis2=2",
            ),
            (&[b"a=1;\t__Host-portcullis =x; b=2"], b"a=1; b=2"),
            (&[b"a=1; =__Host-portcullis=x; b=2"], b"a=1; b=2"),
            (&[b"a=1; __HOST-Portcullis=x; b=2"], b"a=1; b=2"),
            (&[b"a=\"; __Host-portcullis=x; b=\""], b"a=\"; b=\""),
            (&[b";__Host-portcullis=x; a=1"], b"; a=1"),
            (&[b"a=1", b"__Host-portcullis=x", b"b=2; c=3"], b"a=1; b=2; c=3"),
            (&[b"__Host-portcullis=x; a=1", b"b=2; __Host-portcullis=x"], b"a=1; b=2"),
            (&[b"a=1", b"__Host-portcullis=x; b=2"], b"a=1; b=2"),
            (&[b"__Host-portcullis=x", b"__Host-portcullis.1=x"], b""),
            (&[b"__Host-portcullis=x", b"b=2"], b"b=2"),
        ];
        for (fields, left) in changed {
            let Stripped::Replaced(value) = own.strip(&headers(fields)) else { panic!("{fields:?}") };
            let value = value.map(|value| value.as_bytes().to_vec()).unwrap_or_default();
            assert_eq!(value.escape_ascii().to_string(), left.escape_ascii().to_string());
        }
    }
}
