//! `explain`: which rule decides about a request, and which tags it has and lacks. The same code as the proxy.

use std::fmt::Write as _;

use http::Method;

use crate::clock::Clock;
use crate::config::{Authorization, Config, RESERVED_PATHS, Service};
use crate::path::NormalPath;
use crate::policy::{Caller, Decision, Denial, Ruling, TagState};
use crate::tag::{Claims, TagSet};

/// A request to explain.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Name of the service; `None` where there is only one.
    pub service: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Target as a client would send it.
    pub path: &'a str,
    /// Claims of the caller; `None`: nobody is logged in.
    pub claims: Option<&'a Claims>,
}

/// Why a question can't be answered. The blame is the asker's. Exit code 64.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// No service has that name, or there are several and none was named.
    #[error("{problem}; --service takes one of: {known}")]
    Service {
        /// What is wrong.
        problem: String,
        /// All names.
        known: String,
    },
    /// Not a method.
    #[error("`{0}` is not a method")]
    Method(String),
}

/// The answer as text.
pub fn explain(config: &Config, question: Question<'_>) -> Result<String, QuestionError> {
    let service = choose(config, question.service)?;
    let method: Method =
        question.method.parse().map_err(|_| QuestionError::Method(question.method.to_owned()))?;
    let mut text = format!("{method} {} at service {}\n", question.path.escape_debug(), service.name);
    let path = match NormalPath::parse(question.path, &service.path) {
        Ok(path) => path,
        Err(error) => {
            let _ = writeln!(text, "refused with 400 before any rule is asked: {error}");
            return Ok(text);
        }
    };
    if path.as_str() != question.path {
        let _ = writeln!(text, "judged and forwarded as: {}", path.as_str());
    }
    let has_login = matches!(service.authorization, Authorization::Oidc(_));
    if has_login && (path.path() == service.callback_path || RESERVED_PATHS.contains(&path.path())) {
        text.push_str("answered by Portcullis itself: this path is reserved\n");
        return Ok(text);
    }
    let ruling = match service.policy.find(&method, &path) {
        Ok(ruling) => ruling,
        Err(error) => {
            let _ = writeln!(text, "refused with 400: {error}");
            return Ok(text);
        }
    };
    match ruling.rule {
        Some(rule) => {
            let _ = writeln!(text, "rule: {} {} (spec {})", rule.method(), rule.uri(), rule.spec());
        }
        None => {
            text.push_str("rule: none names this method and path\n");
            if question.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                let _ = writeln!(
                    text,
                    "note: methods are case-sensitive; {} is another",
                    question.method.to_ascii_uppercase()
                );
            }
        }
    }
    if let Some(rule) = ruling.beside {
        let _ = writeln!(
            text,
            "rule for the decoded path, which must allow it too: {} {} (spec {})",
            rule.method(),
            rule.uri(),
            rule.spec()
        );
    }
    decide(&mut text, service, ruling, question.claims);
    Ok(text)
}

fn choose<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Service, QuestionError> {
    let known = || config.services.iter().map(|service| &*service.name).collect::<Vec<_>>().join(", ");
    match (name, config.services.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(QuestionError::Service { problem: "there are several services".to_owned(), known: known() })
        }
        (Some(name), services) => services.iter().find(|service| *service.name == *name).ok_or_else(|| {
            QuestionError::Service { problem: format!("there is no service `{name}`"), known: known() }
        }),
    }
}

fn decide(text: &mut String, service: &Service, ruling: Ruling<'_>, claims: Option<&Claims>) {
    let policy = &service.policy;
    let tags = claims.map(TagSet::from_claims);
    let held = tags.as_ref().map(|tags| policy.bind(tags));
    if let Some(tags) = &tags {
        let _ = writeln!(text, "tags of the caller: {}", tags.iter().collect::<Vec<_>>().join(", "));
    }
    for (rule, held) in [ruling.rule, ruling.beside].into_iter().flatten().zip(held.iter().cycle()) {
        list(text, "allowedScopes", &policy.allowed_states(rule, held));
        list(text, "deniedScopes", &policy.denied_states(rule, held));
    }
    let claim = |name: &str| claims.and_then(|claims| claims.get(name));
    let caller = match &held {
        None => Caller::Anonymous,
        Some(held) => Caller::Known {
            held,
            acr: claim("acr").and_then(|acr| acr.as_str()),
            auth_time: claim("auth_time").and_then(serde_json::Value::as_u64).map(crate::clock::UnixTime),
        },
    };
    let _ = match policy.decide(ruling, caller, Clock::system().now()) {
        Decision::Allow(_) => writeln!(text, "decision: allow"),
        Decision::Observe(_, denial) => {
            writeln!(text, "decision: allow, only because of mode: observe ({denial})")
        }
        Decision::Login(_) => writeln!(text, "decision: log in (302 for a page, 401 for a program)"),
        Decision::StepUp(wanted) => writeln!(
            text,
            "decision: a stronger or fresher login is needed (acr one of: {}; max age: {})",
            if wanted.acr_values.is_empty() { "any".to_owned() } else { wanted.acr_values.join(", ") },
            wanted.max_age.map_or_else(|| "any".to_owned(), |age| format!("{} s", age.as_secs())),
        ),
        Decision::Deny(denial @ Denial::Denied(tags)) => {
            writeln!(text, "decision: deny, {denial}: {}", tags.join(" and "))
        }
        Decision::Deny(denial) => writeln!(text, "decision: deny, {denial}"),
    };
}

fn list(text: &mut String, name: &str, clauses: &[Vec<TagState>]) {
    for (number, clause) in clauses.iter().enumerate() {
        let tags: Vec<String> = clause
            .iter()
            .map(|state| format!("{} ({})", state.tag, if state.held { "has" } else { "lacks" }))
            .collect();
        let join = if number == 0 { name } else { "or" };
        let _ = writeln!(text, "{join:>13}: {}", tags.join(" and "));
    }
}
