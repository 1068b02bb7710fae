//! The reference of the configuration, `docs/configuration.md`, made from the same types as the schema. A test
//! holds the file to it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema;

/// The reference as Markdown.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, schema::parsed(), "", "Top level");
    text
}

/// One mapping as a table of its keys, then the mappings inside it.
fn section(text: &mut String, schema: &Map<String, Value>, path: &str, title: &str) {
    // Writing to a String can't fail.
    let _ = write!(text, "\n## {title}\n");
    if let Some(description) = description(schema).filter(|_| !path.is_empty()) {
        let _ = write!(text, "\n{description}\n");
    }
    let Some(keys) = schema::properties(schema) else { return };
    let required: Vec<&str> = schema::strings(schema.get("required")).collect();
    text.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    let mut ignored = Vec::new();
    for (key, below) in keys {
        let Some(below) = below.as_object() else { continue };
        if below.contains_key("x-ignored") {
            ignored.push(format!("`{key}`"));
            continue;
        }
        let default = match (required.contains(&key.as_str()), default(below)) {
            (true, _) => "**needed**".to_owned(),
            (false, Some(default)) => default,
            (false, None) => "-".to_owned(),
        };
        let meaning = meaning(below);
        let _ = writeln!(text, "| `{key}` | {} | {default} | {meaning} |", value(below));
    }
    if !ignored.is_empty() {
        let _ = write!(text, "\nAccepted from original files and ignored: {}.\n", ignored.join(", "));
    }
    for (key, below) in keys {
        let Some(below) = below.as_object() else { continue };
        let (below, suffix) = match below.get("items").and_then(Value::as_object) {
            Some(items) => (items, "[]"),
            None => (below, ""),
        };
        if schema::properties(below).is_some() {
            let path = super::document::join(path, &format!("{key}{suffix}"));
            section(text, below, &path, &format!("`{path}`"));
        }
    }
}

/// What a key means: its description, and that of each value of a closed set.
fn meaning(schema: &Map<String, Value>) -> String {
    let inner = schema.get("items").and_then(Value::as_object).unwrap_or(schema);
    let mut meaning = description(schema).unwrap_or_default();
    let described = schema::choices(inner).into_iter().filter(|(_, description)| !description.is_empty());
    for (choice, description) in described {
        let _ = write!(meaning, "<br>`{choice}`: {}", one_line(description));
    }
    meaning
}

/// What kind of value a key takes.
fn value(schema: &Map<String, Value>) -> String {
    let kind: Vec<&str> = schema::types(schema).collect();
    let bound = |keyword: &str| {
        schema.get(keyword).map(|bound| bound.as_str().map_or(bound.to_string(), str::to_owned))
    };
    let least = bound("x-minimum").or_else(|| bound("minimum"));
    let most = bound("x-maximum").or_else(|| bound("maximum"));
    let range = match (least, most) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) if least != "0" => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        _ => String::new(),
    };
    let choices = schema::choices(schema);
    let format = schema.get("format").and_then(Value::as_str);
    let items = schema.get("items").and_then(Value::as_object);
    let kind = match (kind.as_slice(), format) {
        _ if !choices.is_empty() => {
            choices.iter().map(|(choice, _)| format!("`{choice}`")).collect::<Vec<_>>().join(", ")
        }
        (["array"], _) => match items {
            Some(items) if schema::properties(items).is_some() => "list".to_owned(),
            Some(items) => format!("list of: {}", value(items)),
            None => "list".to_owned(),
        },
        (["object"], _) => "mapping".to_owned(),
        (["integer"], _) => "number".to_owned(),
        (["boolean"], _) => "`true`, `false`".to_owned(),
        (["string"], Some("time-span")) => "time".to_owned(),
        (["string"], Some("size")) => "size".to_owned(),
        (["string"], Some("pem")) => "PEM or path".to_owned(),
        (_, Some("time-span")) => "time, or seconds".to_owned(),
        _ => "text".to_owned(),
    };
    let secret = if schema.contains_key("writeOnly") { " (secret)" } else { "" };
    format!("{kind}{range}{secret}")
}

fn default(schema: &Map<String, Value>) -> Option<String> {
    match schema.get("default")? {
        // A section has its defaults in its own table.
        Value::Object(_) => None,
        Value::Array(items) if items.is_empty() => None,
        Value::String(text) => Some(format!("`{text}`")),
        other => Some(format!("`{other}`")),
    }
}

fn description(schema: &Map<String, Value>) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(one_line)
}

/// Text for a cell of a table.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', r"\|")
}

const INTRODUCTION: &str = r#"# Configuration

<!-- Made from the types in src/config. To make it anew: PORTCULLIS_WRITE_REFERENCE=1 cargo test --lib reference -->

`portcullis run -c FILE-or-DIR` reads one YAML file, or every `*.yaml` file of a directory in the order of their
names. `portcullis run` alone reads the built-in `config/portcullis.yaml`, which takes everything from the
environment. `portcullis check` tells what is wrong or missing, all at once, and `portcullis schema` prints the
JSON Schema for your editor. Tested examples are in `config/examples`.

- In a directory, the lists `services` and `httpResourceSpecs` of all files are appended; any other section may be
  in one file only.
- An unknown key is an error that names the nearest known one. So is a key that is there twice.
- `${NAME}` and `${NAME:-default}` in any value are taken from the environment after the YAML was read, so that a
  variable can't change its structure. The default also counts for a variable that is set to nothing. What was
  expanded is not expanded again. `$$` is a literal `$`; a `$` before anything but `{` or `$` is itself. A variable
  that is not set and has no default is an error. In flow lists write `["${NAME}"]`, with quotes. A value is typed
  after expansion: `port: ${APP_PORT}` is a number.
- Times are written `500ms`, `90s`, `15m`, `12h`, `1d`; sizes `512B`, `64KiB`, `1MiB`.
- Relative paths count from the directory of the file that names them.
- *PEM or path* is a PEM text in the file itself, or the path of a PEM file. Files of certificates, keys and secrets
  are read again when they change. One trailing newline of a secret's file doesn't count.
- A key and the same key with `File` at its end exclude each other.
- What protects is never accepted and ignored: a key that can't be enforced in its place is an error, and what a later
  version will bring is refused with "not supported in this version".
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

    #[test]
    fn the_reference_is_up_to_date() {
        if std::env::var_os("PORTCULLIS_WRITE_REFERENCE").is_some() {
            std::fs::write(PATH, reference()).unwrap();
        }
        let written = std::fs::read_to_string(PATH).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/configuration.md is not what the types say; run\n  PORTCULLIS_WRITE_REFERENCE=1 cargo test --lib reference"
        );
    }

    #[test]
    fn every_key_is_in_the_reference() {
        fn keys(schema: &Map<String, Value>, found: &mut Vec<String>) {
            for (key, below) in schema::properties(schema).into_iter().flatten() {
                found.push(key.clone());
                keys(below.as_object().unwrap(), found);
            }
            if let Some(items) = schema.get("items").and_then(Value::as_object) {
                keys(items, found);
            }
        }
        let (mut found, text) = (Vec::new(), reference());
        keys(schema::parsed(), &mut found);
        assert!(found.len() > 80);
        for key in found {
            assert!(text.contains(&format!("`{key}`")), "{key}");
        }
    }
}
