//! The rules: which requests pass, for whom. Pure and synchronous: no clock, no network, no headers.
//!
//! Owns the compiled rules, the matching of paths, and the decision. It knows tags and paths; it does not know
//! where tags come from or what happens to a request afterwards. A [`Permit`] can only be made here, and
//! forwarding asks for one.
//!
//! Lookup is a walk through a tree of segments: its cost depends on the depth of the path, never on the number
//! of rules. A decision is a few bit tests: [`Policy::bind`] works out once for each session which of the rules'
//! requirements hold.

mod compile;
mod decide;
mod matcher;
mod requirement;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::path;

pub use compile::{Mistake, MistakeField, MistakeKind};
pub use decide::{Caller, Decision, Denial, Permit, Ruling, StepUp, TagState};
pub use matcher::Ambiguous;
pub use requirement::Held;

use matcher::Tree;
use requirement::{Requirements, Term};

/// One endpoint of an HTTP resource spec, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the spec.
    pub spec: Arc<str>,
    /// Pattern of the path: literal segments, `?` for one segment, `*` for several.
    pub uri: String,
    /// Methods, or `*` for all.
    pub methods: Vec<String>,
    /// Whether everybody passes, logged in or not.
    pub public: bool,
    /// Tags that let a caller pass: any of these clauses, each of which needs all of its tags.
    pub allowed_scopes: Vec<Vec<String>>,
    /// Tags that stop a caller, in the same form; they win.
    pub denied_scopes: Vec<Vec<String>>,
    /// Authentication context classes of which the login must have one.
    pub required_acr: Vec<String>,
    /// Oldest authentication that will do.
    pub max_authentication_age: Option<Duration>,
}

/// What a "no" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is a no.
    #[default]
    Enforce,
    /// For somebody who is logged in it is only recorded.
    Observe,
}

/// What becomes of a CORS preflight, which never carries credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CorsPreflight {
    /// It is judged like any request.
    #[default]
    Enforce,
    /// It goes on without identity.
    Forward,
}

/// The rules of one service, as the configuration has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// All endpoints; their order means nothing.
    pub endpoints: Vec<Endpoint>,
    /// How patterns and targets are read.
    pub path: path::Options,
    /// What a "no" means.
    pub mode: Mode,
    /// What becomes of a CORS preflight.
    pub cors_preflight: CorsPreflight,
    /// How far the provider's clock may be off: a login is this much fresher than it says. The same tolerance as
    /// at the login, or a login could be good enough to be accepted and too old to be used, for ever.
    pub clock_skew: Duration,
}

/// The compiled rules of one service.
#[derive(Debug)]
pub struct Policy {
    mode: Mode,
    cors_preflight: CorsPreflight,
    clock_skew: Duration,
    tree: Tree,
    rules: Vec<Rule>,
    requirements: Requirements,
    needed_claims: BTreeSet<String>,
}

impl Policy {
    /// Top-level claims that the rules name. A session has to keep these.
    pub fn needed_claims(&self) -> &BTreeSet<String> {
        &self.needed_claims
    }

    /// What a "no" means.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether every rule is public.
    pub fn all_public(&self) -> bool {
        self.rules.iter().all(Rule::is_public)
    }

    /// How many rules there are: one for each endpoint and method.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// One URI pattern and method, and what they ask for.
#[derive(Debug)]
pub struct Rule {
    spec: Arc<str>,
    uri: Arc<str>,
    method: Arc<str>,
    demand: Arc<Demand>,
}

impl Rule {
    /// Name of the spec that it stands in.
    pub fn spec(&self) -> &Arc<str> {
        &self.spec
    }

    /// Its pattern, as the file has it.
    pub fn uri(&self) -> &Arc<str> {
        &self.uri
    }

    /// Its method, or `*`.
    pub fn method(&self) -> &Arc<str> {
        &self.method
    }

    /// Whether everybody passes.
    pub fn is_public(&self) -> bool {
        matches!(*self.demand, Demand::Public)
    }
}

/// What a rule asks for.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Demand {
    Public,
    Tags { allowed: Vec<Clause>, denied: Vec<Clause>, acr: Vec<String>, max_age: Option<Duration> },
}

/// Terms that must all hold; never empty.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Clause {
    terms: Box<[Term]>,
    /// The same as the file has them, for records: shared, so that a record costs no text of its own.
    tags: Arc<[String]>,
}
