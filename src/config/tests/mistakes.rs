use super::*;

/// What must be said about one mistake: exactly one line, with this place and key, and with these words.
fn says(yaml: &str, place_and_key: &str, words: &[&str]) {
    let lines = bad(yaml);
    assert_eq!(lines.len(), 1, "{lines:#?}\n{yaml}");
    let line = &lines[0];
    assert!(line.starts_with(&format!("f.yaml:{place_and_key}: ")), "{line}\nnot at {place_and_key}\n{yaml}");
    for word in words {
        assert!(line.contains(word), "{line}\nlacks {word}");
    }
    assert!(words.is_empty() || line.contains("; "), "what to do? {line}");
}

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
        "f.yaml:24:10: session.store: `redis` is not supported in this version; choose another value",
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
        (many("session: {redis: {url: x}}"), "25:11: session.redis", &["not supported in this version"]),
        (many("session: {refreshBefore: 60s}"), "25:11: session.refreshBefore", &["not supported"]),
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
fn one_service() {
    for (yaml, place_and_key, words) in [
        (with("name: private-app\n", "name: \"a\\\"b\"\n"), "2:9: services[0].name", &["service name"][..]),
        (with("type: HTTP", "type: TCP"), "3:9: services[0].type", &["not supported in this version"]),
        (with("type: HTTP", "type: FTP"), "3:9: services[0].type", &["not one of HTTP"]),
        (
            with(": OIDC\n", ": JWT\n"),
            "4:22: services[0].authorizationType",
            &["not supported in this version"],
        ),
        (
            with(": OIDC\n", ": MTLS\n"),
            "4:22: services[0].authorizationType",
            &["not supported in this version"],
        ),
        (with(": OIDC\n", ": oidc\n"), "4:22: services[0].authorizationType", &["did you mean OIDC?"]),
        (with("https://idp.example", "idp.example"), "5:20: services[0].OIDCProviderURL", &["is not a URL"]),
        (
            with("https://idp.example", "https://u:p@idp.example"),
            "5:20: services[0].OIDCProviderURL",
            &["credentials"],
        ),
        (
            with("https://idp.example", "https://idp.example?a"),
            "5:20: services[0].OIDCProviderURL",
            &["a query"],
        ),
        (
            with("https://idp.example", "http://192.0.2.1"),
            "5:20: services[0].OIDCProviderURL",
            &["on loopback only"],
        ),
        (
            with("https://idp.example", "https://idp.example/.well-known/openid-configuration"),
            "5:20: services[0].OIDCProviderURL",
            &["discovery document"],
        ),
        (
            with("  OIDCProviderURL: https://idp.example\n", ""),
            "2:3: services[0].OIDCProviderURL",
            &["missing"],
        ),
        (with("  OIDCClientID: client\n", ""), "2:3: services[0].OIDCClientID", &["missing"]),
        (
            with("  OIDCClientSecret: hunter2-secret\n", ""),
            "2:3: services[0].OIDCClientSecret",
            &["OIDCClientSecretFile"],
        ),
        (
            with("  OIDCCallbackURL: https://app.example.com\n", ""),
            "2:3: services[0].OIDCCallbackURL",
            &["missing"],
        ),
        (
            with("https://app.example.com", "http://app.example.com"),
            "8:20: services[0].OIDCCallbackURL",
            &["https://"],
        ),
        (
            with("https://app.example.com", "app.example.com"),
            "8:20: services[0].OIDCCallbackURL",
            &["is not a URL"],
        ),
        (
            with("https://app.example.com", "https:\\\\app.example.com"),
            "8:20: services[0].OIDCCallbackURL",
            &["not a URL"],
        ),
        (
            with("https://app.example.com", "https://app.example.com/?a=b"),
            "8:20: services[0].OIDCCallbackURL",
            &["a query"],
        ),
        (
            with("https://app.example.com", "https://app.example.com/#a"),
            "8:20: services[0].OIDCCallbackURL",
            &["fragment"],
        ),
        (
            with("https://app.example.com", "https://app.example.com/aporeto/oidc/logout"),
            "8:20: services[0].OIDCCallbackURL",
            &["another purpose"],
        ),
        (
            with("https://app.example.com", "https://app.example.com/a/../b"),
            "8:20: services[0].OIDCCallbackURL",
            &["normal form"],
        ),
        (
            with("https://app.example.com", "https://other.example.com"),
            "10:10: services[0].hosts",
            &["not among them"],
        ),
        (
            with("[openid, email]", "[openid email]"),
            "9:16: services[0].OIDCScopes[0]",
            &["one scope per entry"],
        ),
        (
            with("[app.example.com]", "['app.example.com:8443']"),
            "10:11: services[0].hosts[0]",
            &["has a port"],
        ),
        (with("[app.example.com]", "['*.example.com']"), "10:11: services[0].hosts[0]", &["wildcard"]),
        (
            with("[app.example.com]", "['https://app.example.com']"),
            "10:11: services[0].hosts[0]",
            &["is a URL"],
        ),
        (with("  port: 8080\n", ""), "2:3: services[0].port", &["missing", "upstream"]),
        (
            with("port: 8080", "port: 8443"),
            "11:9: services[0].port",
            &["in circles", "services[0].exposedPort"],
        ),
        (with("port: 8080", "port: 0"), "11:9: services[0].port", &["from 1 to 65535"]),
        (service_with("  upstream: 'http://localhost:8443'"), "12:13: services[0].upstream", &["in circles"]),
        (service_with("  upstream: 'h2c://localhost:1'"), "12:13: services[0].upstream", &["not supported"]),
        (
            service_with("  upstream: 'ftp://localhost:1'"),
            "12:13: services[0].upstream",
            &["is not a URL", "http://"],
        ),
        (service_with("  upstream: 'http://a/b'"), "12:13: services[0].upstream", &["a path or a query"]),
        (service_with("  upstream: 'unix:'"), "12:13: services[0].upstream", &["path of a socket"]),
        (
            service_with("  exposedServiceIsTLS: true\n  upstream: 'http://a:1'"),
            "12:24: services[0].exposedServiceIsTLS",
            &["https://"],
        ),
        (
            service_with("  trustedCertificateAuthorities: '-----BEGIN CERTIFICATE-----'"),
            "12:34: services[0].trustedCertificateAuthorities",
            &["no effect"],
        ),
        (
            service_with("  listenAddress: everywhere"),
            "12:18: services[0].listenAddress",
            &["not an IP address"],
        ),
        (
            service_with("  trustedProxies: [10.0.0.0/33]"),
            "12:20: services[0].trustedProxies[0]",
            &["10.0.0.0/8"],
        ),
        (
            service_with("  TLSType: LetsEncrypt"),
            "12:12: services[0].TLSType",
            &["not supported in this version"],
        ),
        (service_with("  TLSType: None"), "12:12: services[0].TLSType", &["needs trustedProxies"]),
        (service_with("  TLSCertificateFile: /x"), "12:23: services[0].TLSCertificateFile", &["no effect"]),
        (
            service_with("  TLSCertificate: '-----BEGIN CERTIFICATE-----'\n  TLSType: External"),
            "2:3: services[0].TLSCertificateKey",
            &["missing"],
        ),
        (
            service_with("  OIDCProviderCertificateAuthority: x\n  OIDCProviderCertificateAuthorityFile: y"),
            "13:41: services[0].OIDCProviderCertificateAuthorityFile",
            &["exclude each other"],
        ),
        (
            service_with("  OIDCClientSecretFile: /x"),
            "12:25: services[0].OIDCClientSecretFile",
            &["exclude each other"],
        ),
        (
            service_with("  OIDCSigningAlgorithms: [none]"),
            "12:27: services[0].OIDCSigningAlgorithms[0]",
            &["RS256"],
        ),
        (
            service_with("  OIDCSigningAlgorithms: []"),
            "12:26: services[0].OIDCSigningAlgorithms",
            &["is empty"],
        ),
        (service_with("  OIDCClockSkew: 61s"), "12:18: services[0].OIDCClockSkew", &["from 0 to 60s"]),
        (
            service_with("  OIDCClientAuthentication: none"),
            "12:29: services[0].OIDCClientAuthentication",
            &["auto, basic"],
        ),
        (
            service_with("  OIDCAuthorizationParameters: {nonce: x}"),
            "12:40: services[0].OIDCAuthorizationParameters.nonce",
            &["by the protocol itself"],
        ),
        (
            service_with("  OIDCAuthorizationParameters: {code_challenge_method: x}"),
            "12:56: services[0].OIDCAuthorizationParameters.code_challenge_method",
            &["by the protocol itself"],
        ),
        (
            service_with("  OIDCAuthorizationParameters: {max_age: soon}"),
            "12:42: services[0].OIDCAuthorizationParameters.max_age",
            &["number of seconds"],
        ),
        (service_with("  allowedOrigins: ['*']"), "12:20: services[0].allowedOrigins[0]", &["origin"]),
        (
            service_with("  allowedOrigins: ['https://a/b']"),
            "12:20: services[0].allowedOrigins[0]",
            &["origin"],
        ),
        (
            service_with("  redirectURLOnAuthorizationFailure: /denied"),
            "12:38: services[0].redirectURLOnAuthorizationFailure",
            &["is not a URL"],
        ),
        (
            service_with("  claimsToHTTPHeaderMappings: [{claimName: a, targetHTTPHeader: 'X Y'}]"),
            "12:65: services[0].claimsToHTTPHeaderMappings[0].targetHTTPHeader",
            &["not a header name"],
        ),
        (
            service_with("  claimsToHTTPHeaderMappings: [{claimName: a, targetHTTPHeader: Host}]"),
            "12:65: services[0].claimsToHTTPHeaderMappings[0].targetHTTPHeader",
            &["choose another"],
        ),
        (
            service_with(
                "  claimsToHTTPHeaderMappings:\n  - {claimName: a, targetHTTPHeader: X-A}\n  - {claimName: b, targetHTTPHeader: x_a}",
            ),
            "14:38: services[0].claimsToHTTPHeaderMappings[1].targetHTTPHeader",
            &["already set", "f.yaml:13:38"],
        ),
        (
            service_with("  proxyProtocolEnabled: true"),
            "12:3: services[0].proxyProtocolEnabled",
            &["not supported"],
        ),
        (service_with("  JWTAudiences: [a]"), "12:3: services[0].JWTAudiences", &["not supported"]),
        (
            service_with("  publicApplicationPort: 8443"),
            "12:26: services[0].publicApplicationPort",
            &["taken by services[0].exposedPort"],
        ),
        (service_with("  httpRedirectPort: 8443"), "12:21: services[0].httpRedirectPort", &["taken by"]),
        (
            service_with("  publicApplicationPort: 9901"),
            "12:26: services[0].publicApplicationPort",
            &["admin.listen by default"],
        ),
    ] {
        says(&yaml, place_and_key, words);
    }
}

#[test]
fn rules_and_selection() {
    let selector = "httpresourcespec:name=private-app\nhttp";
    for (yaml, place_and_key, words) in [
        (
            with(selector, "httpresourcespec:name=privat-app\nhttp"),
            "14:5: services[0].exposedAPIs[0]",
            &["this tag", "`httpresourcespec:name=private-app` at f.yaml:17:20"][..],
        ),
        (
            with(selector, "httpresourcespec:name=private-app\n    - app=x\nhttp"),
            "14:5: services[0].exposedAPIs[0]",
            &["all of these tags together"],
        ),
        (
            with("- - httpresourcespec:name=private-app", "- []"),
            "14:5: services[0].exposedAPIs[0]",
            &["at least one tag"],
        ),
        (with("methods: [GET]", "methods: []"), "20:14: httpResourceSpecs[0].endpoints[0].methods", &[]),
        (with("public: false", "public: true"), "21:13: httpResourceSpecs[0].endpoints[0].public", &[]),
        (with("URI: /*", "URI: /a*"), "19:10: httpResourceSpecs[0].endpoints[0].URI", &[]),
        (
            with("- - group=staff", "- - group"),
            "23:9: httpResourceSpecs[0].endpoints[0].allowedScopes[0][0]",
            &[],
        ),
        (with("- - group=staff", "- []"), "23:7: httpResourceSpecs[0].endpoints[0].allowedScopes[0]", &[]),
        (
            format!(
                "{}{}",
                GOOD.replace("stateDirectory: /var/lib/portcullis\n", ""),
                "  - URI: /*/\n    methods: [GET]\n"
            ),
            "25:15: httpResourceSpecs[0].endpoints[1].methods[0]",
            &["f.yaml:19:5"],
        ),
    ] {
        says(&yaml, place_and_key, words);
    }
}

#[test]
fn no_login_only_if_all_is_public() {
    let without_login = GOOD
        .lines()
        .filter(|line| !line.trim_start().starts_with("OIDC"))
        .map(|line| format!("{}\n", line.replace(": OIDC", ": None")))
        .collect::<String>();
    says(&without_login, "4:22: services[0].authorizationType", &["every endpoint is public", "f.yaml:14:5"]);
    let public = without_login
        .replace("public: false", "public: true")
        .replace("    allowedScopes:\n    - - group=staff\n", "");
    let config = good(&public);
    assert!(matches!(config.services[0].authorization, Authorization::None));
    assert_eq!(config.services[0].base_url, "https://app.example.com:8443");
    says(
        &public.replace("  port: 8080\n", "  port: 8080\n  OIDCClientSecret: hunter2-secret\n"),
        "7:21: services[0].OIDCClientSecret",
        &["no effect with authorizationType None"],
    );
    says(&public.replace("  hosts: [app.example.com]\n", ""), "2:3: services[0].hosts", &["missing"]);
}

/// [`GOOD`] with a second service, `two`, whose lines begin at line 15.
fn two(lines: &str) -> String {
    let second = "\
- name: two
  OIDCProviderURL: https://idp.example
  OIDCClientID: client
  OIDCClientSecret: hunter2-secret
  exposedAPIs:
  - - httpresourcespec:name=private-app
";
    with("httpResourceSpecs:\n", &format!("{second}{lines}httpResourceSpecs:\n"))
}

#[test]
fn several_services() {
    let other = "  OIDCCallbackURL: https://two.example.com\n  port: 8081\n";
    for (lines, place_and_key, words) in [
        (
            "  OIDCCallbackURL: https://app.example.com\n  port: 8081\n  exposedPort: 8443\n".to_owned(),
            "21:20: services[1].OIDCCallbackURL",
            &["belongs to another service on the same port", "`app.example.com`", "f.yaml:10:11"][..],
        ),
        (
            format!("{other}  exposedPort: 8443\n  hosts: [two.example.com, APP.example.com.]\n"),
            "24:28: services[1].hosts[1]",
            &["f.yaml:10:11"],
        ),
        (
            format!("{other}  exposedPort: 8443\n  listenAddress: 127.0.0.1\n"),
            "23:16: services[1].exposedPort",
            &["the same listenAddress"],
        ),
        (
            format!("{other}  exposedPort: 8443\n  TLSType: None\n  trustedProxies: [10.0.0.1]\n"),
            "23:16: services[1].exposedPort",
            &["both be TLS"],
        ),
        (
            format!("{other}  exposedPort: 9901\n"),
            "23:16: services[1].exposedPort",
            &["admin.listen by default"],
        ),
        (format!("{other}  exposedPort: 8080\n"), "11:9: services[0].port", &["services[1].exposedPort"]),
    ] {
        says(&two(&lines), place_and_key, words);
    }
    says(
        &two(&format!("{other}  exposedPort: 8443\n")).replace("name: two", "name: private-app"),
        "15:9: services[1].name",
        &["another service has this name", "f.yaml:2:9"],
    );
    // Different addresses, or the same port told apart by hosts.
    good(&two(&format!("{other}  exposedPort: 8443\n")));
    good(
        &two(&format!("{other}  exposedPort: 8443\n  listenAddress: 192.0.2.1\n"))
            .replace("  hosts: [app", "  listenAddress: 192.0.2.2\n  hosts: [app"),
    );
}

#[test]
fn the_operators_listeners() {
    for (line, place_and_key, words) in [
        ("admin: {listen: '0.0.0.0:9901'}", "25:17: admin.listen", &["tokenFile"][..]),
        ("admin: {listen: '9901'}", "25:17: admin.listen", &["127.0.0.1:9901"]),
        ("admin: {listen: '127.0.0.1:0'}", "25:17: admin.listen", &["127.0.0.1:9901"]),
        ("admin: {probes: 'all:9902'}", "25:17: admin.probes", &["127.0.0.1:9901"]),
        ("admin: {probes: '0.0.0.0:9901'}", "25:17: admin.probes", &["taken by admin.listen"]),
        (
            "admin: {probes: '0.0.0.0:8443'}",
            "25:17: admin.probes",
            &["taken by services[0].exposedPort at f.yaml:12:16"],
        ),
        (
            "admin: {tokenFile: /nonexistent}",
            "25:20: admin.tokenFile",
            &["cannot read the file `/nonexistent`"],
        ),
    ] {
        says(&format!("{GOOD}{line}\n"), place_and_key, words);
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

#[test]
fn no_secret_and_no_expansion_is_ever_shown() {
    let environment = Environment::of([
        ("S", "hunter2"),
        ("PORT", "hunter2"),
        ("BIG", "99999222"),
        ("URL", "http://hunter2"),
        ("NL", "hunter2\n"),
    ]);
    for yaml in [
        with("hunter2-secret", "\"hunter2\\x07\""),
        with("OIDCClientSecret:", "OIDCClientSecert:"),
        with("OIDCClientSecret: hunter2-secret", "OIDCClientSecret: [hunter2]"),
        with("OIDCClientSecret: hunter2-secret", "OIDCClientSecret: {hunter2: x}"),
        with("hunter2-secret", "${NL}"),
        with("OIDCClientSecret: hunter2-secret", "OIDCClientSecretFile: ${S}"),
        with("port: 8080", "port: ${PORT}"),
        with("port: 8080", "port: ${BIG}"),
        with("https://app.example.com", "${URL}"),
        with("https://idp.example", "https://user:hunter2@idp.example"),
        with("https://idp.example", "${S}"),
        with("[app.example.com]", "['${S}/']"),
        with("authorizationType: OIDC", "authorizationType: ${S}"),
        with("URI: /*", "URI: '${S}*'"),
        with("- - group=staff", "- - ${S}"),
        with("- - httpresourcespec:name=private-app", "- - ${S}"),
        service_with("  TLSType: External\n  TLSCertificateKey: hunter2\n  TLSCertificate: '-----BEGIN '"),
        service_with("  TLSType: External\n  TLSCertificateKeyFile: ${S}\n  TLSCertificate: '-----BEGIN '"),
        service_with("  listenAddress: ${S}"),
        service_with("  upstream: ${S}"),
        service_with("  mode: ${S}"),
        service_with("  OIDCAuthorizationParameters: {max_age: '${S}'}"),
        format!("{GOOD}admin: {{listen: '${{S}}'}}\n"),
        format!("{GOOD}session: {{idleTimeout: '${{S}}', cookieName: '${{S}}'}}\n"),
    ] {
        let lines = bad_in(&text(&yaml), &environment);
        for line in lines {
            assert!(!line.contains("hunter2") || yaml.contains("{hunter2: x}"), "{line}\n{yaml}");
            assert!(!line.contains("99999222"), "{line}");
        }
    }
}

#[test]
fn files_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("text"), "not pem").unwrap();
    std::fs::write(path("pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let file = |key: &str, name: &str| format!("  {key}: {}", path(name).display());
    let external = |certificate: &str, key: &str| {
        let lines = [file("TLSCertificateFile", certificate), file("TLSCertificateKeyFile", key)];
        service_with(&format!("  TLSType: External\n{}", lines.join("\n")))
    };
    let secret = |name: &str| with("  OIDCClientSecret: hunter2-secret", &file("OIDCClientSecretFile", name));
    for (yaml, key, words) in [
        (secret("missing"), "7:25: services[0].OIDCClientSecretFile", "cannot read the file"),
        (secret("empty"), "7:25: services[0].OIDCClientSecretFile", "is empty"),
        (external("text", "pem"), "13:23: services[0].TLSCertificateFile", "no PEM text"),
        (external("pem", "missing"), "14:26: services[0].TLSCertificateKeyFile", "cannot read"),
        (
            service_with(&format!(
                "  TLSType: External\n{}\n  TLSCertificateKey: x",
                file("TLSCertificate", "pem")
            )),
            "14:22: services[0].TLSCertificateKey",
            "neither PEM text nor a file",
        ),
    ] {
        says(&yaml, key, &[words]);
    }
    good(&external("pem", "pem"));
    good(&secret("text"));
}

#[test]
fn a_directory_is_one_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let source = Source::Path(directory.path().to_owned());
    let load = || load(&source, &Environment::default());
    assert!(load().unwrap_err().to_string().contains("no *.yaml file"));

    let (service, spec) = GOOD.split_once("httpResourceSpecs:").unwrap();
    write("10-service.yaml", service);
    write("20-spec.yaml", &format!("httpResourceSpecs:{spec}"));
    write(".hidden.yaml", "nonsense: true");
    write("notes.txt", "nonsense: true");
    assert_eq!(load().unwrap().services.len(), 1);

    let second = service
        .replace("name: private-app\n  type", "name: two\n  type")
        .replace("app.example.com", "two.example.com")
        .replace("8080", "8081");
    write("30-more.yaml", &second);
    let config = load().unwrap();
    let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["private-app", "two"]);

    // A mistake in the list's second file is at that file's own index.
    write("30-more.yaml", &second.replace("8081", "none"));
    let line = load().unwrap_err().iter().next().unwrap().to_string();
    assert!(line.contains("30-more.yaml:11:9: services[0].port: "), "{line}");
    write("30-more.yaml", &second.replace("https://idp", "ftp://idp"));
    let line = load().unwrap_err().iter().next().unwrap().to_string();
    assert!(line.contains("30-more.yaml:5:20: services[0].OIDCProviderURL: "), "{line}");

    write("30-more.yaml", "stateDirectory: /x\nhttpResourceSpecs: []\n");
    let mistakes = load().unwrap_err().to_string();
    assert!(mistakes.contains("30-more.yaml:1:1: stateDirectory: this section is also in "), "{mistakes}");
    assert!(mistakes.contains("20-spec.yaml:10:1"), "{mistakes}");

    // A file that can't be parsed doesn't make the others' references wrong, nor hide their own mistakes.
    write("20-spec.yaml", "httpResourceSpecs: [");
    write("30-more.yaml", "sesion: {}\n");
    let mistakes = load().unwrap_err();
    assert_eq!(mistakes.len(), 2, "{mistakes}");
    write("20-spec.yaml", "");
    write("30-more.yaml", "log: {}\n");
    let mistakes = load().unwrap_err();
    assert!(mistakes.len() == 1 && mistakes.to_string().contains("20-spec.yaml:1:1: is empty"), "{mistakes}");
}

#[test]
fn a_source_that_is_not_there() {
    let lines = bad_in(&Source::Path("/nonexistent/p.yaml".into()), &Environment::default());
    assert!(
        lines.len() == 1 && lines[0].starts_with("/nonexistent/p.yaml:1:1: cannot be read: "),
        "{lines:?}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0xff, 0xfe]).unwrap();
    let lines = bad_in(&Source::Path(file.path().to_owned()), &Environment::default());
    assert!(lines.len() == 1 && lines[0].contains("not UTF-8"), "{lines:?}");
}

proptest::proptest! {
    /// Whatever is cut off, doubled or garbled: an answer, and no secret in it.
    #[test]
    fn half_written_files(cut in 0..GOOD.len(), junk in "[ \n:{}\\[\\]&*!|>'\"-]{0,4}") {
        let yaml = format!("{}{junk}", &GOOD[..cut]);
        if let Err(mistakes) = load_text(&yaml) {
            proptest::prop_assert!(!mistakes.to_string().contains("hunter2"));
        }
    }
}
