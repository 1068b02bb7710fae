use super::*;

#[test]
fn ten_mistakes_are_ten_lines() {
    let yaml = "\
services:
- name: one
  authorizationType: OIDC
  OIDCProviderUrl: https://idp.example
  OIDCClientID: ${NOT_SET}
  OIDCClientSecret: hunter2-secret
  OIDCCallbackURL: http://app.example.com
  port: 80800
  exposedPort: eight
  mode: observer
  identityAssertion: session
  OIDCClockSkew: 5
  exposedAPIs:
  - - httpresourcespec:name=on
httpResourceSpecs:
- name: spec
  associatedTags: [httpresourcespec:name=one]
  endpoints:
  - URI: /a*
    methods: [GET]
  - URI: /b
    methods: []
session:
  store: redis
";
    let lines = bad(yaml);
    let expected = [
        "f.yaml:4:3: services[0].OIDCProviderUrl: unknown key; the nearest known name is `OIDCProviderURL`",
        "f.yaml:5:17: services[0].OIDCClientID: the variable NOT_SET is not set; set it",
        "f.yaml:7:20: services[0].OIDCCallbackURL: must begin with https://",
        "f.yaml:8:9: services[0].port: `80800` is out of range; write something from 1 to 65535",
        "f.yaml:9:16: services[0].exposedPort: `eight` is not what belongs here; write a whole number",
        "f.yaml:10:9: services[0].mode: `observer` is not one of enforce, observe; did you mean observe?",
        "f.yaml:11:3: services[0].identityAssertion: not supported in this version; remove it",
        "f.yaml:12:18: services[0].OIDCClockSkew: `5` is not what belongs here; write a length of time",
        "f.yaml:14:5: services[0].exposedAPIs[0]: no HTTP resource spec has this tag; the nearest is `httpresourcespec:name=one` at f.yaml:17:20",
        "f.yaml:19:10: httpResourceSpecs[0].endpoints[0].URI: ",
        "f.yaml:22:14: httpResourceSpecs[0].endpoints[1].methods: ",
        "f.yaml:24:3: session.redis: is missing; add it (with the url of Redis in it",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\nexpected {expected}");
    }
    let whole = load_text(yaml).unwrap_err().to_string();
    assert!(whole.ends_with("\n12 mistakes in the configuration") && !whole.contains("hunter2"), "{whole}");
}

#[test]
fn yaml_and_shape() {
    let many = |lines: &str| format!("{GOOD}{lines}\n");
    for (yaml, place_and_key, words) in [
        (String::new(), "1:1", &["is empty"][..]),
        ("# nothing\n".to_owned(), "1:1", &["is empty"]),
        ("just text\n".to_owned(), "1:1", &["a mapping"]),
        ("services: [\n".to_owned(), "2:1", &["not valid YAML"]),
        ("admin: {}\n".to_owned(), "1:1: services", &["is missing"]),
        ("services: []\n".to_owned(), "1:11: services", &["is empty"]),
        ("services:\n".to_owned(), "1:9: services", &["has no value"]),
        ("services: {a: b}\n".to_owned(), "1:11: services", &["is a mapping; write a list"]),
        (many("servces: []"), "25:1: servces", &["unknown key", "`services`"]),
        (many("cookieName: x"), "25:1: cookieName", &["unknown key", "belongs under `session`"]),
        (many("session: {idletimeout: 1h}"), "25:11: session.idletimeout", &["`idleTimeout`"]),
        (many("session: {refreshBefore: 0s}"), "25:26: session.refreshBefore", &["out of range", "from 1s"]),
        (many("session: {idleTimeout: 1 hour}"), "25:24: session.idleTimeout", &["`1 hour`", "90s"]),
        (many("session: {idleTimeout: 0s}"), "25:24: session.idleTimeout", &["out of range", "from 1s on"]),
        (
            many("session: {boundToToken: yes}"),
            "25:25: session.boundToToken",
            &["`yes`", "`true` or `false`"],
        ),
        (many("session: {boundToToken: 'true'}"), "25:25: session.boundToToken", &["without quotes"]),
        (many("session: {cookieName: sid}"), "25:23: session.cookieName", &["__Host-"]),
        (many("limits: {workers: 0}"), "25:19: limits.workers", &["from 1 to 1024"]),
        (many("limits: {workers: 1.5}"), "25:19: limits.workers", &["a whole number"]),
        (many("limits: {workers: 010}"), "25:19: limits.workers", &["a whole number"]),
        (many("limits: {headerBytes: 64}"), "25:23: limits.headerBytes", &["64KiB"]),
        (many("limits: {headerBytes: 1GiB}"), "25:23: limits.headerBytes", &["from 1KiB to 1MiB"]),
        (many("log: {format: yaml}"), "25:15: log.format", &["auto, json, text"]),
        (many("stateDirectory: /x"), "25:1: stateDirectory", &["twice", "f.yaml:24:1"]),
        (
            with("port: 8080\n", "port: 8080\n  port: 8081\n"),
            "12:3: services[0].port",
            &["twice", "f.yaml:11:3"],
        ),
        (with("port: 8080", "port: '8080'"), "11:9: services[0].port", &["without quotes"]),
        (with("port: 8080", "port: [8080]"), "11:9: services[0].port", &["is a list; write a whole number"]),
        (with("[app.example.com]", "app.example.com"), "10:10: services[0].hosts", &["write a list"]),
        (
            with("- - httpresource", "- httpresource"),
            "14:5: services[0].exposedAPIs[0]",
            &["`- -`", "a list"],
        ),
        (
            with("  exposedPort: 8443\n", ""),
            "2:3: services[0].exposedPort",
            &["is missing", "port that users see"],
        ),
        (with("- name: private-app\n  type", "- type"), "2:3: services[0].name", &["is missing"]),
        (
            with("- URI: /*\n    methods", "- methods"),
            "19:5: httpResourceSpecs[0].endpoints[0].URI",
            &["missing"],
        ),
        (service_with("  annotation: x"), "12:3: services[0].annotation", &["`annotations`"]),
        (service_with("  ${X}: x"), "12:3: services[0].${X}", &["not in keys"]),
        (service_with("  hsts:"), "12:7: services[0].hsts", &["has no value"]),
        (service_with("  hsts: \"\""), "12:9: services[0].hsts", &["is empty"]),
        (
            endpoint_with("    maxAuthenticationAge: 0s"),
            "22:27: httpResourceSpecs[0].endpoints[0].maxAuthenticationAge",
            &["out of range"],
        ),
        (endpoint_with("    scopes: []"), "22:5: httpResourceSpecs[0].endpoints[0].scopes", &["unknown key"]),
        (
            with("OIDCClientID: client", "OIDCClientID: \"a\\nb\""),
            "6:17: services[0].OIDCClientID",
            &["line break"],
        ),
    ] {
        says(&yaml, place_and_key, words);
    }
}

#[test]
fn nothing_follows_from_a_mistake_that_is_reported() {
    // Each of these takes away something that a later check would miss.
    for yaml in [
        with("https://app.example.com", "${NO}"),
        with("[app.example.com]", "['${NO}']"),
        with("port: 8080", "port: ${NO}"),
        with("exposedPort: 8443", "exposedPort: ${NO}"),
        with("[GET]", "['${NO}']"),
        with("- - group=staff", "- - ${NO}"),
        with("URI: /*", "URI: ${NO}"),
        with("associatedTags: [httpresourcespec:name=private-app]", "associatedTags: ['${NO}']"),
        with("- - httpresourcespec:name=private-app", "- - ${NO}"),
        with("authorizationType: OIDC", "authorizationType: ${NO}"),
        with("hunter2-secret", "${NO}"),
        with("https://idp.example", "${NO}"),
        with("OIDCCallbackURL:", "OIDCCallbackURl:"),
        with("associatedTags:", "associatedTag:"),
        with("methods:", "method:"),
        with("exposedAPIs:", "exposedApis:"),
        with("OIDCClientSecret:", "OIDCClientSecrets:"),
        service_with("  TLSType: None\n  trustedProxies: ['${NO}']"),
        service_with("  TLSType: External\n  TLSCertificateFile: ${NO}\n  TLSCertificateKey: '-----BEGIN '"),
        service_with("  upstream: ${NO}").replace("  port: 8080\n", ""),
        format!("{GOOD}admin: {{listen: '0.0.0.0:9901', tokenFile: '${{NO}}'}}\n"),
    ] {
        let lines = bad(&yaml);
        assert_eq!(lines.len(), 1, "{lines:#?}\n{yaml}");
    }
}

/// What depends on a value that isn't supported is still judged by itself.
#[test]
fn one_mistake_does_not_hide_others() {
    let yaml = service_with("  TLSType: LetsEncrypt\n  TLSCertificateFile: /nonexistent")
        .replace(": OIDC\n", ": JWT\n")
        .replace("https://idp.example", "idp.example")
        .replace("https://app.example.com", "http://app.example.com")
        .replace("[openid, email]", "[openid email]")
        .replace("[app.example.com]", "['a b', 'c:1', d]")
        .replace("OIDCClientID: client", "OIDCClientId: client");
    let keys: Vec<String> =
        bad(&yaml).iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(
        keys,
        [
            "services[0].authorizationType",
            "services[0].OIDCProviderURL",
            "services[0].OIDCClientId",
            "services[0].OIDCCallbackURL",
            "services[0].OIDCScopes[0]",
            "services[0].hosts[0]",
            "services[0].hosts[1]",
            "services[0].TLSType",
            "services[0].TLSCertificateFile",
        ]
    );
}

/// `${..}` inside a flow list is a mapping to YAML: the message must say so.
#[test]
fn an_unquoted_variable_in_a_flow_list() {
    for yaml in [
        with("[app.example.com]", "[${APP_DOMAIN}]"),
        with("[app.example.com]", "[x, ${APP_DOMAIN:-y}]"),
        with("[GET]", "[${M}, POST]"),
        with("associatedTags: [httpresourcespec:name=private-app]", "associatedTags: [app=${X}]"),
    ] {
        let lines = bad(&yaml);
        assert!(lines.len() == 1 && lines[0].contains("\"${NAME}\""), "{lines:?}");
    }
}
