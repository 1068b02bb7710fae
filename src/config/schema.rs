//! The JSON Schema of the configuration, made from the types of `raw`. Two forms: the one that the parser walks,
//! and the one for editors, in which any scalar may also be `${VARIABLE}`.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::raw;

/// The schema that the parser walks: no references, no nulls.
static PARSED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<raw::File>().to_value();
    tidy(&mut schema);
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
});

/// The schema that the parser walks.
pub(super) fn parsed() -> &'static Map<String, Value> {
    &PARSED
}

/// The schema for editors, as `portcullis schema` prints it.
pub fn schema() -> Value {
    let mut schema = Value::Object(PARSED.clone());
    allow_variables(&mut schema);
    schema
}

/// An `Option` here is a key that may be absent, never one that is null; numbers need no format; and a key that
/// must be there has no default.
fn tidy(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            map.remove("anyOf");
            for (keyword, value) in only {
                map.entry(keyword).or_insert(value);
            }
        }
    }
    if map.get("type").is_some_and(|kind| kind == "integer") {
        map.remove("format");
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Object(section)) = map.get_mut("default") {
        section.retain(|_, value| !value.is_null());
    }
    if let Some(Value::String(description)) = map.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let mut needed = Vec::new();
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (name, property) in properties {
            tidy(property);
            // The types have defaults for all keys, so that a mistake at one doesn't hide the others.
            if let Value::Object(property) = property
                && property.remove("x-needed").is_some()
            {
                property.remove("default");
                needed.push(Value::from(name.as_str()));
            }
        }
    }
    if !needed.is_empty() {
        map.insert("required".to_owned(), Value::Array(needed));
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            tidy(below);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("oneOf") {
        choices.iter_mut().for_each(tidy);
    }
}

/// A scalar that isn't any string may also be a string with a variable.
fn allow_variables(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(allow_variables);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            allow_variables(below);
        }
    }
    map.retain(|keyword, _| !keyword.starts_with("x-"));
    if map.get("format").is_some_and(|format| ["time-span", "size", "pem"].iter().any(|own| format == own)) {
        map.remove("format");
    }
    let is_scalar = ["string", "integer", "boolean"].iter().any(|kind| types(map).any(|own| own == *kind));
    let is_closed = ["enum", "oneOf", "pattern"].iter().any(|keyword| map.contains_key(*keyword));
    if (is_scalar || map.contains_key("oneOf")) && (is_closed || types(map).any(|kind| kind != "string")) {
        let mut outer = Map::new();
        for keyword in ["description", "default"] {
            if let Some(value) = map.remove(keyword) {
                outer.insert(keyword.to_owned(), value);
            }
        }
        let typed = Value::Object(std::mem::take(map));
        let variable = json!({ "type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}" });
        outer.insert("anyOf".to_owned(), json!([typed, variable]));
        *map = outer;
    }
}

/// The types that a schema allows.
pub(super) fn types(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Value::as_str);
    let several = strings(schema.get("type"));
    // A closed set of described values is a `oneOf`, whose members are strings.
    let described = schema.contains_key("oneOf").then_some("string");
    one.into_iter().chain(several).chain(described)
}

/// The values of a closed set, each with its description; empty if the set is open.
pub(super) fn choices(schema: &Map<String, Value>) -> Vec<(&str, &str)> {
    let mut choices: Vec<(&str, &str)> = strings(schema.get("enum")).map(|value| (value, "")).collect();
    for choice in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let description = choice.get("description").and_then(Value::as_str).unwrap_or_default();
        let listed = strings(choice.get("enum"));
        let values = choice.get("const").and_then(Value::as_str).into_iter().chain(listed);
        choices.extend(values.map(|value| (value, description)));
    }
    choices
}

/// The keys of a mapping; `None` if they are free.
pub(super) fn properties(schema: &Map<String, Value>) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// The members of a keyword that is a list of strings.
pub(super) fn strings(keyword: Option<&Value>) -> impl Iterator<Item = &str> {
    keyword.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
