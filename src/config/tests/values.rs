use std::time::Duration;

use super::*;
use crate::proxy::{HttpVersion, Upstream};
use crate::secret;
use crate::session::KeySource;

fn environment() -> Environment {
    Environment::of([
        ("IDP_URL", "https://idp.example/realm/"),
        ("CLIENT_ID", "0123"),
        ("CLIENT_SECRET", "p@ss: [w]ord #1"),
        ("APP_URL", "https://app.example.com:8443"),
        ("APP_DOMAIN", "app.example.com"),
        ("APP_PORT", "8080"),
        ("USER_PORT", "8443"),
        ("USER_TAG", "email=*@example.com"),
    ])
}

fn provider(service: &Service) -> &oidc::Config {
    match &service.authorization {
        Authorization::Oidc(provider) => provider,
        Authorization::None => panic!("no login"),
    }
}

#[test]
fn the_environment_is_enough() {
    let config = load(&Source::BuiltIn, &environment()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let [service] = config.services.as_slice() else { panic!() };
    let provider = provider(service);
    assert_eq!(provider.issuer, "https://idp.example/realm/");
    assert_eq!(provider.client_id, "0123");
    let Some(secret::Source::Inline(secret)) = &provider.client_secret else { panic!() };
    assert_eq!(secret.expose(), "p@ss: [w]ord #1");
    assert_eq!(provider.redirect_uri.as_str(), "https://app.example.com:8443/aporeto/oidc/callback");
    assert_eq!(provider.scopes, ["openid", "email"]);
    assert!(provider.needed_claims.contains("email"));
    assert_eq!((&*service.name, service.exposed_port), ("private-app", 8443));
    assert_eq!(service.base_url, "https://app.example.com:8443");
    assert_eq!(service.canonical_host.as_str(), "app.example.com");
    assert_eq!(service.upstream.upstream, Upstream::Tcp { host: "127.0.0.1".to_owned(), port: 8080 });
    assert_eq!(service.rules.endpoints[0].allowed_scopes, [["email=*@example.com"]]);
}

#[test]
fn every_variable_that_is_not_set_is_named() {
    let lines = bad_in(&Source::BuiltIn, &Environment::default());
    let names = [
        "IDP_URL",
        "CLIENT_ID",
        "CLIENT_SECRET",
        "APP_URL",
        "APP_DOMAIN",
        "APP_PORT",
        "USER_PORT",
        "USER_TAG",
    ];
    assert_eq!(lines.len(), names.len(), "{lines:#?}");
    for (line, name) in lines.iter().zip(names) {
        assert!(line.starts_with("config/portcullis.yaml (built in):"), "{line}");
        assert!(line.contains(&format!("the variable {name} is not set")), "{line}");
    }
}

#[test]
fn a_value_is_typed_after_expansion_and_stays_a_value() {
    let environment = Environment::of([
        ("PORT", "9000"),
        ("YES", "true"),
        ("AGE", "31536000"),
        ("TIME", "90s"),
        ("TRICK", "a\", port: 1, x: \"${PORT} $$ *alias &anchor !tag # no comment"),
        ("NUMBER", "0123"),
        ("NULL", "null"),
    ]);
    let yaml = service_with("  mergeSlashes: ${YES}\n  hsts: ${AGE}")
        .replace("port: 8080", "port: \"${PORT}\"")
        .replace("OIDCClientID: client", "OIDCClientID: ${TRICK}")
        .replace("hunter2-secret", "${NUMBER}")
        .replace("group=staff", "g=${NULL}$$${NOPE:-x}");
    let yaml = format!("{yaml}session: {{idleTimeout: '${{TIME}}'}}\n");
    let config = load(&text(&yaml), &environment).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let service = &config.services[0];
    assert_eq!(service.upstream.upstream, Upstream::Tcp { host: "127.0.0.1".to_owned(), port: 9000 });
    assert!(service.path.merge_slashes);
    assert_eq!(service.hsts, Some(Duration::from_secs(31_536_000)));
    assert_eq!(service.session.idle_timeout, Duration::from_secs(90));
    assert_eq!(provider(service).client_id, "a\", port: 1, x: \"${PORT} $$ *alias &anchor !tag # no comment");
    assert_eq!(service.rules.endpoints[0].allowed_scopes, [["g=null$x"]]);
    let Some(secret::Source::Inline(secret)) = &provider(service).client_secret else { panic!() };
    assert_eq!(secret.expose(), "0123");
}

#[test]
fn strings_keep_their_spelling() {
    for spelled in ["0123", "1e3", "true", "1.10", "0x1F", "2001-01-01", "on"] {
        let config = good(&with("OIDCClientID: client", &format!("OIDCClientID: {spelled}")));
        assert_eq!(provider(&config.services[0]).client_id, spelled);
    }
}

#[test]
fn defaults() {
    let minimal = "\
services:
- name: a
  OIDCProviderURL: https://idp.example
  OIDCClientID: c
  OIDCClientSecret: s
  OIDCCallbackURL: https://App.Example.com/
  port: 8080
  exposedPort: 443
";
    let config = good(minimal);
    let service = &config.services[0];
    assert_eq!(service.hosts, [Host::parse("app.example.com").unwrap()]);
    assert_eq!(service.callback_path, CALLBACK_PATH);
    assert_eq!(
        (service.listen_address, service.public_application_port, service.http_redirect_port),
        (None, None, None)
    );
    assert!(matches!(&service.tls, Some(tls::Certificate::Own { directory: None, .. })));
    assert_eq!((service.hsts, service.redirect_on_failure.as_ref()), (None, None));
    assert_eq!(service.path, path::Options::default());
    let provider = provider(service);
    assert_eq!(provider.scopes, ["openid"]);
    assert_eq!(provider.clock_skew, Duration::from_secs(60));
    assert_eq!(provider.signing_algorithms, None);
    assert_eq!(service.session.cookie_name.as_str(), "__Host-portcullis");
    assert_eq!(service.login_cookie.as_str(), "__Host-portcullis-login");
    assert_eq!(service.session.idle_timeout, Duration::from_secs(3_600));
    assert_eq!(service.session.max_lifetime, Duration::from_secs(12 * 3_600));
    assert_eq!(config.session_keys, KeySource::Ephemeral);
    assert_eq!(config.admin.listen, AdminListen::Tcp("127.0.0.1:9901".parse().unwrap()));
    assert_eq!((config.admin.probes, config.admin.token_file), (None, None));
    let limits = &config.limits;
    let seconds = Duration::from_secs;
    assert_eq!((limits.header_timeout, limits.handshake_timeout), (seconds(10), seconds(5)));
    assert_eq!((limits.header_bytes, limits.header_fields, limits.target_bytes), (65_536, 100, 16_384));
    assert_eq!((limits.h2_streams, limits.connections), (100, 10_000));
    assert_eq!(limits.workers, std::thread::available_parallelism().unwrap().get());
    assert_eq!((limits.connect_timeout, limits.response_timeout), (seconds(3), seconds(60)));
    assert_eq!((limits.body_idle_timeout, limits.idle_timeout), (seconds(60), seconds(75)));
    assert_eq!((limits.shutdown_delay, limits.drain), (seconds(5), seconds(25)));
}

#[test]
fn the_state_directory() {
    let without = with("stateDirectory: /var/lib/portcullis\n", "");
    for (yaml, inherited, expected) in [
        (GOOD, None, Some("/var/lib/portcullis")),
        (GOOD, Some("/run/x"), Some("/var/lib/portcullis")),
        (without.as_str(), Some("/var/lib/a:/var/lib/b"), Some("/var/lib/a")),
        (without.as_str(), Some(""), None),
        (without.as_str(), None, None),
    ] {
        let environment = Environment::of(inherited.map(|value| ("STATE_DIRECTORY", value)));
        let config = load(&text(yaml), &environment).unwrap();
        assert_eq!(config.state_directory, expected.map(PathBuf::from));
        let keys = expected.map_or(KeySource::Ephemeral, |state| KeySource::State(state.into()));
        assert_eq!(config.session_keys, keys);
    }
}

#[test]
fn relative_paths_count_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), "s").unwrap();
    let yaml = with("OIDCClientSecret: hunter2-secret", "OIDCClientSecretFile: secret")
        .replace("/var/lib/portcullis", "state")
        .replace("  port: 8080\n", "  upstream: unix:app.sock\n");
    std::fs::write(directory.path().join("p.yaml"), yaml).unwrap();
    let source = Source::Path(directory.path().join("p.yaml"));
    let config = load(&source, &Environment::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.state_directory, Some(directory.path().join("state")));
    let service = &config.services[0];
    assert_eq!(service.upstream.upstream, Upstream::Unix(directory.path().join("app.sock")));
    let file = directory.path().join("secret");
    assert_eq!(provider(service).client_secret, Some(secret::Source::File(file)));
}

#[test]
fn the_callback_url() {
    for (written, whole) in [
        ("https://app.example.com", "https://app.example.com/aporeto/oidc/callback"),
        ("https://app.example.com/", "https://app.example.com/aporeto/oidc/callback"),
        ("https://app.example.com:443/", "https://app.example.com/aporeto/oidc/callback"),
        ("https://app.example.com/cb", "https://app.example.com/cb"),
        ("https://app.example.com/cb/", "https://app.example.com/cb/"),
        ("https://app.example.com/aporeto/oidc/callback", "https://app.example.com/aporeto/oidc/callback"),
    ] {
        let config = good(&with("https://app.example.com", written));
        assert_eq!(provider(&config.services[0]).redirect_uri.as_str(), whole);
        assert!(whole.ends_with(&config.services[0].callback_path));
    }
}

#[test]
fn upstreams() {
    let tcp = |host: &str, port| Upstream::Tcp { host: host.to_owned(), port };
    let tls = |host: &str, port| Upstream::Tls { host: host.to_owned(), port, roots: None };
    for (lines, expected) in [
        ("upstream: http://localhost:3000", tcp("localhost", 3000)),
        ("upstream: http://app.internal", tcp("app.internal", 80)),
        ("upstream: 'http://[::1]:3000/'", tcp("::1", 3000)),
        ("upstream: https://app.internal", tls("app.internal", 443)),
        ("upstream: unix:/run/app.sock", Upstream::Unix("/run/app.sock".into())),
        ("upstream: unix:///run/app.sock", Upstream::Unix("/run/app.sock".into())),
        ("exposedServiceIsTLS: true", tls("127.0.0.1", 8080)),
    ] {
        assert_eq!(good(&service_with(&format!("  {lines}"))).services[0].upstream.upstream, expected);
    }
    for (upstream, expected, version) in [
        ("http://localhost:3000", tcp("localhost", 3000), HttpVersion::Http1),
        ("h2c://localhost:3000", tcp("localhost", 3000), HttpVersion::Http2),
        ("'h2c://[::1]:3000/'", tcp("::1", 3000), HttpVersion::Http2),
        ("h2c://LOCALHOST", tcp("localhost", 80), HttpVersion::Http2),
        ("h2://app.internal", tls("app.internal", 443), HttpVersion::Http2),
        ("h2c+unix:/run/app.sock", Upstream::Unix("/run/app.sock".into()), HttpVersion::Http2),
    ] {
        let config = good(&service_with(&format!("  upstream: {upstream}")));
        let proxy = &config.services[0].upstream;
        assert_eq!((&proxy.upstream, proxy.version), (&expected, version), "{upstream}");
    }
}

#[test]
fn cookies_of_services_on_one_host() {
    let (service, rest) = GOOD.split_once("httpResourceSpecs:").unwrap();
    let service = service.replacen("services:\n", "", 1);
    let second = service.replace("name: private-app\n  type", "name: two\n  type").replace("8443", "8444");
    let third = second.replace("two", "three").replace("app.example.com", "three.example.com");
    let yaml = format!("services:\n{service}{second}{third}httpResourceSpecs:{rest}");
    let config = good(&yaml);
    let names: Vec<_> = config
        .services
        .iter()
        .map(|service| (service.session.cookie_name.as_str(), service.login_cookie.as_str()))
        .collect();
    assert_eq!(names[0], ("__Host-portcullis-private-app", "__Host-portcullis-login-private-app"));
    assert_eq!(names[1], ("__Host-portcullis-two", "__Host-portcullis-login-two"));
    assert_eq!(names[2], ("__Host-portcullis", "__Host-portcullis-login"));
    assert_eq!(config.own_cookies.len(), 6);
    assert!(config.services.iter().all(|service| service.upstream.own_cookies.len() == 6));
}

#[test]
fn selection_is_an_or_of_ands() {
    let specs = "\
httpResourceSpecs:
- {name: a, associatedTags: [x, y], endpoints: [{URI: /a, methods: [GET]}]}
- {name: b, associatedTags: [x], endpoints: [{URI: /b, methods: [GET]}]}
- {name: c, associatedTags: [z], endpoints: [{URI: /c, methods: [GET]}]}
- {name: d, endpoints: [{URI: /d, methods: [GET]}]}
";
    let (service, _) = GOOD.split_once("  exposedAPIs:").unwrap();
    for (selectors, expected, unused) in [
        ("[[x, y]]", &["/a"][..], 3),
        ("[[x]]", &["/a", "/b"], 2),
        ("[[x, y], [z]]", &["/a", "/c"], 2),
        ("[[x], [y], [z]]", &["/a", "/b", "/c"], 1),
    ] {
        let config = good(&format!("{service}  exposedAPIs: {selectors}\n{specs}"));
        let uris: Vec<&str> =
            config.services[0].rules.endpoints.iter().map(|rule| rule.uri.as_str()).collect();
        assert_eq!(uris, expected);
        let warned =
            config.warnings.iter().filter(|warning| warning.text.contains("no service selects")).count();
        assert_eq!(warned, unused);
    }
}

#[test]
fn warnings_name_what_is_relaxed() {
    let none = good(GOOD).warnings;
    assert!(none.is_empty(), "{none:?}");
    for (yaml, place_and_key, words) in [
        (service_with("  mode: observe"), "f.yaml:12:9: services[0].mode: ", "let through"),
        (
            service_with("  corsPreflight: forward"),
            "f.yaml:12:18: services[0].corsPreflight: ",
            "without a login",
        ),
        (
            service_with("  upstream: http://app.internal"),
            "f.yaml:12:13: services[0].upstream: ",
            "another machine",
        ),
        (service_with("  upstream: http://localhost:1"), "f.yaml:11:9: services[0].port: ", "not used"),
        (
            service_with("  OIDCSigningAlgorithms: [HS256]"),
            "f.yaml:12:26: services[0].OIDCSigningAlgorithms: ",
            "HS256",
        ),
        (
            service_with("  TLSType: None\n  trustedProxies: [10.0.0.1]"),
            "f.yaml:12:12: services[0].TLSType: ",
            "plain HTTP",
        ),
        (
            service_with("  trustedProxies: [0.0.0.0/0]"),
            "f.yaml:12:20: services[0].trustedProxies[0]: ",
            "trusts every peer",
        ),
        (
            service_with("  proxyProtocolEnabled: true\n  proxyProtocolSubnets: ['::/0']"),
            "f.yaml:13:26: services[0].proxyProtocolSubnets[0]: ",
            "believes every peer",
        ),
        (
            service_with("  redirectURLOnAuthorizationFailure: https://App.example.com:8443/denied"),
            "f.yaml:12:38: services[0].redirectURLOnAuthorizationFailure: ",
            "in circles",
        ),
        (with("https://idp", "http://idp"), "f.yaml:5:20: services[0].OIDCProviderURL: ", "plain http"),
        (with("stateDirectory: /var/lib/portcullis\n", ""), "stateDirectory: ", "logs everybody out"),
        (with("stateDirectory: /var/lib/portcullis\n", ""), "services[0].TLSType: ", "in memory"),
        (
            with("URI: /*", "URI: /aporeto/oidc/login"),
            "f.yaml:19:10: httpResourceSpecs[0].endpoints[0].URI: ",
            "reserved",
        ),
        (
            with("https://app.example.com", "https://app.example.com/cb").replace("URI: /*", "URI: /cb/"),
            "f.yaml:19:10: httpResourceSpecs[0].endpoints[0].URI: ",
            "reserved",
        ),
        (
            with("  exposedAPIs:\n  - - httpresourcespec:name=private-app\n", ""),
            "services[0].exposedAPIs: ",
            "every request to this service is refused",
        ),
    ] {
        let warnings: Vec<String> = good(&yaml).warnings.iter().map(ToString::to_string).collect();
        let found = warnings.iter().any(|line| line.starts_with(place_and_key) && line.contains(words));
        assert!(found, "{place_and_key}{words}\n{warnings:#?}");
    }
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let yaml = service_with(
        "  TLSType: External\n  TLSCertificate: '-----BEGIN CERTIFICATE-----'\n  TLSCertificateKey: '-----BEGIN hunter2-key'\n  selectors: [[a]]",
    );
    let config = good(&yaml);
    let shown = config.redacted_yaml();
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{shown}");
    let json = config.redacted();
    let service = &json["services"][0];
    assert_eq!(service["OIDCClientSecret"], "[redacted]");
    assert_eq!(service["TLSCertificateKey"], "[redacted]");
    assert_eq!(service["OIDCCallbackURL"], "https://app.example.com/aporeto/oidc/callback");
    assert_eq!(service["upstream"], "http://127.0.0.1:8080");
    assert_eq!(service["OIDCClockSkew"], "60s");
    assert!(service.get("selectors").is_none());
    assert_eq!(json["limits"]["headerBytes"], "64KiB");
    assert_eq!(json["session"]["idleTimeout"], "1h");
}

#[test]
fn anchors_save_typing() {
    let yaml = GOOD.replace("endpoints:\n  - URI: /*\n", "endpoints:\n  - &rule\n    URI: /*\n") + "";
    let yaml = yaml.replace("    - - group=staff\n", "    - - group=staff\n  - <<: *rule\n    URI: /other\n");
    let config = good(&yaml);
    let rules = &config.services[0].rules.endpoints;
    assert_eq!((rules.len(), rules[1].uri.as_str()), (2, "/other"));
    assert_eq!(rules[1].allowed_scopes, rules[0].allowed_scopes);
}

#[test]
fn ten_thousand_endpoints() {
    let mut yaml = with("stateDirectory: /var/lib/portcullis\n", "");
    for i in 0..10_000 {
        yaml.push_str(&format!("  - {{URI: /x/{i}, methods: [GET], allowedScopes: [[group=g{i}]]}}\n"));
    }
    assert_eq!(good(&yaml).services[0].rules.endpoints.len(), 10_001);
}
