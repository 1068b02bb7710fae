//! The decision, and the proof that it was made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, UPGRADE};
use http::{HeaderMap, Method};

use super::matcher::{Ambiguous, Found, Reading};
use super::requirement::{Held, Term};
use super::{Clause, CorsPreflight, Demand, Mode, Policy, Rule};
use crate::clock::UnixTime;
use crate::path::NormalPath;
use crate::tag::TagSet;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// Nobody who is logged in.
    Anonymous,
    /// Somebody with tags.
    Known {
        /// Which requirements of this policy hold, from [`Policy::bind`].
        held: &'a Held,
        /// How they were authenticated (`acr`).
        acr: Option<&'a str>,
        /// When they were (`auth_time`).
        auth_time: Option<UnixTime>,
    },
}

/// The rules that a request falls under.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ruling<'p> {
    /// The most specific rule for its method and path.
    pub rule: Option<&'p Rule>,
    /// The rule for the path that an application sees which takes an encoded slash for a separator, if it is another
    /// and says less. It has to allow the request too.
    pub beside: Option<&'p Rule>,
}

impl Ruling<'_> {
    /// Whether everybody passes.
    pub fn is_public(&self) -> bool {
        self.rule.is_some_and(Rule::is_public) && self.beside.is_none_or(Rule::is_public)
    }
}

/// What the rules say.
#[derive(Debug)]
pub enum Decision<'p> {
    /// Forward.
    Allow(Permit),
    /// Forward although the rules say no, and record that they do (`mode: observe`).
    Observe(Permit, Denial<'p>),
    /// Ask who it is, and for what the rule will want of the login.
    Login(StepUp<'p>),
    /// Ask for a stronger or fresher login.
    StepUp(StepUp<'p>),
    /// Refuse.
    Deny(Denial<'p>),
}

/// The proof that a request may be forwarded. Only this module makes one; forwarding consumes it.
#[derive(Debug)]
pub struct Permit(());

#[cfg(test)]
impl Permit {
    /// For tests of what comes after a decision.
    pub(crate) fn for_test() -> Self {
        Self(())
    }
}

/// What a login lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepUp<'p> {
    /// Authentication context classes of which one is wanted; empty if any will do.
    pub acr_values: &'p [String],
    /// Oldest authentication that will do.
    pub max_age: Option<Duration>,
}

/// Why the rules say no to somebody who is logged in. [`Policy::allowed_states`] has the tags.
#[derive(Clone, Copy, Debug)]
pub enum Denial<'p> {
    /// No rule names this method and path.
    NoRule,
    /// The rule lets nobody in.
    Nobody,
    /// A clause of `deniedScopes` is met.
    Denied(&'p Arc<[String]>),
    /// No clause of `allowedScopes` is met.
    NotAllowed {
        /// Whether one would be, if only the address were verified.
        email_unverified: bool,
    },
    /// The login is too weak or too old, and that is only observed.
    StepUp,
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule names this method and path",
            Self::Nobody => "the rule lets nobody in (empty allowedScopes)",
            Self::Denied(_) => "a clause of deniedScopes is met",
            Self::NotAllowed { email_unverified: true } => {
                "no clause of allowedScopes is met: the address is not verified"
            }
            Self::NotAllowed { email_unverified: false } => "no clause of allowedScopes is met",
            Self::StepUp => "a stronger or fresher login is needed",
        })
    }
}

/// One tag of a clause and whether the caller meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// The tag as the rule writes it.
    pub tag: String,
    /// Whether it holds.
    pub held: bool,
}

impl Policy {
    /// The rules that a method and path fall under. `HEAD` falls under `GET` rules unless the same URI has one of its
    /// own.
    pub fn find(&self, method: &Method, path: &NormalPath) -> Result<Ruling<'_>, Ambiguous> {
        let found = self.tree.find(method, path, Reading::AsSent);
        let text = path.path();
        // Hardly any path has a `%` at all; looking for one byte is much quicker than for two.
        let has_escape = text.contains('%');
        if text.contains(';') || (has_escape && text.contains("%3")) {
            let other = self.tree.find(method, path, Reading::WithoutParameters);
            if other.map(|other| other.rule) != found.map(|found| found.rule) {
                return Err(Ambiguous::Parameters);
            }
        }
        let Some(found) = found else { return Ok(Ruling::default()) };
        let has_slash = has_escape && ["%2f", "%2F", "%5c", "%5C"].iter().any(|slash| text.contains(slash));
        let beside = if has_slash { self.decoded(method, path, found)? } else { None };
        let rule = |place: usize| self.rules.get(place);
        Ok(Ruling { rule: rule(found.rule), beside: beside.and_then(rule) })
    }

    /// A kept slash may be a separator to the application: a rule that says more about the path that it sees then
    /// must not be got around, and one that says less must allow the request as well. Not where `found` was written
    /// for the slash as it was sent.
    fn decoded(
        &self,
        method: &Method,
        path: &NormalPath,
        found: Found<'_>,
    ) -> Result<Option<usize>, Ambiguous> {
        let mut beside = None;
        for parameters in [true, false] {
            let Some(other) = self.tree.find(method, path, Reading::Decoded { parameters }) else { continue };
            if other.rule == found.rule {
                continue;
            }
            if other.says_more_than(&found) {
                return Err(Ambiguous::Slashes);
            }
            if *beside.get_or_insert(other.rule) != other.rule {
                return Err(Ambiguous::Parameters);
            }
        }
        Ok(beside.filter(|_| !found.names_a_slash()))
    }

    /// Works out which requirements hold for a tag set: once for each session.
    pub fn bind(&self, tags: &TagSet) -> Held {
        self.requirements.bind(tags)
    }

    /// Decides. `ruling` is what [`Policy::find`] gave. Allocates nothing.
    pub fn decide<'p>(&'p self, ruling: Ruling<'p>, caller: Caller<'_>, now: UnixTime) -> Decision<'p> {
        self.decide_by(self.deciding(ruling, caller, now), caller, now)
    }

    /// The rule that has the last word: the one beside, if there is one and the first has nothing against the caller.
    pub fn deciding<'p>(&'p self, ruling: Ruling<'p>, caller: Caller<'_>, now: UnixTime) -> Option<&'p Rule> {
        match ruling.beside {
            Some(_) if matches!(self.decide_by(ruling.rule, caller, now), Decision::Allow(_)) => {
                ruling.beside
            }
            _ => ruling.rule,
        }
    }

    fn decide_by<'p>(&'p self, rule: Option<&'p Rule>, caller: Caller<'_>, now: UnixTime) -> Decision<'p> {
        if rule.is_some_and(Rule::is_public) {
            return Decision::Allow(Permit(()));
        }
        let Caller::Known { held, acr, auth_time } = caller else {
            // What is only observed keeps nobody from logging in as well as they can.
            let rule = rule.filter(|_| self.mode == Mode::Enforce);
            return Decision::Login(rule.map(|rule| rule.demand.wishes()).unwrap_or_default());
        };
        let denial = match judge(rule, held) {
            Ok(demand) => match demand.step_up(acr, auth_time, now, self.clock_skew) {
                None => return Decision::Allow(Permit(())),
                Some(_) if self.mode == Mode::Observe => Denial::StepUp,
                Some(step_up) => return Decision::StepUp(step_up),
            },
            Err(denial) => denial,
        };
        match self.mode {
            Mode::Enforce => Decision::Deny(denial),
            Mode::Observe => Decision::Observe(Permit(()), denial),
        }
    }

    /// A permit for a CORS preflight (Fetch standard, section 4.8) where the configuration lets it through. It
    /// carries no credentials by design, so it is forwarded without identity. One that wants to become a tunnel
    /// is none.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Permit> {
        let is_preflight = method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && !headers.contains_key(UPGRADE);
        (is_preflight && self.cors_preflight == CorsPreflight::Forward).then_some(Permit(()))
    }

    /// Tags of the clause that let this caller pass, for the record.
    pub fn deciding_tags(&self, rule: &Rule, held: &Held) -> Option<Arc<[String]>> {
        let Demand::Tags { allowed, .. } = &*rule.demand else { return None };
        allowed.iter().find(|clause| clause.allows(held)).map(|clause| clause.tags.clone())
    }

    /// Every clause of `allowedScopes`, and which of its tags the caller has.
    pub fn allowed_states(&self, rule: &Rule, held: &Held) -> Vec<Vec<TagState>> {
        let Demand::Tags { allowed, .. } = &*rule.demand else { return Vec::new() };
        states(allowed, |term| term.allows(held))
    }

    /// Every clause of `deniedScopes`, and which of its tags the caller has.
    pub fn denied_states(&self, rule: &Rule, held: &Held) -> Vec<Vec<TagState>> {
        let Demand::Tags { denied, .. } = &*rule.demand else { return Vec::new() };
        states(denied, |term| term.denies(held))
    }
}

impl Clause {
    fn allows(&self, held: &Held) -> bool {
        self.terms.iter().all(|term| term.allows(held))
    }
}

impl Demand {
    /// What a login has to be, whoever logs in.
    fn wishes(&self) -> StepUp<'_> {
        match self {
            Demand::Public => StepUp::default(),
            Demand::Tags { acr, max_age, .. } => StepUp { acr_values: acr, max_age: *max_age },
        }
    }

    fn step_up(
        &self,
        acr: Option<&str>,
        auth_time: Option<UnixTime>,
        now: UnixTime,
        skew: Duration,
    ) -> Option<StepUp<'_>> {
        let Demand::Tags { acr: wanted, max_age, .. } = self else { return None };
        let weak = !wanted.is_empty() && !acr.is_some_and(|acr| wanted.iter().any(|wanted| wanted == acr));
        let old = max_age.is_some_and(|max_age| auth_time.is_none_or(|at| now.since(at) > max_age + skew));
        (weak || old).then_some(StepUp { acr_values: wanted, max_age: *max_age })
    }
}

fn states(clauses: &[Clause], holds: impl Fn(Term) -> bool) -> Vec<Vec<TagState>> {
    let state = |(term, tag): (&Term, &String)| TagState { tag: tag.clone(), held: holds(*term) };
    clauses.iter().map(|clause| clause.terms.iter().zip(clause.tags.iter()).map(state).collect()).collect()
}

/// Denied tags first, for they win; then allowed ones. A stronger login helps nobody whose tags don't.
fn judge<'p>(rule: Option<&'p Rule>, held: &Held) -> Result<&'p Demand, Denial<'p>> {
    let rule = rule.ok_or(Denial::NoRule)?;
    let Demand::Tags { allowed, denied, .. } = &*rule.demand else { return Ok(&rule.demand) };
    if let Some(clause) = denied.iter().find(|clause| clause.terms.iter().all(|term| term.denies(held))) {
        return Err(Denial::Denied(&clause.tags));
    }
    if allowed.is_empty() {
        return Err(Denial::Nobody);
    }
    if allowed.iter().any(|clause| clause.allows(held)) {
        return Ok(&rule.demand);
    }
    let asks_email = allowed.iter().flat_map(|clause| &clause.terms).any(|term| term.is_email());
    Err(Denial::NotAllowed { email_unverified: asks_email && held.email_unverified })
}
