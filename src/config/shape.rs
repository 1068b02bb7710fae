//! The shape of the file against the schema: expands and types every scalar, and finds every unknown, missing or
//! mistyped key at once. What is wrong is left out of the result, so that the rest can still be judged.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use serde_yaml::{Mapping, Value};

use super::document::{Content, Entry, Node, Scalar, join};
use super::env::{Environment, expand, has_variable};
use super::error::{Mistake, Place, is_near, nearest};
use super::origins::{Origin, Origins};
use super::problem::Problem;
use super::typed::{expected, shown, typed};
use super::{later, schema};

/// Where the walk is: in the result, and in the operator's file.
#[derive(Clone)]
struct Path {
    out: String,
    shown: String,
}

impl Path {
    fn key(&self, key: &str) -> Self {
        Self { out: join(&self.out, key), shown: join(&self.shown, key) }
    }

    fn item(&self, out: usize, shown: usize) -> Self {
        Self { out: format!("{}[{out}]", self.out), shown: format!("{}[{shown}]", self.shown) }
    }
}

/// The walk over all files of a configuration.
pub(super) struct Shape<'e> {
    environment: &'e Environment,
    result: Mapping,
    sections: HashMap<String, Place>,
    origins: Origins,
    mistakes: Vec<Mistake>,
}

impl<'e> Shape<'e> {
    /// Starts with nothing.
    pub fn new(environment: &'e Environment) -> Self {
        Self {
            environment,
            result: Mapping::new(),
            sections: HashMap::new(),
            origins: Origins::default(),
            mistakes: Vec::new(),
        }
    }

    /// Takes in one file. Lists are appended to those of the files before; any other section may be in one only.
    pub fn add(&mut self, root: &Node) {
        let path = Path { out: String::new(), shown: String::new() };
        let Content::Map(entries) = &root.content else {
            self.mistake(&root.place, "", wrong_type(schema::parsed(), root));
            return;
        };
        let Some(known) = schema::properties(schema::parsed()) else { return };
        self.origins.known.entry(String::new()).or_insert_with(|| Origin {
            place: root.place.clone(),
            key: String::new(),
            shown: None,
            by_variable: false,
        });
        for entry in entries {
            let Some((section, path)) = self.known_key(entry, known, &path) else { continue };
            let is_list = schema::types(section).any(|kind| kind == "array");
            match self.sections.get(&entry.key) {
                Some(first) if !is_list => {
                    let first = first.clone();
                    self.mistake(&entry.place, &path.shown, Problem::DuplicateSection { first });
                    continue;
                }
                Some(_) => {}
                None => {
                    self.sections.insert(entry.key.clone(), entry.place.clone());
                }
            }
            let before = match self.result.get_mut(entry.key.as_str()) {
                Some(Value::Sequence(items)) => std::mem::take(items),
                _ => Vec::new(),
            };
            let value = match self.section(&entry.value, section, &path, before) {
                Some(value) => value,
                None if is_list => Value::Sequence(Vec::new()),
                None => continue,
            };
            self.result.insert(entry.key.as_str().into(), value);
        }
    }

    /// The result, once all files are in. Missing sections count only if all files could be read.
    pub fn finish(mut self, all_there: bool) -> (Value, Origins, Vec<Mistake>) {
        if let (true, Some(root)) = (all_there, self.origins.get("").cloned()) {
            let path = Path { out: String::new(), shown: String::new() };
            let present = |key: &str| self.sections.contains_key(key);
            let missing = missing(schema::parsed(), present, &self.origins, &path);
            self.report_missing(missing, &root.place);
        }
        (Value::Mapping(self.result), self.origins, self.mistakes)
    }

    /// A top-level section, whose list may go on from `before`.
    fn section(
        &mut self,
        node: &Node,
        schema: &Map<String, Json>,
        path: &Path,
        before: Vec<Value>,
    ) -> Option<Value> {
        match (&node.content, schema.get("items")) {
            (Content::List(nodes), Some(Json::Object(items))) => {
                self.remember(node, schema, path, None);
                Some(self.list(nodes, items, path, before))
            }
            (_, Some(_)) if !before.is_empty() => {
                self.mistake(&node.place, &path.shown, wrong_type(schema, node));
                Some(Value::Sequence(before))
            }
            _ => self.value(node, schema, path),
        }
    }

    fn value(&mut self, node: &Node, schema: &Map<String, Json>, path: &Path) -> Option<Value> {
        if schema.contains_key("x-ignored") {
            return Some(Value::Null);
        }
        let kinds: Vec<&str> = schema::types(schema).collect();
        let value = match &node.content {
            Content::Scalar(scalar) => self.scalar(node, scalar, schema, path),
            Content::List(nodes) if kinds.contains(&"array") => {
                self.remember(node, schema, path, None);
                let items = schema.get("items").and_then(Json::as_object)?;
                Some(self.list(nodes, items, path, Vec::new()))
            }
            Content::Map(entries) if kinds.contains(&"object") => {
                self.remember(node, schema, path, None);
                Some(self.map(node, entries, schema, path))
            }
            _ => {
                self.mistake(&node.place, &path.shown, wrong_type(schema, node));
                None
            }
        };
        if value.is_none() {
            self.origins.pruned.insert(path.out.clone());
        }
        value
    }

    fn list(
        &mut self,
        nodes: &[Node],
        items: &Map<String, Json>,
        path: &Path,
        mut values: Vec<Value>,
    ) -> Value {
        for (index, node) in nodes.iter().enumerate() {
            let item = path.item(values.len(), index);
            match self.value(node, items, &item) {
                Some(value) => values.push(value),
                None => {
                    // The next one takes this one's place in the result: what is wrong is the list.
                    self.origins.pruned.remove(&item.out);
                    self.origins.known.remove(&item.out);
                    self.origins.incomplete.insert(path.out.clone());
                }
            }
        }
        Value::Sequence(values)
    }

    fn map(&mut self, node: &Node, entries: &[Entry], schema: &Map<String, Json>, path: &Path) -> Value {
        let mut values = Mapping::new();
        let Some(known) = schema::properties(schema) else {
            let free = Map::new();
            let free = schema.get("additionalProperties").and_then(Json::as_object).unwrap_or(&free);
            for entry in entries {
                if let Some(value) = self.value(&entry.value, free, &path.key(&entry.key)) {
                    values.insert(entry.key.as_str().into(), value);
                }
            }
            return Value::Mapping(values);
        };
        for entry in entries {
            let Some((below, path)) = self.known_key(entry, known, path) else { continue };
            if let Some(value) = self.value(&entry.value, below, &path) {
                values.insert(entry.key.as_str().into(), value);
            }
        }
        let present = |key: &str| entries.iter().any(|entry| entry.key == key);
        let missing = missing(schema, present, &self.origins, path);
        self.report_missing(missing, &node.place);
        Value::Mapping(values)
    }

    /// The schema of a key, or a report that there is none.
    fn known_key<'s>(
        &mut self,
        entry: &Entry,
        known: &'s Map<String, Json>,
        path: &Path,
    ) -> Option<(&'s Map<String, Json>, Path)> {
        let path_below = path.key(&entry.key);
        if let Some(Json::Object(schema)) = known.get(&entry.key) {
            return Some((schema, path_below));
        }
        let problem = if later::is_later_key(&path_below.shown) {
            Problem::NotSupportedKey
        } else if has_variable(&entry.key) {
            Problem::VariableInKey
        } else {
            let near = nearest(&entry.key, known.keys().map(String::as_str)).unwrap_or_default();
            if is_near(&entry.key, near) {
                // Then that one isn't missing.
                self.origins.pruned.insert(path.key(near).out);
            }
            Problem::UnknownKey { nearest: near.to_owned(), elsewhere: elsewhere(&entry.key) }
        };
        self.mistake(&entry.place, &path_below.shown, problem);
        None
    }

    fn report_missing(&mut self, missing: Vec<(Path, String)>, place: &Place) {
        for (path, what) in missing {
            self.mistake(place, &path.shown, Problem::Missing { what });
            self.origins.pruned.insert(path.out);
        }
    }

    fn scalar(
        &mut self,
        node: &Node,
        scalar: &Scalar,
        schema: &Map<String, Json>,
        path: &Path,
    ) -> Option<Value> {
        let expanded = match expand(&scalar.text, self.environment) {
            Ok(expanded) => expanded,
            Err(problems) => {
                for problem in problems {
                    self.mistake(&node.place, &path.shown, problem);
                }
                return None;
            }
        };
        self.remember(node, schema, path, Some((scalar, expanded.by_variable)));
        let shown = shown(scalar, schema);
        match typed(scalar, &expanded, schema, &shown, &path.shown) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(&node.place, &path.shown, problem);
                None
            }
        }
    }

    fn remember(
        &mut self,
        node: &Node,
        schema: &Map<String, Json>,
        path: &Path,
        scalar: Option<(&Scalar, bool)>,
    ) {
        let origin = Origin {
            place: node.place.clone(),
            key: path.shown.clone(),
            shown: scalar.map(|(scalar, _)| shown(scalar, schema)),
            by_variable: scalar.is_some_and(|(_, by_variable)| by_variable),
        };
        self.origins.known.insert(path.out.clone(), origin);
    }

    fn mistake(&mut self, place: &Place, key: &str, problem: Problem) {
        self.mistakes.push(Mistake { place: place.clone(), key: key.to_owned(), problem });
    }
}

/// The required keys that are absent, each with what it is for.
fn missing(
    schema: &Map<String, Json>,
    present: impl Fn(&str) -> bool,
    origins: &Origins,
    path: &Path,
) -> Vec<(Path, String)> {
    let known = schema::properties(schema);
    schema::strings(schema.get("required"))
        .filter(|key| !present(key))
        .map(|key| (key, path.key(key)))
        .filter(|(_, path)| !origins.is_pruned(&path.out))
        .map(|(key, path)| {
            let what = known.and_then(|known| known.get(key)?.get("description")?.as_str());
            (path, first_sentence(what.unwrap_or_default()).to_owned())
        })
        .collect()
}

/// The first sentence of a description, without its full stop.
fn first_sentence(description: &str) -> &str {
    let sentence = description.split_once(". ").map_or(description, |(first, _)| first);
    sentence.split_once(": ").map_or(sentence, |(first, _)| first).trim_end_matches('.')
}

fn wrong_type(schema: &Map<String, Json>, node: &Node) -> Problem {
    let found = match node.content {
        Content::Scalar(_) => "a single value",
        Content::List(_) => "a list",
        Content::Map(_) => "a mapping",
    };
    Problem::WrongType { expected: expected(schema), found }
}

/// Where else the file may have this key, if there is exactly one place.
fn elsewhere(key: &str) -> Option<String> {
    fn search(schema: &Map<String, Json>, path: &str, key: &str, found: &mut Vec<String>) {
        if let Some(Json::Object(items)) = schema.get("items") {
            search(items, path, key, found);
        }
        for (name, below) in schema::properties(schema).into_iter().flatten() {
            let Json::Object(below) = below else { continue };
            if name == key && !below.contains_key("x-ignored") {
                found.push(path.to_owned());
            }
            search(below, &join(path, name), key, found);
        }
    }
    let mut found = Vec::new();
    search(schema::parsed(), "", key, &mut found);
    match found.as_slice() {
        [] => None,
        [only] if only.is_empty() => Some("the top level".to_owned()),
        [only, ..] => Some(format!("`{only}`")),
    }
}
