//! Tags: what the claims of a token say, as `name=value` texts that rules can ask for.
//!
//! A name can't forge another: characters that mean something in a tag or in a requirement are percent-encoded
//! inside claim names. Values stand as they are, for a tag's name ends at its first `=`.

use std::fmt::Write as _;

use serde_json::Value;

/// The claims of a token: a JSON object.
pub type Claims = serde_json::Map<String, Value>;

/// The tags of one caller, sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagSet {
    tags: Vec<Box<str>>,
    email_unverified: bool,
}

impl TagSet {
    /// Strings as they are, booleans `true` and `false`, integers in decimal, arrays one tag for each element,
    /// objects with their keys joined by `:`. Null, fractions and everything else make no tag.
    pub fn from_claims(claims: &Claims) -> Self {
        let mut tags = Vec::new();
        for (name, value) in claims {
            // `@` and `$` belong to tags that no claim may give.
            if !name.starts_with(['@', '$']) {
                push_claim(&mut tags, &top_level_name(name), value, 0);
            }
        }
        tags.sort_unstable();
        tags.dedup();
        Self { tags, email_unverified: is_false(claims.get("email_verified")) }
    }

    /// All tags.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(AsRef::as_ref)
    }

    /// Whether exactly this tag is there.
    pub fn contains(&self, tag: &str) -> bool {
        self.tags.binary_search_by(|held| held.as_ref().cmp(tag)).is_ok()
    }

    /// Whether the provider says that `email` was not verified.
    pub fn email_unverified(&self) -> bool {
        self.email_unverified
    }
}

/// The top-level claim that a tag's name comes from.
pub(crate) fn claim_of(name: &str) -> String {
    let (scheme, rest) = split_scheme(name);
    let end = rest.find(':').map_or(name.len(), |at| scheme.len() + at);
    percent_encoding::percent_decode_str(name.get(..end).unwrap_or(name)).decode_utf8_lossy().into_owned()
}

/// A tag's name as tags have it: what is escaped has to be, and what has to be is. Another spelling is of no claim.
pub(crate) fn canonical_name(name: &str) -> String {
    let (scheme, rest) = split_scheme(name);
    // After the host of a URL, a number is a port and not a member.
    let after_host = rest.find([':', '/']).filter(|_| !scheme.is_empty());
    let port = after_host.filter(|at| rest.get(*at..).is_some_and(is_port));
    let mut canonical = String::from(scheme);
    let mut from = 0;
    let ends = rest.match_indices(':').map(|(at, _)| at).filter(|at| Some(*at) != port);
    for (index, end) in ends.chain([rest.len()]).enumerate() {
        let part = percent_encoding::percent_decode_str(rest.get(from..end).unwrap_or_default());
        let part = part.decode_utf8_lossy();
        let encoded = match index {
            0 if scheme.is_empty() => top_level_name(&part),
            0 => encode_name(&part),
            _ => format!(":{}", nested_name(&part)),
        };
        canonical.push_str(&encoded);
        from = end + 1;
    }
    canonical
}

/// Whether this begins with a colon and the digits of a port.
fn is_port(rest: &str) -> bool {
    let port = rest.strip_prefix(':').map(|rest| rest.split('/').next().unwrap_or_default());
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn push_claim(tags: &mut Vec<Box<str>>, name: &str, value: &Value, depth: usize) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                push_scalar(tags, name, element);
            }
        }
        Value::Object(members) if depth < MAX_DEPTH => {
            for (key, value) in members {
                push_claim(tags, &format!("{name}:{}", nested_name(key)), value, depth + 1);
            }
        }
        scalar => push_scalar(tags, name, scalar),
    }
}

fn push_scalar(tags: &mut Vec<Box<str>>, name: &str, value: &Value) {
    let mut push = |value: &str| tags.push(format!("{name}={value}").into());
    match value {
        Value::String(text) => {
            push(text);
            if matches!(name, "scope" | "scp") {
                text.split(' ').filter(|word| !word.is_empty()).for_each(push);
            }
        }
        Value::Bool(truth) => push(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            if let Some(integer) = integer(number) {
                push(&integer);
            }
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {}
    }
}

/// A number without a fraction, in decimal. A provider may write 1600000000 as 1.6e9.
fn integer(number: &serde_json::Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= MAX_EXACT_FLOAT)?;
    Some(format!("{float:.0}"))
}

/// A top-level claim that is an http(s) URL keeps the colon of its scheme, as providers name claims so.
fn top_level_name(name: &str) -> String {
    let (scheme, rest) = split_scheme(name);
    format!("{scheme}{}", encode_name(rest))
}

/// The beginning of an http(s) URL, if it is one, and the rest.
fn split_scheme(name: &str) -> (&str, &str) {
    let length =
        ["https://", "http://"].into_iter().find(|scheme| name.starts_with(scheme)).map_or(0, str::len);
    name.split_at_checked(length).unwrap_or(("", name))
}

/// A nested name that begins with a slash could complete `https:` to a URL.
fn nested_name(name: &str) -> String {
    match name.strip_prefix('/') {
        Some(rest) => format!("%2F{}", encode_name(rest)),
        None => encode_name(name),
    }
}

fn encode_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '=' | '%' | '!' | '*' | '\\' | ':') || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(character);
        }
    }
    encoded
}

fn is_false(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(verified)) => !verified,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("false"),
        _ => false,
    }
}

/// How deep objects may be nested; what lies deeper makes no tag.
const MAX_DEPTH: usize = 8;
/// Largest float below which every integer is exact.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(claims: &str) -> Vec<String> {
        TagSet::from_claims(&serde_json::from_str(claims).unwrap()).iter().map(str::to_owned).collect()
    }

    #[test]
    fn claims_become_tags() {
        for (claims, expected) in [
            (r#"{"sub":"alice"}"#, &["sub=alice"][..]),
            (r#"{"a":true,"b":false,"c":null}"#, &["a=true", "b=false"]),
            (
                r#"{"n":1600000000,"m":-7,"big":18446744073709551615}"#,
                &["big=18446744073709551615", "m=-7", "n=1600000000"],
            ),
            (r#"{"n":1.6e9,"half":0.5,"huge":1e300}"#, &["n=1600000000"]),
            (
                r#"{"groups":["b","a","a",1,true,null,["x"],{"y":"z"}]}"#,
                &["groups=1", "groups=a", "groups=b", "groups=true"],
            ),
            (
                r#"{"address":{"locality":"Paris","geo":{"x":1}}}"#,
                &["address:geo:x=1", "address:locality=Paris"],
            ),
            (r#"{"scope":"openid email"}"#, &["scope=email", "scope=openid", "scope=openid email"]),
            (r#"{"scp":["a b"]}"#, &["scp=a", "scp=a b", "scp=b"]),
            (r#"{"empty":"","none":[]}"#, &["empty="]),
            (r#"{"https://acme.com/roles":["admin"]}"#, &["https://acme.com/roles=admin"]),
            (r#"{"https://acme.com:8443/r":"x"}"#, &["https://acme.com%3A8443/r=x"]),
            (r#"{"name":"Zoë =!*\n"}"#, &["name=Zoë =!*\n"]),
        ] {
            assert_eq!(tags(claims), expected, "{claims}");
        }
    }

    /// AZ-18, AZ-19: different claims never give an equal tag that they should not.
    #[test]
    fn no_name_forges_another() {
        for (claims, expected) in [
            (r#"{"a:b":"x"}"#, &["a%3Ab=x"][..]),
            (r#"{"a":{"b":"x"}}"#, &["a:b=x"]),
            (r#"{"role=admin":"x"}"#, &["role%3Dadmin=x"]),
            (r#"{"role%3Dadmin":"x"}"#, &["role%253Dadmin=x"]),
            (r#"{"a!":"x","b*":"y","c\\":"z"}"#, &["a%21=x", "b%2A=y", "c%5C=z"]),
            (r#"{"a\nb":"x"}"#, &["a%0Ab=x"]),
            (r#"{"https":{"//acme.com/roles":"admin"}}"#, &["https:%2F/acme.com/roles=admin"]),
            (r#"{"@auth:realm":"x","$identity":"y"}"#, &[]),
            (r#"{"ftp://x":"y"}"#, &["ftp%3A//x=y"]),
        ] {
            assert_eq!(tags(claims), expected, "{claims}");
        }
    }

    #[test]
    fn a_tag_leads_back_to_its_claim() {
        for (name, claim) in [
            ("groups", "groups"),
            ("address:locality", "address"),
            ("a%3Ab", "a:b"),
            ("https://acme.com/roles", "https://acme.com/roles"),
            ("https://acme.com%3A8443/r:x", "https://acme.com:8443/r"),
        ] {
            assert_eq!(claim_of(name), claim);
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (name, canonical) in [
            ("groups", "groups"),
            ("address:geo:x", "address:geo:x"),
            ("a%3Ab", "a%3Ab"),
            ("a%3ab", "a%3Ab"),
            ("%67roups", "groups"),
            ("100%", "100%25"),
            ("role%3Dadmin", "role%3Dadmin"),
            ("https://acme.com/roles", "https://acme.com/roles"),
            ("https://acme.com/app:roles", "https://acme.com/app:roles"),
            ("https://acme.com:8443/r", "https://acme.com%3A8443/r"),
            ("https://acme.com:8443", "https://acme.com%3A8443"),
            ("https://acme.com%3A8443/r:x", "https://acme.com%3A8443/r:x"),
            ("https://acme.com:x/r", "https://acme.com:x/r"),
            ("https%3A//acme.com", "https://acme.com"),
            ("https:/%2Facme.com", "https:%2F/acme.com"),
            ("https:%2F/acme.com", "https:%2F/acme.com"),
            ("Zoë", "Zoë"),
        ] {
            assert_eq!(canonical_name(name), canonical, "{name}");
            assert_eq!(canonical_name(canonical), canonical);
        }
    }

    #[test]
    fn an_unverified_address_is_noticed() {
        for (claims, expected) in [
            (r#"{"email_verified":false}"#, true),
            (r#"{"email_verified":"false"}"#, true),
            (r#"{"email_verified":true}"#, false),
            (r#"{"email_verified":"true"}"#, false),
            (r#"{"email":"a@b.c"}"#, false),
        ] {
            assert_eq!(
                TagSet::from_claims(&serde_json::from_str(claims).unwrap()).email_unverified(),
                expected
            );
        }
    }
}
