//! Claims as headers for the application: `claimsToHTTPHeaderMappings`.

use http::{HeaderName, HeaderValue};
use serde_json::{Number, Value};

use crate::tag::Claims;

/// One entry of `claimsToHTTPHeaderMappings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The name of a top-level claim, dots and all.
    pub claim: String,
    /// The header that gets its value.
    pub header: HeaderName,
}

impl Mapping {
    /// Why `header` can't be the target of a mapping, if it can't: it frames or routes the message, or it
    /// is set by Portcullis itself.
    pub fn refusal(header: &HeaderName) -> Option<&'static str> {
        let name = super::headers::normalised(header.as_str());
        if RESERVED.contains(&&*name) {
            return Some("this header frames or routes the message; choose another name, such as X-User");
        }
        // `X-Forwarded-User`, `-Email`, `-Groups`: names that applications know from other proxies. They are
        // removed from every request like all of that family, and then set.
        let familiar = name.starts_with("x-forwarded-") && !OWN_FORWARDED.contains(&&*name);
        (!familiar && super::headers::is_always_stripped(&name)).then_some(
            "this header is set or removed by Portcullis itself; choose another name, such as X-User",
        )
    }
}

/// The mapped claims of one session. Built once per session: a request only clones references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Headers to set, each name at most once.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A claim that is there but did not become a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The claim's name.
    pub claim: String,
    /// Why.
    pub reason: UnmappedReason,
}

/// Why a claim did not become a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmappedReason {
    /// Its text has more than 8 KiB.
    #[error("its header would be longer than 8 KiB")]
    TooLong,
    /// It is an object, or an array with objects or arrays in it.
    #[error("it is not a string, number or boolean, nor an array of those")]
    Structured,
}

impl Identity {
    /// The headers that `mappings` give for `claims`, and the claims that are there but can't be mapped.
    /// An absent, null or empty-array claim has no header. Of two mappings to one header the later wins.
    pub fn from_claims(claims: &Claims, mappings: &[Mapping]) -> (Self, Vec<Unmapped>) {
        let mut identity = Self::default();
        let mut unmapped = Vec::new();
        for Mapping { claim, header } in mappings {
            let Some(value) = claims.get(claim) else { continue };
            match encode(value) {
                Ok(Some(value)) => {
                    identity.headers.retain(|(name, _)| name != header);
                    identity.headers.push((header.clone(), value));
                }
                Ok(None) => {}
                Err(reason) => unmapped.push(Unmapped { claim: claim.clone(), reason }),
            }
        }
        (identity, unmapped)
    }
}

/// Longest value of a mapped header, encoded.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

fn encode(claim: &Value) -> Result<Option<HeaderValue>, UnmappedReason> {
    let mut text = String::new();
    let elements = match claim {
        Value::Array(elements) => elements.as_slice(),
        single => std::slice::from_ref(single),
    };
    let mut empty = true;
    for element in elements {
        if element.is_null() {
            continue;
        }
        if !empty {
            text.push(',');
        }
        empty = false;
        match element {
            Value::String(string) => push_encoded(&mut text, string),
            Value::Bool(boolean) => text.push_str(if *boolean { "true" } else { "false" }),
            Value::Number(number) => text.push_str(&plain(number)),
            Value::Array(_) | Value::Object(_) | Value::Null => return Err(UnmappedReason::Structured),
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(UnmappedReason::TooLong);
        }
    }
    if empty {
        return Ok(None);
    }
    // Only visible ASCII and inner spaces are left, so this can't fail.
    Ok(HeaderValue::try_from(text).ok())
}

/// Integers in plain decimal, also where the provider wrote `1.6e9`.
fn plain(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= MAX_EXACT_INTEGER => {
            (float as i64).to_string()
        }
        _ => number.to_string(),
    }
}

/// 2^53: floats up to here are the integer that they print as.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Appends `value` so that it is one element and survives HTTP: `,`, `%`, controls and non-ASCII as `%XX`
/// of the UTF-8 bytes. So are spaces at its ends, which a recipient would trim (RFC 9110 section 5.5):
/// `admin ` and `admin` must not look the same to the application.
fn push_encoded(text: &mut String, value: &str) {
    let inner = value.trim_matches(' ');
    let start = value.len() - value.trim_start_matches(' ').len();
    for (index, byte) in value.bytes().enumerate() {
        let outer_space = byte == b' ' && (index < start || index >= start + inner.len());
        match byte {
            b',' | b'%' | 0..=0x1f | 0x7f.. => push_escape(text, byte),
            b' ' if outer_space => push_escape(text, byte),
            _ => text.push(char::from(byte)),
        }
        if text.len() > MAX_VALUE_BYTES {
            return; // refused by the caller
        }
    }
}

fn push_escape(text: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    for nibble in [byte >> 4, byte & 15] {
        text.push(HEX.get(usize::from(nibble)).copied().map_or('0', char::from));
    }
}

/// Headers that frame or route a message, or carry credentials that the rules of cookies cover.
/// What we set ourselves of the `X-Forwarded-*` family, and what would make an application judge another path.
const OWN_FORWARDED: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-uri",
];

const RESERVED: [&str; 5] = ["content-length", "cookie", "expect", "host", "set-cookie"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hdr_06_values_are_encoded_or_absent() {
        let long = "x".repeat(MAX_VALUE_BYTES);
        let longer = "x".repeat(MAX_VALUE_BYTES + 1);
        let cases = [
            (json!("alice"), Ok(Some("alice"))),
            (json!(""), Ok(Some(""))),
            (json!("a b;c=\"d\""), Ok(Some("a b;c=\"d\""))),
            (json!("Doe, Jane"), Ok(Some("Doe%2C Jane"))),
            (json!("100%"), Ok(Some("100%25"))),
            (json!("a\r\nX-Admin: 1"), Ok(Some("a%0D%0AX-Admin: 1"))),
            (json!("a\0b\tc\u{7f}"), Ok(Some("a%00b%09c%7F"))),
            (json!("Zoë"), Ok(Some("Zo%C3%AB"))),
            (json!("管"), Ok(Some("%E7%AE%A1"))),
            (json!(" admin "), Ok(Some("%20admin%20"))),
            (json!("  "), Ok(Some("%20%20"))),
            (json!(["staff", "a,b", " x"]), Ok(Some("staff,a%2Cb,%20x"))),
            (json!([1, true, null, "z"]), Ok(Some("1,true,z"))),
            (json!(["", ""]), Ok(Some(","))),
            (json!([""]), Ok(Some(""))),
            (json!([]), Ok(None)),
            (json!(null), Ok(None)),
            (json!(1_600_000_000), Ok(Some("1600000000"))),
            (json!(-5), Ok(Some("-5"))),
            (json!(1.6e9), Ok(Some("1600000000"))),
            (json!(-0.0), Ok(Some("0"))),
            (json!(1.5), Ok(Some("1.5"))),
            (json!(u64::MAX), Ok(Some("18446744073709551615"))),
            (json!(false), Ok(Some("false"))),
            (json!({"a": 1}), Err(UnmappedReason::Structured)),
            (json!([["a"]]), Err(UnmappedReason::Structured)),
            (json!(["a", {"b": 1}]), Err(UnmappedReason::Structured)),
            (json!(long), Ok(Some(long.as_str()))),
            (json!(longer), Err(UnmappedReason::TooLong)),
            (json!("é".repeat(4096)), Err(UnmappedReason::TooLong)),
        ];
        for (claim, expected) in cases {
            let encoded = encode(&claim);
            let text = encoded.as_ref().map(|v| v.as_ref().map(|v| v.to_str().unwrap()));
            assert_eq!(text, expected.as_ref().copied(), "{claim}");
        }
    }

    #[test]
    fn absent_claims_have_no_header_and_odd_ones_are_reported() {
        let claims =
            json!({"sub": "u1", "https://acme.com/a.b": ["x", "y"], "address": {"locality": "Paris"}});
        let mapping = |claim: &str, header| Mapping {
            claim: claim.to_owned(),
            header: HeaderName::from_static(header),
        };
        let mappings = [
            mapping("sub", "x-user"),
            mapping("https://acme.com/a.b", "x-ab"),
            mapping("nothing", "x-nothing"),
            mapping("address", "x-address"),
        ];
        let (identity, unmapped) = Identity::from_claims(claims.as_object().unwrap(), &mappings);
        let headers: Vec<_> =
            identity.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-user", "u1"), ("x-ab", "x,y")]);
        let reason = UnmappedReason::Structured;
        assert_eq!(unmapped, [Unmapped { claim: "address".to_owned(), reason }]);
    }

    #[test]
    fn a_mapping_may_not_take_a_header_that_is_not_the_applications() {
        for name in ["host", "content-length", "cookie", "connection", "transfer-encoding", "x-forwarded-for"]
        {
            assert!(Mapping::refusal(&HeaderName::from_static(name)).is_some(), "{name}");
        }
        for name in ["forwarded", "x-request-id", "x_forwarded_for", "content_length", "x-real-ip"] {
            assert!(Mapping::refusal(&HeaderName::from_static(name)).is_some(), "{name}");
        }
        for name in
            ["x-user", "x_user", "remote-user", "authorization", "x-forwarded-user", "x-forwarded-email"]
        {
            assert_eq!(Mapping::refusal(&HeaderName::from_static(name)), None, "{name}");
        }
    }
}
