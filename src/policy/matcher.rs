//! Which rule a request falls under: a tree of segments that is walked once, from the left.
//!
//! At each segment a literal is more specific than `?`, and `?` than `*`; where the path ends, the end of a
//! pattern is more specific than an empty `?`, and that than an empty `*`. All places in the tree that the path
//! so far may have led to are kept, each with its rank among them, so nothing is ever walked twice: the cost is
//! the length of the path times the number of overlapping wildcards. The order of declarations plays no part.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;
use smallvec::SmallVec;

use crate::path::{NormalPath, decode};

/// All patterns of a policy.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

/// A place in a pattern: the segments up to here.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    one: Option<usize>,
    several: Option<usize>,
    /// Whether this place is within a `*`, which may take further segments.
    is_several: bool,
    /// The segments up to here, to choose between patterns of equal rank (`/*` and `/*/*`).
    pattern: Vec<Segment>,
    /// Rules whose pattern ends here: a short list of methods and places in the policy's rules.
    ends: Vec<(Box<str>, usize)>,
}

/// The segments of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Segment {
    /// These bytes, percent-decoded.
    Literal(Box<str>),
    /// `?`
    One,
    /// `*`
    Several,
}

/// The path can be read in two ways, and the rules differ: whichever was judged, an application might serve the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// With and without the parameters of a segment (`;x=1`).
    #[error("the path has parameters (`;`), and the rules differ with and without them")]
    Parameters,
    /// With an encoded slash within a segment and between two, for which a rule says more.
    #[error("the path has an encoded slash, and another rule is more specific about what it decodes to")]
    Slashes,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    /// Adds a rule; gives the one that has the same pattern and method already, if any.
    pub(super) fn insert(&mut self, pattern: &[Segment], method: &str, rule: usize) -> Option<usize> {
        let mut place = 0;
        for segment in pattern {
            place = self.child(place, segment);
        }
        let ends = &mut self.nodes.get_mut(place)?.ends;
        if let Some((_, twin)) = ends.iter().find(|(known, _)| known.as_ref() == method) {
            return Some(*twin);
        }
        ends.push((method.into(), rule));
        None
    }

    fn child(&mut self, place: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(place) else { return place };
        let child = match segment {
            Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(next),
            Segment::One => *node.one.get_or_insert(next),
            Segment::Several => *node.several.get_or_insert(next),
        };
        if child == next {
            let mut pattern = node.pattern.clone();
            pattern.push(segment.clone());
            self.nodes.push(Node { is_several: *segment == Segment::Several, pattern, ..Node::default() });
        }
        child
    }

    /// The rule for a method and path.
    pub(super) fn find(&self, method: &Method, path: &NormalPath, reading: Reading) -> Option<Found<'_>> {
        let segments = path.segments().map(decode);
        match reading {
            Reading::AsSent => self.walk(method, segments),
            Reading::WithoutParameters => {
                self.walk(method, segments.map(|name| Some(without_parameters(&name?).to_owned().into())))
            }
            Reading::Decoded { parameters } => {
                let names = segments.flatten().flat_map(|name| {
                    let parts = name.split(['/', '\\']);
                    let read = |part| if parameters { part } else { without_parameters(part) };
                    parts.map(|part| Some(read(part).to_owned().into())).collect::<Vec<_>>()
                });
                self.walk(method, names)
            }
        }
    }

    fn walk<'n>(
        &self,
        method: &Method,
        names: impl Iterator<Item = Option<Cow<'n, str>>>,
    ) -> Option<Found<'_>> {
        let mut states: States = SmallVec::new();
        states.push(State { place: 0, rank: 0 });
        let mut next: States = SmallVec::new();
        for name in names {
            next.clear();
            let name = name?;
            for state in &states {
                self.step(*state, &name, &mut next);
            }
            if next.is_empty() {
                return None;
            }
            renumber(&mut next);
            std::mem::swap(&mut states, &mut next);
        }
        self.best_end(method, &states)
    }

    /// Where one segment leads from a state.
    fn step(&self, state: State, name: &str, next: &mut States) {
        let Some(node) = self.nodes.get(state.place) else { return };
        let mut push = |place, class| reach(next, State { place, rank: state.rank * CLASSES + class });
        if !node.literals.is_empty()
            && let Some(child) = node.literals.get(name)
        {
            push(*child, LITERAL);
        }
        if let Some(child) = node.one {
            push(child, ONE);
        }
        if let Some(child) = node.several {
            push(child, SEVERAL);
        }
        if node.is_several {
            push(state.place, SEVERAL);
        }
    }

    /// The most specific rule that ends where the path ends.
    fn best_end(&self, method: &Method, states: &States) -> Option<Found<'_>> {
        let mut best: Option<(usize, &Node, usize)> = None;
        for state in states {
            let Some(node) = self.nodes.get(state.place) else { continue };
            let child = |child: Option<usize>| child.and_then(|child| self.nodes.get(child));
            let ends = [(Some(node), END), (child(node.one), ONE), (child(node.several), SEVERAL)];
            for (end, class) in ends {
                let Some((end, rule)) = end.and_then(|end| Some((end, end.rule(method)?))) else { continue };
                let rank = state.rank * CLASSES + class;
                // The longer pattern says more.
                let better = best.is_none_or(|(known, other, _)| {
                    rank.cmp(&known)
                        .then(other.pattern.len().cmp(&end.pattern.len()))
                        .then_with(|| end.pattern.cmp(&other.pattern))
                        .is_lt()
                });
                if better {
                    best = Some((rank, end, rule));
                }
            }
        }
        best.map(|(_, node, rule)| Found { rule, pattern: &node.pattern })
    }
}

impl Node {
    /// The rule that ends here for this method: its own, or for HEAD that of GET, then one for all methods.
    fn rule(&self, method: &Method) -> Option<usize> {
        let named =
            |name: &str| self.ends.iter().find(|(method, _)| method.as_ref() == name).map(|(_, rule)| *rule);
        let get = || if method == Method::HEAD { named("GET") } else { None };
        named(method.as_str()).or_else(get).or_else(|| named("*"))
    }
}

/// A place that the path so far may have led to, and how specific the way there was: smaller is more specific.
#[derive(Clone, Copy, Debug)]
struct State {
    place: usize,
    rank: usize,
}

/// Ordinary rules have a few places at once, which need no allocation.
type States = SmallVec<[State; 8]>;

/// Adds a state; of two ways to one place the more specific stays.
fn reach(states: &mut States, new: State) {
    match states.iter_mut().find(|known| known.place == new.place) {
        Some(known) => known.rank = known.rank.min(new.rank),
        None => states.push(new),
    }
}

/// Numbers the ranks anew from 0, keeping their order, so that they stay small however long the path is.
fn renumber(states: &mut States) {
    states.sort_unstable_by_key(|state| state.rank);
    let (mut old, mut new) = (None, 0);
    for state in states {
        if old.is_some_and(|old| old != state.rank) {
            new += 1;
        }
        old = Some(state.rank);
        state.rank = new;
    }
}

/// How segments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As they are: `;` and an encoded slash are part of their names.
    AsSent,
    /// `;` begins parameters that do not belong to the name.
    WithoutParameters,
    /// An encoded slash or backslash separates segments.
    Decoded {
        /// Whether parameters belong to the name.
        parameters: bool,
    },
}

/// A rule by its place, and its pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'t> {
    pub(super) rule: usize,
    pattern: &'t [Segment],
}

impl Found<'_> {
    /// Whether this pattern says more than another about a path that both match, each in its reading: at the first
    /// difference in kind, as in the walk. Another literal there was written for that reading.
    pub(super) fn says_more_than(&self, other: &Self) -> bool {
        for (ours, theirs) in self.pattern.iter().zip(other.pattern) {
            match (ours, theirs) {
                (Segment::Literal(ours), Segment::Literal(theirs)) if ours != theirs => return false,
                _ if ours != theirs => return ours < theirs,
                _ => {}
            }
        }
        self.pattern.len() > other.pattern.len()
    }
}

fn without_parameters(name: &str) -> &str {
    name.split(';').next().unwrap_or_default()
}

const LITERAL: usize = 0;
const ONE: usize = 1;
const SEVERAL: usize = 2;
/// Where the path ends: the pattern ends too.
const END: usize = 0;
const CLASSES: usize = 3;
