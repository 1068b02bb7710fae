use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::{raw, raw_service, schema};
use super::schema as editors;

/// A value that the schema allows, as YAML.
fn sample(schema: &Map<String, Value>) -> Value {
    if let Some((choice, _)) = schema::choices(schema).first() {
        return (*choice).into();
    }
    let minimum = schema.get("x-minimum").or(schema.get("x-maximum"));
    match (schema::types(schema).next(), schema.get("format").and_then(Value::as_str)) {
        (_, Some("time-span")) => minimum.cloned().unwrap_or("1h".into()),
        (_, Some("size")) => minimum.cloned().unwrap_or("1KiB".into()),
        (Some("integer"), _) => schema.get("minimum").cloned().unwrap_or(1.into()),
        (Some("boolean"), _) => true.into(),
        (Some("array"), _) => json!([sample(schema["items"].as_object().unwrap())]),
        (Some("object"), _) => match schema::properties(schema) {
            Some(keys) => keys
                .iter()
                .map(|(key, below)| (key.clone(), sample(below.as_object().unwrap())))
                .collect::<Map<_, _>>()
                .into(),
            None => json!({ "name": "value" }),
        },
        (Some("string"), _) => "text".into(),
        _ => json!({ "anything": ["at all"] }),
    }
}

/// Every key that the schema has is one that the parser takes, with a value that the schema allows.
#[test]
fn the_parser_takes_what_the_schema_has() {
    let everything = sample(schema::parsed());
    let yaml = serde_yaml::to_string(&everything).unwrap();
    let mut mistakes = Vec::new();
    let root = super::super::document::parse(&"f.yaml".into(), 0, &yaml, &mut mistakes).unwrap();
    let environment = super::Environment::default();
    let mut shape = super::super::shape::Shape::new(&environment);
    shape.add(&root);
    let (value, _, found) = shape.finish(true);
    mistakes.extend(found);
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    let file: raw::File = serde_yaml::from_value(value).unwrap();
    // Nothing was dropped on the way: what the schema has is what the mirror shows, bar what is ignored.
    let shown = serde_json::to_value(&file).unwrap();
    assert_eq!(keys_of(&shown), keys_of_schema(schema::parsed()));
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, below) in map.iter().filter(|(_, below)| !below.is_null()) {
                    let path = format!("{path}.{key}");
                    if !path.contains("OIDCAuthorizationParameters.") {
                        found.insert(path.clone());
                        walk(below, &path, found);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

fn keys_of_schema(schema: &Map<String, Value>) -> BTreeSet<String> {
    fn walk(schema: &Map<String, Value>, path: &str, found: &mut BTreeSet<String>) {
        if let Some(items) = schema.get("items").and_then(Value::as_object) {
            walk(items, path, found);
        }
        for (key, below) in schema::properties(schema).into_iter().flatten() {
            let below = below.as_object().unwrap();
            if !below.contains_key("x-ignored") {
                let path = format!("{path}.{key}");
                found.insert(path.clone());
                walk(below, &path, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(schema, "", &mut found);
    found
}

/// The keys that serde itself would take, from the message about one that it doesn't.
fn keys_of_parser<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_yaml::from_str::<T>("\"\\u0001\": x").err().unwrap().to_string();
    let expected = error.split_once("expected one of ").or(error.split_once("expected ")).unwrap().1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every key that the parser takes is in the schema.
#[test]
fn the_schema_has_what_the_parser_takes() {
    let at = |path: &[&str]| {
        let mut schema = schema::parsed();
        for key in path {
            let below = schema::properties(schema).unwrap()[*key].as_object().unwrap();
            schema = below.get("items").and_then(Value::as_object).unwrap_or(below);
        }
        assert_eq!(schema.get("additionalProperties"), Some(&Value::Bool(false)), "{path:?}");
        schema::properties(schema).unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(keys_of_parser::<raw::File>(), at(&[]));
    assert_eq!(keys_of_parser::<raw::Session>(), at(&["session"]));
    assert_eq!(keys_of_parser::<raw::Admin>(), at(&["admin"]));
    assert_eq!(keys_of_parser::<raw::Log>(), at(&["log"]));
    assert_eq!(keys_of_parser::<raw::Limits>(), at(&["limits"]));
    assert_eq!(keys_of_parser::<raw_service::Service>(), at(&["services"]));
    let mapping = at(&["services", "claimsToHTTPHeaderMappings"]);
    assert_eq!(keys_of_parser::<raw_service::ClaimMapping>(), mapping);
    assert_eq!(keys_of_parser::<crate::config::raw_spec::HttpResourceSpec>(), at(&["httpResourceSpecs"]));
    assert_eq!(
        keys_of_parser::<crate::config::raw_spec::Endpoint>(),
        at(&["httpResourceSpecs", "endpoints"])
    );
}

/// What a later version will bring is in neither.
#[test]
fn the_schema_has_nothing_of_later_versions() {
    let text = editors().to_string();
    for later in ["JWT", "MTLS", "LetsEncrypt", "identityAssertion"] {
        assert!(!text.contains(later), "{later}");
    }
}

/// Editors must not mark `port: ${APP_PORT}`, and secrets must be known as such.
#[test]
fn the_schema_for_editors() {
    let schema = editors();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let service = &schema["properties"]["services"]["items"];
    assert_eq!(service["additionalProperties"], false);
    assert_eq!(service["required"], json!(["name", "exposedPort"]));
    let port = &service["properties"]["port"];
    assert_eq!(port["anyOf"][0], json!({ "type": "integer", "minimum": 1, "maximum": 65535 }));
    assert_eq!(port["anyOf"][1]["type"], "string");
    assert!(port["description"].is_string());
    assert_eq!(service["properties"]["mode"]["default"], "enforce");
    assert_eq!(service["properties"]["OIDCClientSecret"]["writeOnly"], true);
    assert!(!schema.to_string().contains("\"x-"));
    assert!(!schema.to_string().contains("null"));
    for section in ["services", "httpResourceSpecs", "session", "admin", "log", "limits", "stateDirectory"] {
        assert!(schema["properties"][section]["description"].is_string(), "{section}");
    }
}
