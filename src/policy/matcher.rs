//! Which rule a request falls under: a tree of segments that is walked once, from the left.
//!
//! At each segment a literal is more specific than `?`, and `?` than `*`; where the path ends, the end of a
//! pattern is more specific than an empty `?`, and that than an empty `*`. All places in the tree that the path
//! so far may have led to are kept, each with its rank among them, so nothing is ever walked twice: the cost is
//! the length of the path times the number of overlapping wildcards. The order of declarations plays no part.

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU32;

use foldhash::fast::RandomState;
use http::Method;
use smallvec::SmallVec;

use crate::path::{NormalPath, decode};

/// All patterns of a policy. What a walk touches is kept small and together, so that among very many rules it finds
/// most of it in the processor's caches: places are numbers, and so are names and methods once they are looked up.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The segments up to each node, to choose between patterns of equal rank (`/*` and `/*/*`).
    patterns: Vec<Vec<Segment>>,
    /// Every literal of a pattern. The hashes need not withstand an adversary: all names are from the configuration.
    names: HashMap<Box<str>, Name, RandomState>,
    /// Where a literal leads to, unless the node has it.
    literals: HashMap<(Place, Name), Place, RandomState>,
    /// What rules are for: methods, and `*`.
    methods: Vec<Box<str>>,
}

/// A node by its place in the tree.
type Place = u32;

/// A literal by its number.
type Name = u32;

/// A place in a pattern: the segments up to here.
#[derive(Debug, Default)]
struct Node {
    /// The root is nobody's child.
    one: Option<NonZeroU32>,
    several: Option<NonZeroU32>,
    /// The first of the literals. In nearly all nodes there is no other.
    literal: Option<(Name, Place)>,
    /// Whether there are others.
    has_more_literals: bool,
    /// Whether this place is within a `*`, which may take further segments.
    is_several: bool,
    /// Rules whose pattern ends here, by their methods' place in the tree's.
    ends: SmallVec<[(u16, u32); 2]>,
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
        Self {
            nodes: vec![Node::default()],
            patterns: vec![Vec::new()],
            names: HashMap::default(),
            literals: HashMap::default(),
            methods: Vec::new(),
        }
    }
}

impl Tree {
    /// Adds a rule; gives the one that has the same pattern and method already, if any.
    pub(super) fn insert(
        &mut self,
        pattern: &[Segment],
        method: &str,
        rule: usize,
    ) -> Result<Option<usize>, TooMany> {
        let mut place = 0;
        for segment in pattern {
            place = self.child(place, segment)?;
        }
        let verb = self.methods.iter().position(|known| known.as_ref() == method).unwrap_or_else(|| {
            self.methods.push(method.into());
            self.methods.len() - 1
        });
        let verb = u16::try_from(verb).map_err(|_| TooMany)?;
        let ends = &mut self.nodes.get_mut(place as usize).ok_or(TooMany)?.ends;
        if let Some((_, twin)) = ends.iter().find(|(known, _)| *known == verb) {
            return Ok(Some(*twin as usize));
        }
        ends.push((verb, u32::try_from(rule).map_err(|_| TooMany)?));
        Ok(None)
    }

    /// The node after `place` in a pattern. It is made if it is not there.
    fn child(&mut self, place: Place, segment: &Segment) -> Result<Place, TooMany> {
        let next = u32::try_from(self.nodes.len()).ok().and_then(NonZeroU32::new).ok_or(TooMany)?;
        let node = self.nodes.get_mut(place as usize).ok_or(TooMany)?;
        let child = match segment {
            Segment::Literal(text) => {
                let name = match self.names.get(text) {
                    Some(name) => *name,
                    None => {
                        let name = u32::try_from(self.names.len()).map_err(|_| TooMany)?;
                        *self.names.entry(text.clone()).or_insert(name)
                    }
                };
                match node.literal {
                    None => node.literal.insert((name, next.get())).1,
                    Some((first, child)) if first == name => child,
                    Some(_) => {
                        node.has_more_literals = true;
                        *self.literals.entry((place, name)).or_insert(next.get())
                    }
                }
            }
            Segment::One => node.one.get_or_insert(next).get(),
            Segment::Several => node.several.get_or_insert(next).get(),
        };
        if child == next.get() {
            let mut pattern = self.patterns.get(place as usize).cloned().unwrap_or_default();
            pattern.push(segment.clone());
            self.patterns.push(pattern);
            self.nodes.push(Node { is_several: *segment == Segment::Several, ..Node::default() });
        }
        Ok(child)
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
            let name = self.names.get(&*name?).copied();
            for state in &states {
                self.step(*state, name, &mut next);
            }
            match next.as_mut_slice() {
                [] => return None,
                // As `renumber` would have it.
                [only] => only.rank = 0,
                _ => renumber(&mut next),
            }
            std::mem::swap(&mut states, &mut next);
        }
        self.best_end(method, &states)
    }

    fn node(&self, place: Place) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    /// Where one segment leads from a state. `None`: no pattern has its name.
    fn step(&self, state: State, name: Option<Name>, next: &mut States) {
        let Some(node) = self.node(state.place) else { return };
        let mut push = |place, class| reach(next, State { place, rank: state.rank * CLASSES + class });
        if let Some(name) = name
            && let Some((first, child)) = node.literal
        {
            if first == name {
                push(child, LITERAL);
            } else if node.has_more_literals
                && let Some(child) = self.literals.get(&(state.place, name))
            {
                push(*child, LITERAL);
            }
        }
        if let Some(child) = node.one {
            push(child.get(), ONE);
        }
        if let Some(child) = node.several {
            push(child.get(), SEVERAL);
        }
        if node.is_several {
            push(state.place, SEVERAL);
        }
    }

    /// The most specific rule that ends where the path ends.
    fn best_end(&self, method: &Method, states: &States) -> Option<Found<'_>> {
        let verbs = self.verbs(method);
        let mut best: Option<(usize, Found<'_>)> = None;
        for state in states {
            let Some(node) = self.node(state.place) else { continue };
            let ends = [
                (Some(state.place), END),
                (node.one.map(NonZeroU32::get), ONE),
                (node.several.map(NonZeroU32::get), SEVERAL),
            ];
            for (end, class) in ends {
                let Some(place) = end else { continue };
                let Some(rule) = self.node(place).and_then(|end| end.rule(verbs)) else { continue };
                let found = Found { rule, place, tree: self };
                let rank = state.rank * CLASSES + class;
                // The longer pattern says more.
                let better = best.is_none_or(|(known, other)| {
                    rank.cmp(&known)
                        .then_with(|| other.pattern().len().cmp(&found.pattern().len()))
                        .then_with(|| found.pattern().cmp(other.pattern()))
                        .is_lt()
                });
                if better {
                    best = Some((rank, found));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// Which methods of rules a request may fall under, the best first: its own, for HEAD then GET, and all. A method
    /// in lower case is not among all: names are case-sensitive (RFC 9110 section 9.1), but many an application takes
    /// `get` for GET, for which there may be another rule.
    fn verbs(&self, method: &Method) -> [Option<u16>; 3] {
        let verb = |name: &str| {
            self.methods.iter().zip(0..).find(|(known, _)| known.as_ref() == name).map(|(_, verb)| verb)
        };
        let name = method.as_str();
        let is_upper = !name.bytes().any(|byte| byte.is_ascii_lowercase());
        [
            verb(name),
            if method == Method::HEAD { verb("GET") } else { None },
            if is_upper { verb("*") } else { None },
        ]
    }
}

impl Node {
    /// The rule that ends here for the first of these methods that has one.
    fn rule(&self, verbs: [Option<u16>; 3]) -> Option<usize> {
        let named = |verb: Option<u16>| {
            let verb = verb?;
            self.ends.iter().find(|(known, _)| *known == verb).map(|(_, rule)| *rule as usize)
        };
        verbs.into_iter().find_map(named)
    }
}

/// More than a policy can have: some billions of patterns, literals or rules, or 65,536 methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// A place that the path so far may have led to, and how specific the way there was: smaller is more specific.
#[derive(Clone, Copy, Debug)]
struct State {
    place: Place,
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
    place: Place,
    tree: &'t Tree,
}

impl<'t> Found<'t> {
    fn pattern(&self) -> &'t [Segment] {
        self.tree.patterns.get(self.place as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether the pattern has a literal with a slash, which only an encoded one matches.
    pub(super) fn names_a_slash(&self) -> bool {
        let is_meant =
            |segment: &Segment| matches!(segment, Segment::Literal(text) if text.contains(['/', '\\']));
        self.pattern().iter().any(is_meant)
    }

    /// Whether this pattern says more than another about a path that both match, each in its reading: at the first
    /// difference in kind, as in the walk. Another literal there was written for that reading.
    pub(super) fn says_more_than(&self, other: &Self) -> bool {
        for (ours, theirs) in self.pattern().iter().zip(other.pattern()) {
            match (ours, theirs) {
                (Segment::Literal(ours), Segment::Literal(theirs)) if ours != theirs => return false,
                _ if ours != theirs => return ours < theirs,
                _ => {}
            }
        }
        self.pattern().len() > other.pattern().len()
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
