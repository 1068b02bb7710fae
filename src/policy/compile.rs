//! From endpoints as the file has them to a compiled policy, collecting every mistake.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::matcher::{Segment, TooMany, Tree};
use super::requirement::{Requirements, SyntaxError};
use super::{Clause, Config, Demand, Endpoint, Policy, Rule};
use crate::path::{self, NormalPath, PathError, decode};

/// Something in an endpoint that can't be enforced as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The endpoint, by its place in [`Config::endpoints`].
    pub endpoint: usize,
    /// Where in it.
    pub field: MistakeField,
    /// What is wrong.
    pub kind: MistakeKind,
    /// The other endpoint that it clashes with.
    pub other: Option<usize>,
}

/// A place in an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MistakeField {
    /// `URI`
    Uri,
    /// `methods`
    Methods,
    /// One entry of `methods`.
    Method(usize),
    /// `public`
    Public,
    /// One clause of `allowedScopes`.
    AllowedScopesClause(usize),
    /// One tag of a clause of `allowedScopes`.
    AllowedScopes(usize, usize),
    /// One clause of `deniedScopes`.
    DeniedScopesClause(usize),
    /// One tag of a clause of `deniedScopes`.
    DeniedScopes(usize, usize),
    /// One entry of `requiredACR`.
    RequiredAcr(usize),
}

/// What is wrong, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MistakeKind {
    /// The pattern is no path that a request could have.
    Path(PathError),
    /// `*` or `?` beside other characters in one segment.
    WildcardInSegment,
    /// A `?` or `#` that would begin a query or fragment.
    Query,
    /// More than 64 segments.
    TooDeep,
    /// `methods` is empty.
    NoMethods,
    /// Not a method name, or one in lower case.
    Method(String),
    /// The same method twice in one endpoint.
    MethodTwice(String),
    /// `public: true` beside scopes, ACRs or an age that would never be asked for.
    PublicWithScopes,
    /// A clause without tags.
    EmptyClause,
    /// A tag without `=`.
    NoEquals,
    /// A tag without a key.
    NoKey,
    /// A star in the key.
    WildcardInKey,
    /// A control character.
    Control,
    /// White space before or after the name of a claim.
    SpaceInKey,
    /// No claim gives a tag of this name, but perhaps one of that name.
    KeySpelling(String),
    /// A space or nothing in an ACR value.
    AcrValue,
    /// Another endpoint has this URI and method.
    Duplicate(String),
    /// More rules than a policy can have.
    TooMany,
}

impl fmt::Display for MistakeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(PathError::Escape) => {
                f.write_str("a % begins no escape; write a literal percent sign as %25")
            }
            Self::Path(PathError::NotAPath) => f.write_str("a URI is a path; begin it with a slash"),
            Self::Path(error) => {
                write!(f, "{error}; requests with such a path are refused, so this could never match")
            }
            Self::WildcardInSegment => f.write_str(
                "a wildcard stands for whole segments; make it a segment of its own, or write a literal star as \
                 %2A and a literal question mark as %3F",
            ),
            Self::Query => f.write_str("query strings never take part in a decision; leave it out"),
            Self::TooDeep => write!(f, "more than {MAX_SEGMENTS} segments; use a wildcard"),
            Self::NoMethods => f.write_str("no methods; name some, or write [\"*\"] for all"),
            Self::Method(upper) if upper.is_empty() => f.write_str("not the name of an HTTP method"),
            Self::Method(upper) => write!(f, "methods are case-sensitive; write {upper}"),
            Self::MethodTwice(method) => write!(f, "{method} stands here twice; leave one out"),
            Self::PublicWithScopes => f.write_str(
                "public endpoints ask for nothing; leave out public, or allowedScopes, deniedScopes, requiredACR \
                 and maxAuthenticationAge",
            ),
            Self::EmptyClause => f.write_str(
                "an empty clause would let everybody through who is logged in; write [sub=*] if that is meant",
            ),
            Self::NoEquals => f.write_str("a tag is written key=value; key=* asks only that it is there"),
            Self::NoKey => f.write_str("a tag begins with the name of a claim: key=value"),
            Self::WildcardInKey => {
                f.write_str("a wildcard can stand in the value only; a star in a claim's name is written %2A")
            }
            Self::Control => f.write_str("a control character; was a line break meant as a new list entry?"),
            Self::SpaceInKey => f.write_str("white space around the name of a claim: write key=value without it"),
            Self::KeySpelling(canonical) => {
                write!(f, "no claim gives a tag of this name, so it could never match; write {canonical}=...")
            }
            Self::AcrValue => f.write_str("an ACR value is one word without spaces"),
            Self::Duplicate(method) => {
                write!(f, "another endpoint has the same URI for {method} already; merge the two")
            }
            Self::TooMany => f.write_str("more rules, or methods, than can be held; use wildcards"),
        }
    }
}

impl Policy {
    /// Compiles the rules of a service, or says everything that is wrong with them.
    pub fn compile(config: &Config) -> Result<Policy, Vec<Mistake>> {
        let mut compiler = Compiler { options: config.path, ..Compiler::default() };
        for (place, endpoint) in config.endpoints.iter().enumerate() {
            compiler.endpoint(place, endpoint);
        }
        if !compiler.mistakes.is_empty() {
            return Err(compiler.mistakes);
        }
        let needed_claims = compiler.requirements.claims();
        Ok(Policy {
            mode: config.mode,
            cors_preflight: config.cors_preflight,
            clock_skew: config.clock_skew,
            tree: compiler.tree,
            rules: compiler.rules,
            requirements: compiler.requirements,
            needed_claims,
        })
    }
}

#[derive(Default)]
struct Compiler {
    options: path::Options,
    tree: Tree,
    rules: Vec<Rule>,
    /// The endpoint of each rule.
    origins: Vec<usize>,
    /// Endpoints that ask for the same share it: among many of them, it stays in the processor's caches.
    demands: HashSet<Arc<Demand>>,
    requirements: Requirements,
    mistakes: Vec<Mistake>,
}

impl Compiler {
    fn mistake(&mut self, endpoint: usize, field: MistakeField, kind: MistakeKind) {
        self.mistakes.push(Mistake { endpoint, field, kind, other: None });
    }

    fn endpoint(&mut self, place: usize, endpoint: &Endpoint) {
        let demand = self.demand(place, endpoint);
        let demand = self.demands.get(&demand).cloned().unwrap_or_else(|| Arc::new(demand));
        self.demands.insert(demand.clone());
        let pattern = match parse_pattern(&endpoint.uri, &self.options) {
            Ok(pattern) => pattern,
            Err(kind) => {
                self.mistake(place, MistakeField::Uri, kind);
                self.methods(place, endpoint);
                return;
            }
        };
        let uri: Arc<str> = endpoint.uri.as_str().into();
        for method in self.methods(place, endpoint) {
            let rule = self.rules.len();
            let (kind, other) = match self.tree.insert(&pattern, method, rule) {
                Ok(None) => {
                    self.origins.push(place);
                    let (spec, uri, demand) = (endpoint.spec.clone(), uri.clone(), demand.clone());
                    self.rules.push(Rule { spec, uri, method: method.into(), demand });
                    continue;
                }
                Ok(Some(twin)) => {
                    (MistakeKind::Duplicate(method.to_owned()), self.origins.get(twin).copied())
                }
                Err(TooMany) => (MistakeKind::TooMany, None),
            };
            let number = endpoint.methods.iter().position(|known| known == method).unwrap_or_default();
            self.mistakes.push(Mistake { endpoint: place, field: MistakeField::Method(number), kind, other });
        }
    }

    /// The endpoint's methods that can be used.
    fn methods<'e>(&mut self, place: usize, endpoint: &'e Endpoint) -> Vec<&'e str> {
        if endpoint.methods.is_empty() {
            self.mistake(place, MistakeField::Methods, MistakeKind::NoMethods);
        }
        let mut methods: Vec<&str> = Vec::new();
        for (number, method) in endpoint.methods.iter().enumerate() {
            let known = method == "*" || http::Method::from_bytes(method.as_bytes()).is_ok();
            let upper = method.to_ascii_uppercase();
            if !known || method == "CONNECT" {
                self.mistake(place, MistakeField::Method(number), MistakeKind::Method(String::new()));
            } else if *method != upper && STANDARD_METHODS.contains(&upper.as_str()) {
                self.mistake(place, MistakeField::Method(number), MistakeKind::Method(upper));
            } else if methods.contains(&method.as_str()) {
                let kind = MistakeKind::MethodTwice(method.clone());
                self.mistake(place, MistakeField::Method(number), kind);
            } else {
                methods.push(method);
            }
        }
        methods
    }

    fn demand(&mut self, place: usize, endpoint: &Endpoint) -> Demand {
        let asks = !endpoint.allowed_scopes.is_empty()
            || !endpoint.denied_scopes.is_empty()
            || !endpoint.required_acr.is_empty()
            || endpoint.max_authentication_age.is_some();
        if endpoint.public && asks {
            self.mistake(place, MistakeField::Public, MistakeKind::PublicWithScopes);
        }
        let allowed = self.clauses(
            place,
            &endpoint.allowed_scopes,
            MistakeField::AllowedScopesClause,
            MistakeField::AllowedScopes,
        );
        let denied = self.clauses(
            place,
            &endpoint.denied_scopes,
            MistakeField::DeniedScopesClause,
            MistakeField::DeniedScopes,
        );
        for (number, acr) in endpoint.required_acr.iter().enumerate() {
            if acr.is_empty()
                || acr.chars().any(|character| character.is_whitespace() || character.is_control())
            {
                self.mistake(place, MistakeField::RequiredAcr(number), MistakeKind::AcrValue);
            }
        }
        if endpoint.public {
            return Demand::Public;
        }
        let (acr, max_age) = (endpoint.required_acr.clone(), endpoint.max_authentication_age);
        Demand::Tags { allowed, denied, acr, max_age }
    }

    fn clauses(
        &mut self,
        place: usize,
        texts: &[Vec<String>],
        clause_field: fn(usize) -> MistakeField,
        tag_field: fn(usize, usize) -> MistakeField,
    ) -> Vec<Clause> {
        let mut clauses = Vec::with_capacity(texts.len());
        for (number, tags) in texts.iter().enumerate() {
            if tags.is_empty() {
                self.mistake(place, clause_field(number), MistakeKind::EmptyClause);
            }
            let mut terms = Vec::with_capacity(tags.len());
            for (at, tag) in tags.iter().enumerate() {
                match self.requirements.intern(tag) {
                    Ok(term) => terms.push(term),
                    Err(error) => self.mistake(place, tag_field(number, at), error.into()),
                }
            }
            // With a mistake the policy is never used; an empty clause must not be in it all the same.
            if !terms.is_empty() {
                clauses.push(Clause { terms: terms.into(), tags: tags.as_slice().into() });
            }
        }
        clauses
    }
}

impl From<SyntaxError> for MistakeKind {
    fn from(error: SyntaxError) -> Self {
        match error {
            SyntaxError::NoEquals => Self::NoEquals,
            SyntaxError::NoKey => Self::NoKey,
            SyntaxError::WildcardInKey => Self::WildcardInKey,
            SyntaxError::Control => Self::Control,
            SyntaxError::Space => Self::SpaceInKey,
            SyntaxError::Spelling(canonical) => Self::KeySpelling(canonical),
        }
    }
}

/// The segments of a pattern. Literals pass the same parser as targets.
pub(super) fn parse_pattern(uri: &str, options: &path::Options) -> Result<Vec<Segment>, MistakeKind> {
    let inner = uri.strip_prefix('/').ok_or(MistakeKind::Path(PathError::NotAPath))?;
    let mut literal = String::with_capacity(uri.len());
    for segment in inner.split('/') {
        literal.push('/');
        match segment {
            "*" | "?" => literal.push('x'),
            _ if segment.contains('*') => return Err(MistakeKind::WildcardInSegment),
            _ if segment.ends_with('?') || segment.starts_with('?') => {
                return Err(MistakeKind::WildcardInSegment);
            }
            _ if segment.contains('?') => return Err(MistakeKind::Query),
            _ => literal.push_str(segment),
        }
    }
    NormalPath::parse(&literal, options).map_err(MistakeKind::Path)?;
    let segments: Vec<Segment> = inner
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| match segment {
            "*" => Segment::Several,
            "?" => Segment::One,
            literal => Segment::Literal(decode(literal).unwrap_or_default().as_ref().into()),
        })
        .collect();
    if segments.len() > MAX_SEGMENTS {
        return Err(MistakeKind::TooDeep);
    }
    Ok(segments)
}

const STANDARD_METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
/// Most segments of a pattern, and so the depth of a lookup's recursion.
const MAX_SEGMENTS: usize = 64;
