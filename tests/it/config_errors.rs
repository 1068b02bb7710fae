//! A configuration that is wrong: every mistake at once, each with its place and what to do, and no secret.

use serde_json::Value;

use crate::support::proxy::{Finished, portcullis, refused};

/// Ten mistakes of ten kinds.
const TEN: &str = r#"services:
- name: app
  type: HTTP
  authorizationTyp: OIDC
  OIDCProviderURL: ldap://idp.example.com
  OIDCClientID: client
  OIDCClientSecret: hush-hush-never-shown
  OIDCCallbackURL: http://app.example.com
  OIDCSigningAlgorithms: [RS256, none]
  OIDCClockSkew: soon
  OIDCAuthorizationParameters: { nonce: fixed }
  hosts: [app.example.com]
  port: 99999
  exposedPort: ${PORT_THAT_NOBODY_SET}
  exposedAPIs:
  - - httpresourcespec:name=app
httpResourceSpecs:
- name: app
  associatedTags: [httpresourcespec:name=app]
  endpoints:
  - URI: /a*
    methods: [GET]
    allowedScopes: [[group=a]]
  - URI: /b/../c
    methods: []
    allowedScopes: [[group=a]]
  - URI: /d
    methods: [GET]
    public: true
    allowedScopes: [[group=a]]
session:
  cookieName: session
  store: redis
"#;

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let finished = refused(TEN).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    let errors = &finished.stderr;
    // Line and key of each, and a word of what is wrong or what to do.
    for (line, key, word) in [
        (4, "authorizationTyp", "authorizationType"),
        (5, "OIDCProviderURL", "https"),
        (8, "OIDCCallbackURL", "https"),
        (9, "OIDCSigningAlgorithms", "none"),
        (10, "OIDCClockSkew", "90s"),
        (11, "OIDCAuthorizationParameters", "nonce"),
        (13, "port", "65535"),
        (14, "exposedPort", "PORT_THAT_NOBODY_SET"),
        (21, "URI", "%2A"),
        (24, "URI", "dot segment"),
        (25, "methods", "method"),
        (29, "public", "allowedScopes"),
        (32, "cookieName", "__Host-"),
        (32, "session.redis", "is missing"),
    ] {
        let told = errors.lines().any(|error| {
            error.contains(&format!("portcullis.yaml:{line}:")) && error.contains(key) && error.contains(word)
        });
        assert!(told, "line {line}, {key}: {word}\n{errors}");
    }
    assert!(!format!("{finished:?}").contains("hush-hush"), "the secret: {errors}");
}

/// What protects and is not built yet is never accepted and ignored.
#[tokio::test]
async fn what_is_not_built_is_refused() {
    for line in [
        "  authorizationType: MTLS",
        "  authorizationType: JWT",
        "  TLSType: LetsEncrypt",
        "  identityAssertion: session",
        "  MTLSCertificateAuthority: ca.pem",
        "  JWTAudiences: [a]",
    ] {
        let finished = refused(&with_line(line)).await;
        assert_eq!(finished.code, Some(64), "{line}: {finished:?}");
        assert!(finished.stderr.contains("not supported in this version"), "{line}: {}", finished.stderr);
    }
}

/// Single mistakes whose advice matters.
#[tokio::test]
async fn advice_for_single_mistakes() {
    for (line, word) in [
        ("  OIDCCallbackUrl: https://app.test", "OIDCCallbackURL"),
        ("  authorizationType: None", "public"),
        ("  TLSType: None", "trustedProxies"),
        ("  TLSType: External", "TLSCertificate"),
        ("  redirectURLOnAuthorizationFailure: 'javascript:alert(1)'", "http"),
        ("  mode: off", "observe"),
        ("  allowedOrigins: [ui.test]", "https://"),
        ("  exposedPort: 0", "port"),
        ("  claimsToHTTPHeaderMappings: [{ claimName: a, targetHTTPHeader: Host }]", "X-User"),
        ("  claimsToHTTPHeaderMappings: [{ claimName: a, targetHTTPHeader: 'X Y' }]", "X Y"),
    ] {
        let finished = refused(&with_line(line)).await;
        assert_eq!(finished.code, Some(64), "{line}: {finished:?}");
        assert!(finished.stderr.contains(word), "{line}: {}", finished.stderr);
    }
}

/// The same secret never comes back, whatever is wrong with it or around it.
#[tokio::test]
async fn no_mistake_shows_a_secret() {
    let secret = "hush-hush-never-shown";
    for line in [
        format!("  OIDCClientSecret: [{secret}]"),
        format!("  OIDCClientSecret: {{ {secret}: 1 }}"),
        format!("  OIDCClientSecret: {secret}\n  OIDCClientSecretFile: /nowhere"),
        format!("  OIDCClientSecret: {secret}${{UNSET}}"),
        format!("  OIDCClientSecret: {secret}\n  OIDCClientSecret: {secret}"),
    ] {
        let text = with_line(&line).replace("  OIDCClientSecret: secret\n", "");
        let Finished { code, stdout, stderr } = refused(&text).await;
        assert_eq!(code, Some(64), "{line}: {stderr}");
        assert!(!stderr.contains(secret) && !stdout.contains(secret), "{line}: {stderr}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_read() {
    let finished = portcullis(&["run", "-c", "/nowhere/portcullis.yaml"], &[]).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("/nowhere/portcullis.yaml"), "{finished:?}");
    for text in ["", "services: [", "a: b: c", "services: []\n", "- 1\n", "services: &a [*a]\n"] {
        let finished = refused(text).await;
        assert_eq!(finished.code, Some(64), "{text:?}: {finished:?}");
        assert!(
            !finished.stderr.is_empty() && !finished.stderr.contains("panicked"),
            "{text:?}: {finished:?}"
        );
    }
}

/// A directory of files: lists are appended, a section twice is an error that names both files.
#[tokio::test]
async fn a_directory_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let text = with_line("");
    let (services, specs) = text.split_at(text.find("httpResourceSpecs").unwrap());
    std::fs::write(directory.path().join("1-services.yaml"), services).unwrap();
    std::fs::write(directory.path().join("2-specs.yaml"), specs).unwrap();
    std::fs::write(directory.path().join("notes.txt"), "not: [read").unwrap();
    let path = directory.path().to_str().unwrap();
    let finished = portcullis(&["check", "--offline", "-c", path], &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    std::fs::write(directory.path().join("3-log.yaml"), "log: { format: json }\n").unwrap();
    std::fs::write(directory.path().join("4-log.yaml"), "log: { format: text }\n").unwrap();
    let finished = portcullis(&["check", "--offline", "-c", path], &[]).await;
    let told = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.code == Some(64) || finished.code == Some(1), "{finished:?}");
    assert!(told.contains("3-log.yaml") && told.contains("4-log.yaml"), "{told}");
}

/// The schema is JSON, and names what the parser knows.
#[tokio::test]
async fn the_schema_is_printed() {
    let finished = portcullis(&["schema"], &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let schema: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(schema["properties"]["services"].is_object(), "{schema}");
    for absent in ["LetsEncrypt", "identityAssertion", "MTLS"] {
        assert!(!finished.stdout.contains(absent), "{absent}");
    }
}

#[tokio::test]
async fn bad_usage_is_told() {
    for arguments in [&["fly"][..], &["run", "--nope"], &["run", "-c"], &[]] {
        let finished = portcullis(arguments, &[]).await;
        assert_eq!(finished.code, Some(64), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains("--help"), "{arguments:?}: {finished:?}");
    }
    let finished = portcullis(&["--version"], &[]).await;
    assert_eq!(finished.code, Some(0));
    assert!(finished.stdout.starts_with("portcullis "), "{finished:?}");
}

/// A configuration that is right but for this line of the service.
fn with_line(line: &str) -> String {
    let name = line.trim_start().split(':').next().unwrap_or_default();
    let mut service: Vec<&str> = vec![
        "- name: app",
        "  authorizationType: OIDC",
        "  OIDCProviderURL: https://idp.example.com",
        "  OIDCClientID: client",
        "  OIDCClientSecret: secret",
        "  OIDCCallbackURL: https://app.example.com",
        "  port: 8080",
        "  exposedPort: 8443",
        "  exposedAPIs: [[httpresourcespec:name=app]]",
    ];
    service.retain(|known| name.is_empty() || !known.trim_start().starts_with(&format!("{name}:")));
    service.push(line);
    let specs = "httpResourceSpecs:\n- name: app\n  associatedTags: [httpresourcespec:name=app]\n  endpoints:\n  \
                 - { URI: /*, methods: [GET], allowedScopes: [[group=a]] }\n";
    format!("services:\n{}\n{specs}", service.join("\n"))
}
