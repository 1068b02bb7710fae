//! The text of a `WWW-Authenticate` field (RFC 9110 section 11.6.1) for the Bearer scheme (RFC 6750 section 3).

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderValue;

/// A stronger or fresher login than the session has: what is asked for (RFC 9470 section 3).
#[derive(Clone, Copy, Debug, Default)]
pub struct StepUp<'a> {
    /// Authentication context classes of which one is needed, the best first; empty if any will do.
    pub acr_values: &'a [String],
    /// The oldest login that will do.
    pub max_age: Option<Duration>,
}

/// `Bearer realm="..."`: a login, or another credential, is needed.
pub(super) fn login(realm: &str) -> HeaderValue {
    Challenge::new(realm).finish()
}

/// `insufficient_user_authentication`: there is a session, but its login is too weak or too old.
pub(super) fn step_up(realm: &str, wanted: &StepUp<'_>) -> HeaderValue {
    let mut challenge = Challenge::new(realm)
        .with("error", "insufficient_user_authentication")
        .with("error_description", "A stronger or more recent login is needed");
    if !wanted.acr_values.is_empty() {
        challenge = challenge.with("acr_values", &wanted.acr_values.join(" "));
    }
    if let Some(max_age) = wanted.max_age {
        challenge = challenge.with("max_age", &max_age.as_secs().to_string());
    }
    challenge.finish()
}

/// Parameters so far; each value is a quoted-string whatever it holds.
struct Challenge(String);

impl Challenge {
    fn new(realm: &str) -> Self {
        Self("Bearer".to_owned()).parameter(' ', "realm", realm)
    }

    fn with(self, name: &str, value: &str) -> Self {
        self.parameter(',', name, value)
    }

    fn parameter(mut self, before: char, name: &str, value: &str) -> Self {
        self.0.push(before);
        if before == ',' {
            self.0.push(' ');
        }
        let _infallible = write!(self.0, "{name}=\"");
        for character in value.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                ' '..='~' => self.0.push(character),
                // Nothing outside printable ASCII may appear: it could end the field.
                _ => self.0.push('?'),
            }
        }
        self.0.push('"');
        self
    }

    fn finish(self) -> HeaderValue {
        HeaderValue::try_from(self.0).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_realm_is_quoted_whatever_it_holds() {
        for (realm, field) in [
            ("private-app", r#"Bearer realm="private-app""#),
            (r#"a"b\c"#, r#"Bearer realm="a\"b\\c""#),
            ("a\r\nSet-Cookie: x", r#"Bearer realm="a??Set-Cookie: x""#),
            ("müde", r#"Bearer realm="m?de""#),
        ] {
            assert_eq!(login(realm), field);
        }
    }

    #[test]
    fn a_step_up_names_only_what_is_asked_for() {
        let acr = ["urn:mfa".to_owned(), "p\"x".to_owned()];
        let described = "error_description=\"A stronger or more recent login is needed\"";
        let start = format!("Bearer realm=\"app\", error=\"insufficient_user_authentication\", {described}");
        for (acr_values, max_age, rest) in [
            (&acr[..1], None, r#", acr_values="urn:mfa""#),
            (&acr[..], Some(300), r#", acr_values="urn:mfa p\"x", max_age="300""#),
            (&[], Some(0), r#", max_age="0""#),
        ] {
            let wanted = StepUp { acr_values, max_age: max_age.map(Duration::from_secs) };
            assert_eq!(step_up("app", &wanted), format!("{start}{rest}"));
        }
    }
}
