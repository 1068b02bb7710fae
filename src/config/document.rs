//! The text of a file as a tree in which everything knows its place. Owns YAML syntax: duplicate keys, anchors
//! and merge keys, and bounds on depth and size. Knows no key by name.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::error::{Mistake, Place};
use super::problem::Problem;

/// One value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar as the file has it, unexpanded and untyped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    pub text: String,
    /// Written without quotes, so that it may be something else than a string.
    pub plain: bool,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

/// Deepest nesting of a file.
const MAX_DEPTH: usize = 64;

/// Most values in a file, counting what aliases repeat.
const MAX_VALUES: usize = 2_000_000;

/// Parses one document. Mistakes that the parse survives go to `mistakes` too; `None` if there is no tree.
pub(super) fn parse(file: &Arc<str>, order: usize, text: &str, mistakes: &mut Vec<Mistake>) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        text,
        file,
        order,
        anchors: HashMap::new(),
        values: 0,
        mistakes,
    };
    match builder.document() {
        Ok(root) => root,
        Err(fatal) => {
            mistakes.push(*fatal);
            None
        }
    }
}

/// A mistake after which the parse can't go on.
type Fatal = Box<Mistake>;

/// What an alias repeats, and what that adds to the bounds.
struct Anchored {
    node: Node,
    values: usize,
    height: usize,
}

struct Builder<'t, 'm> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    file: &'m Arc<str>,
    order: usize,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Option<Node>, Fatal> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::Nothing | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.fatal(span.start, "", Problem::SecondDocument));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, "", 0)?);
                }
                _ => {
                    return Err(self.fatal(span.start, "", Problem::Syntax("unexpected content".to_owned())));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, path: &str, depth: usize) -> Result<Node, Fatal> {
        if depth > MAX_DEPTH {
            return Err(self.fatal(span.start, path, Problem::TooDeep { most: MAX_DEPTH }));
        }
        self.count(1, span.start)?;
        let before = self.values;
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = self.tag(tag.as_deref(), &span, path);
                let plain = style == ScalarStyle::Plain && !quoted;
                (anchor, Content::Scalar(Scalar { text: text.into_owned(), plain }))
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), &span, path);
                (anchor, Content::List(self.list(path, depth)?))
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), &span, path);
                (anchor, Content::Map(self.map(path, depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, &span, path, depth),
            _ => return Err(self.fatal(span.start, path, Problem::Syntax("unexpected end".to_owned()))),
        };
        let node = Node { place: self.place(span.start), content };
        if anchor != 0 {
            let copy =
                Anchored { values: self.values - before + 1, height: height(&node), node: node.clone() };
            self.anchors.insert(anchor, copy);
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: &Span, path: &str, depth: usize) -> Result<Node, Fatal> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(self.fatal(span.start, path, Problem::AliasInsideItself));
        };
        if depth + anchored.height > MAX_DEPTH {
            return Err(self.fatal(span.start, path, Problem::TooDeep { most: MAX_DEPTH }));
        }
        let (node, values) = (anchored.node.clone(), anchored.values);
        self.count(values, span.start)?;
        Ok(node)
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Vec<Node>, Fatal> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(event, span, &path, depth + 1)?);
        }
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Vec<Entry>, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        let mut index: HashMap<String, Place> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = self.node(event, span, path, depth + 1)?;
            let (event, span) = self.next()?;
            let Content::Scalar(Scalar { text, .. }) = key.content else {
                self.mistake(key.place, path, Problem::ComplexKey);
                self.node(event, span, path, depth + 1)?;
                continue;
            };
            let path = join(path, &text);
            let value = self.node(event, span, &path, depth + 1)?;
            if plain && text == "<<" {
                self.merge(value, &path, &mut merged);
            } else if let Some(first) = index.get(&text) {
                let first = first.clone();
                self.mistake(key.place, &path, Problem::DuplicateKey { first });
            } else {
                index.insert(text.clone(), key.place.clone());
                entries.push(Entry { key: text, place: key.place, value });
            }
        }
        for entry in merged {
            if !index.contains_key(&entry.key) {
                index.insert(entry.key.clone(), entry.place.clone());
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// `<<: *alias` or `<<: [*one, *other]`: what the map itself has wins, and then the earlier one.
    fn merge(&mut self, value: Node, path: &str, merged: &mut Vec<Entry>) {
        match value.content {
            Content::Map(entries) => merged.extend(entries),
            Content::List(items) => {
                for item in items {
                    if matches!(item.content, Content::Map(_)) {
                        self.merge(item, path, merged);
                    } else {
                        self.mistake(item.place, path, Problem::BadMerge);
                    }
                }
            }
            Content::Scalar(_) => self.mistake(value.place, path, Problem::BadMerge),
        }
    }

    /// Whether the tag makes a scalar a string. Tags outside of the core schema have no meaning here.
    fn tag(&mut self, tag: Option<&Tag>, span: &Span, path: &str) -> bool {
        let Some(tag) = tag else { return false };
        let known = ["str", "int", "bool", "float", "null", "seq", "map"].contains(&tag.suffix.as_str());
        if !(known && tag.is_yaml_core_schema()) {
            let place = self.place(span.start);
            self.mistake(place, path, Problem::UnknownTag);
        }
        tag.suffix == "str"
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let problem = if self.is_variable(error.marker().index()) {
                    Problem::UnquotedVariable
                } else {
                    Problem::Syntax(error.info().to_owned())
                };
                Err(self.fatal(*error.marker(), "", problem))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Whether the character at `index` is the brace of `${`, which begins a mapping inside flow collections.
    fn is_variable(&self, index: usize) -> bool {
        let mut around = self.text.chars().skip(index.saturating_sub(1));
        around.next() == Some('$') && around.next() == Some('{')
    }

    fn count(&mut self, more: usize, at: Marker) -> Result<(), Fatal> {
        self.values = self.values.saturating_add(more);
        if self.values > MAX_VALUES {
            return Err(self.fatal(at, "", Problem::TooManyValues { most: MAX_VALUES }));
        }
        Ok(())
    }

    fn place(&self, at: Marker) -> Place {
        let line = at.line().max(1);
        Place { order: self.order, line, column: at.col() + 1, file: Arc::clone(self.file) }
    }

    fn mistake(&mut self, place: Place, key: &str, problem: Problem) {
        self.mistakes.push(Mistake { place, key: key.to_owned(), problem });
    }

    fn fatal(&self, at: Marker, key: &str, problem: Problem) -> Fatal {
        Box::new(Mistake { place: self.place(at), key: key.to_owned(), problem })
    }
}

/// Whether a document has nothing in it but comments.
pub(super) fn is_nothing(root: &Node) -> bool {
    matches!(&root.content, Content::Scalar(Scalar { text, plain: true }) if text.is_empty())
}

/// How many levels are below this node. Recurses no deeper than [`MAX_DEPTH`].
fn height(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) => 0,
        Content::List(items) => items.iter().map(height).max().map_or(0, |below| below + 1),
        Content::Map(entries) => entries.iter().map(|e| height(&e.value)).max().map_or(0, |below| below + 1),
    }
}

/// The path of `key` below `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let mut mistakes = Vec::new();
        let node = parse(&Arc::from("f.yaml"), 0, text, &mut mistakes);
        (node, mistakes.iter().map(ToString::to_string).collect())
    }

    /// The tree as the YAML library sees the same text, with every scalar a string.
    fn plain(node: &Node) -> serde_json::Value {
        match &node.content {
            Content::Scalar(scalar) => scalar.text.clone().into(),
            Content::List(items) => items.iter().map(plain).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|e| (e.key.clone(), plain(&e.value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    #[test]
    fn the_tree_is_what_the_yaml_library_reads() {
        for text in [
            "a: b\nc: [d, 'e', \"f\\n\"]\ng:\n- - h\n- i: j\n  k: l\n",
            "{a: {b: c}, d: []}",
            "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
            "# comment\n---\na: &x [b, c]\nd: *x\n",
            "a: 'it''s'\n\"quoted key\": x # comment\n",
            "a:\r\n  b: c\r\n",
        ] {
            let (node, mistakes) = read(text);
            assert!(mistakes.is_empty(), "{mistakes:?}");
            let library: serde_json::Value = serde_yaml::from_str(text).unwrap();
            assert_eq!(plain(&node.unwrap()), library, "{text}");
        }
    }

    #[test]
    fn places_count_from_one() {
        let (node, _) = read("a: b\nlist:\n  - x: 1\n    é: y\n");
        let Content::Map(entries) = node.unwrap().content else { panic!() };
        assert_eq!(entries[1].place.to_string(), "f.yaml:2:1");
        let Content::List(items) = &entries[1].value.content else { panic!() };
        assert_eq!(items[0].place.to_string(), "f.yaml:3:5");
        let Content::Map(inner) = &items[0].content else { panic!() };
        assert_eq!(inner[1].value.place.to_string(), "f.yaml:4:8");
    }

    #[test]
    fn merge_keys() {
        let (node, mistakes) = read("b: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\n");
        assert!(mistakes.is_empty());
        assert_eq!(plain(&node.unwrap())["c"], serde_json::json!({"y": "3", "x": "1"}));
    }

    #[test]
    fn mistakes_have_places() {
        for (text, expected) in [
            ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4:3: b.c: "),
            ("a: [1, 2\nb: 3\n", "f.yaml:2:"),
            ("a: 1\n---\nb: 2\n", "f.yaml:2:1: "),
            ("a: b: c\n", "f.yaml:1:"),
            ("a: !secret x\n", "f.yaml:1:"),
            ("? [a]\n: b\n", "f.yaml:1:3"),
            ("a: *nope\n", "f.yaml:1:4"),
            ("a: &a [*a]\n", "f.yaml:1:8"),
            ("a:\n\t- b\n", "f.yaml:2:"),
            ("<<: x\n", "f.yaml:1:5: <<: "),
        ] {
            let (_, mistakes) = read(text);
            assert_eq!(mistakes.len(), 1, "{text:?}: {mistakes:?}");
            assert!(mistakes[0].starts_with(expected), "{text:?}: {mistakes:?}");
        }
    }

    #[test]
    fn bombs_are_bounded() {
        let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            laughs.push_str(&format!("b{level}: &a{level} [{before}]\n"));
        }
        let mut tower = "a: &a0 x\n".to_owned();
        for level in 1..200 {
            tower.push_str(&format!("b{level}: &a{level} [*a{}]\n", level - 1));
        }
        for text in [laughs, tower, "[".repeat(100_000), "- ".repeat(1_000), "{a: ".repeat(5_000)] {
            let (node, mistakes) = read(&text);
            assert!(node.is_none() && mistakes.len() == 1, "{mistakes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z]|[-:?\\[\\]{},&*!|>'\"%@`# \n\t\r]|\\PC){0,80}") {
            let _ = read(&text);
        }
    }
}
