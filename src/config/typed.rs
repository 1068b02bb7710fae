//! A scalar as what the schema asks for. Knows no key by name.

use serde_json::{Map, Value as Json};
use serde_yaml::Value;

use super::document::Scalar;
use super::env::Expanded;
use super::error::{Shown, is_near, nearest};
use super::problem::Problem;
use super::{later, schema, unit};

/// A scalar as a message may quote it.
pub(super) fn shown(scalar: &Scalar, schema: &Map<String, Json>) -> Shown {
    if schema.contains_key("writeOnly") { Shown::secret() } else { Shown::new(&scalar.text) }
}

/// An expanded scalar as what the schema asks for.
pub(super) fn typed(
    scalar: &Scalar,
    expanded: &Expanded,
    schema: &Map<String, Json>,
    shown: &Shown,
    path: &str,
) -> Result<Value, Problem> {
    let text = expanded.text.as_str();
    if scalar.plain && !expanded.by_variable && is_null(text) {
        return Err(Problem::NoValue);
    }
    let kinds: Vec<&str> = schema::types(schema).collect();
    // What came by a variable is typed by its text even inside quotes, which flow lists need.
    let untyped = scalar.plain || expanded.by_variable;
    if kinds.contains(&"integer") && untyped && is_number(text) {
        let number = in_range(text, schema, shown)?;
        return Ok(if kinds.contains(&"string") { format!("{number}s").into() } else { number.into() });
    }
    if kinds.contains(&"boolean") && untyped {
        match text {
            "true" | "True" | "TRUE" => return Ok(true.into()),
            "false" | "False" | "FALSE" => return Ok(false.into()),
            _ => {}
        }
    }
    if kinds.contains(&"string") {
        return string(text, expanded.by_variable, schema, shown, path).map(Value::from);
    }
    let is_inner_list = path.ends_with(']') && kinds.contains(&"array");
    Err(Problem::WrongValue {
        shown: shown.clone(),
        expected: if is_inner_list { "a list of its own (it begins with `- -`)" } else { expected(schema) },
        unquote: !untyped && (is_number(text) || matches!(text, "true" | "false")),
    })
}

fn string(
    text: &str,
    by_variable: bool,
    schema: &Map<String, Json>,
    shown: &Shown,
    path: &str,
) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty { by_variable });
    }
    let wrong = || Problem::WrongValue { shown: shown.clone(), expected: expected(schema), unquote: false };
    let choices = schema::choices(schema);
    if !choices.is_empty() && !choices.iter().any(|(choice, _)| *choice == text) {
        if later::is_later_value(path, text) {
            return Err(Problem::NotSupportedValue { shown: shown.clone() });
        }
        let allowed: Vec<String> = choices.iter().map(|(choice, _)| (*choice).to_owned()).collect();
        let near = nearest(text, allowed.iter().map(String::as_str));
        // A suggestion would tell what a variable's value is like.
        let near = near.filter(|near| !by_variable && is_near(text, near)).map(str::to_owned);
        return Err(Problem::NotOneOf { shown: shown.clone(), allowed, nearest: near });
    }
    match schema.get("format").and_then(Json::as_str) {
        Some("time-span") => {
            let length = unit::parse_duration(text).ok_or_else(wrong)?;
            bounded(length, schema, shown, unit::parse_duration)?;
        }
        Some("size") => {
            let size = unit::parse_size(text).ok_or_else(wrong)?;
            bounded(size, schema, shown, unit::parse_size)?;
        }
        Some("pem") => {}
        _ if text.chars().any(char::is_control) => return Err(Problem::ControlCharacter { by_variable }),
        _ => {}
    }
    Ok(text.to_owned())
}

fn in_range(digits: &str, schema: &Map<String, Json>, shown: &Shown) -> Result<u64, Problem> {
    let bound = |keyword| schema.get(keyword).and_then(Json::as_u64);
    let number = digits.parse::<u64>().ok();
    let (least, most) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(u32::MAX.into()));
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(number),
        None => Err(Problem::OutOfRange {
            shown: shown.clone(),
            least: least.to_string(),
            most: most.to_string(),
        }),
    }
}

/// Holds a length of time or a size to the bounds of its schema.
fn bounded<T: PartialOrd>(
    value: T,
    schema: &Map<String, Json>,
    shown: &Shown,
    read: fn(&str) -> Option<T>,
) -> Result<(), Problem> {
    let bound = |keyword| schema.get(keyword).and_then(Json::as_str);
    let (least, most) = (bound("x-minimum"), bound("x-maximum"));
    let too_little = least.and_then(read).is_some_and(|least| value < least);
    let too_much = most.and_then(read).is_some_and(|most| value > most);
    if too_little || too_much {
        let (least, most) = (least.unwrap_or("0").to_owned(), most.unwrap_or_default().to_owned());
        return Err(Problem::OutOfRange { shown: shown.clone(), least, most });
    }
    Ok(())
}

/// Decimal digits without a leading zero, which other readers of YAML take for octal.
fn is_number(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0'))
}

/// The nulls of the YAML core schema.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// What a schema asks for, in words.
pub(super) fn expected(schema: &Map<String, Json>) -> &'static str {
    let format = schema.get("format").and_then(Json::as_str);
    let nested = schema.get("items").and_then(Json::as_object);
    let nested = nested.is_some_and(|items| schema::types(items).any(|kind| kind == "array"));
    let kinds: Vec<&str> = schema::types(schema).collect();
    match (kinds.as_slice(), format) {
        (["array"], _) if nested => "a list of lists (each entry begins with `- -`)",
        (["array"], _) => "a list",
        (["object"], _) => "a mapping of keys to values",
        (["integer"], _) => "a whole number",
        (["boolean"], _) => "`true` or `false`",
        (["string"], Some("time-span")) => "a length of time such as 500ms, 90s, 15m, 12h or 1d",
        (["string"], Some("size")) => "a size such as 64KiB or 1MiB",
        (_, Some("time-span")) => "a length of time such as 365d, or a number of seconds",
        _ => "a single value",
    }
}
