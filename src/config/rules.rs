//! The rules of a service: which specs its `exposedAPIs` select, and where the policy's mistakes are in the file.

use std::sync::Arc;

use super::error::{Place, Shown, nearest};
use super::problem::Problem;
use super::raw_service::{AuthorizationType, Service as Raw};
use super::raw_spec::{Endpoint, HttpResourceSpec};
use super::resolve::Resolver;
use super::service::{path_options, policy_modes};
use super::{CALLBACK_PATH, RESERVED_PATHS};
use crate::path::{self, NormalPath};
use crate::policy::{self, MistakeField, Policy};

/// The rules of one service, and for each of them which spec and which of its endpoints it is.
pub(super) struct Rules {
    pub config: policy::Config,
    sources: Vec<(usize, usize)>,
}

impl Resolver<'_> {
    /// The rules that apply to a service.
    pub fn rules(
        &mut self,
        index: usize,
        raw: &Raw,
        specs: &[HttpResourceSpec],
        used: &mut [bool],
        callback_path: &str,
    ) -> Rules {
        let selected = self.selected(index, raw, specs);
        for (used, selected) in used.iter_mut().zip(&selected) {
            *used |= selected;
        }
        let (mode, cors_preflight) = policy_modes(raw);
        let config = policy::Config {
            endpoints: Vec::new(),
            path: path_options(raw),
            mode,
            cors_preflight,
            clock_skew: raw.oidc_clock_skew.0,
        };
        let mut rules = Rules { config, sources: Vec::new() };
        for (spec_index, (spec, selected)) in specs.iter().zip(selected).enumerate() {
            if selected {
                rules.add(spec_index, spec);
            }
        }
        if raw.authorization_type == AuthorizationType::Oidc {
            self.shadowed(&rules, callback_path);
        }
        rules
    }

    /// For each spec, whether one of the inner lists has tags that it all has.
    fn selected(&mut self, index: usize, raw: &Raw, specs: &[HttpResourceSpec]) -> Vec<bool> {
        let mut selected = vec![false; specs.len()];
        let at = format!("services[{index}].exposedAPIs");
        if raw.exposed_apis.is_empty() && !self.origins.is_incomplete(&at) && !self.origins.is_pruned(&at) {
            self.warn(&at, "selects no HTTP resource spec: every request to this service is refused");
        }
        for (i, tags) in raw.exposed_apis.iter().enumerate() {
            let path = format!("{at}[{i}]");
            if self.origins.is_incomplete(&path) {
                continue;
            }
            if tags.is_empty() {
                self.mistake(&path, Problem::EmptySelector);
                continue;
            }
            let mut any = false;
            for (spec, selected) in specs.iter().zip(&mut selected) {
                if tags.iter().all(|tag| spec.associated_tags.contains(tag)) {
                    *selected = true;
                    any = true;
                }
            }
            if !any && !self.specs_are_uncertain() {
                let nearest = self.nearest_tag(tags, specs);
                self.mistake(&path, Problem::NothingSelected { several: tags.len() > 1, nearest });
            }
        }
        selected
    }

    /// Whether a spec or one of its tags is missing because of a mistake.
    fn specs_are_uncertain(&self) -> bool {
        let bears = |path: &str| path == "httpResourceSpecs" || path.ends_with(".associatedTags");
        self.origins.any_incomplete(|path| path.starts_with("httpResourceSpecs") && bears(path))
    }

    /// The tag of a spec that is most like the first one that no spec has.
    fn nearest_tag(&self, tags: &[String], specs: &[HttpResourceSpec]) -> Option<(Shown, Place)> {
        let known = || {
            let tags = |(i, spec): (usize, &HttpResourceSpec)| {
                let count = spec.associated_tags.len();
                (0..count)
                    .map(move |j| format!("httpResourceSpecs[{i}].associatedTags[{j}]"))
                    .collect::<Vec<_>>()
            };
            let texts = specs.iter().flat_map(|spec| spec.associated_tags.iter().map(String::as_str));
            specs.iter().enumerate().flat_map(tags).zip(texts)
        };
        let unknown = tags.iter().find(|tag| !known().any(|(_, text)| text == tag.as_str()))?;
        let near = nearest(unknown, known().map(|(_, text)| text))?;
        let (path, _) = known().find(|(_, text)| *text == near)?;
        Some((self.shown(&path), self.place(&path)?))
    }

    /// Compiles the rules, or reports what is wrong with them at the place in the file.
    pub fn compile(
        &mut self,
        index: usize,
        raw: &Raw,
        specs: &[HttpResourceSpec],
        rules: &Rules,
    ) -> Option<Arc<Policy>> {
        let policy = match Policy::compile(&rules.config) {
            Ok(policy) => Some(Arc::new(policy)),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| self.rule_mistake(mistake, rules, specs));
                None
            }
        };
        if raw.authorization_type == AuthorizationType::None {
            let path = format!("services[{index}].authorizationType");
            let public = |(endpoint, _): &(&policy::Endpoint, _)| endpoint.public;
            let closed = rules.config.endpoints.iter().zip(&rules.sources).find(|rule| !public(rule));
            let endpoint = closed.and_then(|(_, (spec, endpoint))| {
                let path = format!("httpResourceSpecs[{spec}].endpoints[{endpoint}]");
                (!self.origins.is_pruned(&format!("{path}.public"))).then(|| self.place(&path)).flatten()
            });
            if let Some(endpoint) = endpoint {
                self.mistake(&path, Problem::NotAllPublic { endpoint });
            }
        }
        policy
    }

    fn rule_mistake(&mut self, mistake: &policy::Mistake, rules: &Rules, specs: &[HttpResourceSpec]) {
        let path_of = |rule: usize| {
            let (spec, endpoint) = rules.sources.get(rule)?;
            Some(format!("httpResourceSpecs[{spec}].endpoints[{endpoint}]"))
        };
        let Some(endpoint) = path_of(mistake.endpoint) else { return };
        let path = match field_of(mistake.field) {
            field if field.is_empty() => endpoint,
            field => format!("{endpoint}.{field}"),
        };
        // A list that lacks a member because of a mistake in the file must not be judged for being empty.
        if self.origins.is_incomplete(&path) {
            return;
        }
        let other = mistake.other.and_then(path_of).and_then(|path| self.place(&path));
        let message = self.without_expansions(mistake.kind.to_string(), &path, mistake, rules, specs);
        self.mistake(&path, Problem::Rule { message, other });
    }

    /// The policy's message may quote the value that it is about, which may have come by a variable.
    fn without_expansions(
        &self,
        message: String,
        path: &str,
        mistake: &policy::Mistake,
        rules: &Rules,
        specs: &[HttpResourceSpec],
    ) -> String {
        let Some(origin) = self.origins.get(path).filter(|origin| origin.by_variable) else { return message };
        let (spec, endpoint) = rules.sources.get(mistake.endpoint).copied().unwrap_or_default();
        let endpoint = specs.get(spec).and_then(|spec| spec.endpoints.get(endpoint));
        let value = endpoint.and_then(|endpoint| text_of(endpoint, mistake.field));
        let shown = origin.shown.as_ref().map(ToString::to_string).unwrap_or_default();
        match value {
            Some(value) if message.contains(value) => {
                message.replace(&format!("`{value}`"), &shown).replace(value, &shown)
            }
            _ => message,
        }
    }

    /// Specs that no service selects are still held to be right: a typing mistake in a tag must not hide others.
    pub fn unused_specs(&mut self, specs: &[HttpResourceSpec], used: &[bool]) {
        for (index, (spec, used)) in specs.iter().zip(used).enumerate() {
            if *used {
                continue;
            }
            self.warn(
                &format!("httpResourceSpecs[{index}]"),
                "no service selects this spec, so it has no effect; look at exposedAPIs and associatedTags",
            );
            let (mode, cors_preflight) = (policy::Mode::Enforce, policy::CorsPreflight::Enforce);
            // Not stricter than any service that might select it.
            let path = path::Options { merge_slashes: false, encoded_slashes: path::EncodedSlashes::Keep };
            let config = policy::Config { path, mode, cors_preflight, ..policy::Config::default() };
            let mut rules = Rules { config, sources: Vec::new() };
            rules.add(index, spec);
            if let Err(mistakes) = Policy::compile(&rules.config) {
                mistakes.iter().for_each(|mistake| self.rule_mistake(mistake, &rules, specs));
            }
        }
    }

    /// Rules for paths that Portcullis answers itself.
    fn shadowed(&mut self, rules: &Rules, callback_path: &str) {
        for (rule, (spec, endpoint)) in rules.config.endpoints.iter().zip(&rules.sources) {
            let Ok(path) = NormalPath::parse(&rule.uri, &rules.config.path) else { continue };
            let path = path.path();
            let bare = if path.len() > 1 { path.trim_end_matches('/') } else { path };
            if bare == callback_path || RESERVED_PATHS.contains(&bare) {
                let path = format!("httpResourceSpecs[{spec}].endpoints[{endpoint}].URI");
                self.warn(&path, &format!("this path is reserved: Portcullis answers it itself, so the endpoint never applies; the reserved paths are those of {CALLBACK_PATH} and its neighbours, and that of OIDCCallbackURL"));
            }
        }
    }
}

impl Rules {
    fn add(&mut self, index: usize, spec: &HttpResourceSpec) {
        let name: Arc<str> = spec.name.as_deref().unwrap_or_default().into();
        for (endpoint_index, endpoint) in spec.endpoints.iter().enumerate() {
            self.sources.push((index, endpoint_index));
            self.config.endpoints.push(policy::Endpoint {
                spec: Arc::clone(&name),
                uri: endpoint.uri.clone().unwrap_or_default(),
                methods: endpoint.methods.clone(),
                public: endpoint.public,
                allowed_scopes: endpoint.allowed_scopes.clone(),
                denied_scopes: endpoint.denied_scopes.clone(),
                required_acr: endpoint.required_acr.clone(),
                max_authentication_age: endpoint.max_authentication_age.map(|age| age.0),
            });
        }
    }
}

/// The key of a field, below the endpoint.
fn field_of(field: MistakeField) -> String {
    match field {
        MistakeField::Uri => "URI".to_owned(),
        MistakeField::Methods => "methods".to_owned(),
        MistakeField::Method(i) => format!("methods[{i}]"),
        MistakeField::Public => "public".to_owned(),
        MistakeField::AllowedScopesClause(i) => format!("allowedScopes[{i}]"),
        MistakeField::AllowedScopes(i, j) => format!("allowedScopes[{i}][{j}]"),
        MistakeField::DeniedScopesClause(i) => format!("deniedScopes[{i}]"),
        MistakeField::DeniedScopes(i, j) => format!("deniedScopes[{i}][{j}]"),
        MistakeField::RequiredAcr(i) => format!("requiredACR[{i}]"),
    }
}

/// The text of a field, if it is one scalar.
fn text_of(endpoint: &Endpoint, field: MistakeField) -> Option<&str> {
    let text = match field {
        MistakeField::Uri => endpoint.uri.as_ref(),
        MistakeField::Method(i) => endpoint.methods.get(i),
        MistakeField::AllowedScopes(i, j) => endpoint.allowed_scopes.get(i)?.get(j),
        MistakeField::DeniedScopes(i, j) => endpoint.denied_scopes.get(i)?.get(j),
        MistakeField::RequiredAcr(i) => endpoint.required_acr.get(i),
        _ => None,
    };
    text.map(String::as_str).filter(|text| !text.is_empty())
}
