//! The configuration as a whole: what loads, and what is said about what doesn't.

mod examples;
mod mistakes;
mod process_mistakes;
mod redis;
mod schema;
mod secrecy;
mod service_mistakes;
mod sources;
mod values;

use super::*;

/// A configuration with nothing wrong. Its lines are numbered in the tests that follow.
pub(super) const GOOD: &str = "\
services:
- name: private-app
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: https://idp.example
  OIDCClientID: client
  OIDCClientSecret: hunter2-secret
  OIDCCallbackURL: https://app.example.com
  OIDCScopes: [openid, email]
  hosts: [app.example.com]
  port: 8080
  exposedPort: 8443
  exposedAPIs:
  - - httpresourcespec:name=private-app
httpResourceSpecs:
- name: nginx
  associatedTags: [httpresourcespec:name=private-app]
  endpoints:
  - URI: /*
    methods: [GET]
    public: false
    allowedScopes:
    - - group=staff
stateDirectory: /var/lib/portcullis
";

pub(super) fn text(text: &str) -> Source {
    Source::Text { name: "f.yaml".to_owned(), text: text.to_owned() }
}

pub(super) fn load_text(yaml: &str) -> Result<Config, Mistakes> {
    load(&text(yaml), &Environment::default())
}

/// The configuration, which must be fine.
pub(super) fn good(yaml: &str) -> Config {
    load_text(yaml).unwrap_or_else(|mistakes| panic!("{mistakes}\n{yaml}"))
}

/// The lines of what is said about a configuration, which must not be fine.
pub(super) fn bad(yaml: &str) -> Vec<String> {
    bad_in(&text(yaml), &Environment::default())
}

pub(super) fn bad_in(source: &Source, environment: &Environment) -> Vec<String> {
    match load(source, environment) {
        Ok(_) => panic!("this loads: {source:?}"),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

/// [`GOOD`] with one text in place of another, which must be there.
pub(super) fn with(old: &str, new: &str) -> String {
    assert_eq!(GOOD.matches(old).count(), 1, "{old:?}");
    GOOD.replace(old, new)
}

/// [`GOOD`] with further lines in its service.
pub(super) fn service_with(lines: &str) -> String {
    with("  port: 8080\n", &format!("  port: 8080\n{lines}\n"))
}

/// [`GOOD`] with further lines in its endpoint.
pub(super) fn endpoint_with(lines: &str) -> String {
    with("    public: false\n", &format!("    public: false\n{lines}\n"))
}

/// What must be said about one mistake: exactly one line, with this place and key, and with these words.
pub(super) fn says(yaml: &str, place_and_key: &str, words: &[&str]) {
    let lines = bad(yaml);
    assert_eq!(lines.len(), 1, "{lines:#?}\n{yaml}");
    let line = &lines[0];
    assert!(line.starts_with(&format!("f.yaml:{place_and_key}: ")), "{line}\nnot at {place_and_key}\n{yaml}");
    for word in words {
        assert!(line.contains(word), "{line}\nlacks {word}");
    }
    assert!(words.is_empty() || line.contains("; "), "what to do? {line}");
}
