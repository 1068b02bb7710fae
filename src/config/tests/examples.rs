use std::path::Path;

use super::*;

/// The files that the examples name.
fn secrets() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (name, text) in [
        ("client-secret", "s3cret\n"),
        ("wiki-client-secret", "s3cret"),
        ("shop-client-secret", "s3cret"),
        ("admin-token", "t0ken"),
        ("session-keys", key),
        ("idp-ca.pem", "-----BEGIN CERTIFICATE-----"),
        ("app-ca.pem", "-----BEGIN CERTIFICATE-----"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----"),
        ("tls.key", "-----BEGIN PRIVATE KEY-----"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn every_example_loads() {
    let secrets = secrets();
    let environment =
        Environment::of([("SECRETS", secrets.path().to_str().unwrap()), ("CLIENT_SECRET", "s3cret")]);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut loaded = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let config =
            load(&Source::Path(path.clone()), &environment).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(config.services.iter().all(|service| !service.rules.endpoints.is_empty()));
        assert!(!config.redacted_yaml().contains("s3cret"));
        loaded.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), config));
    }
    loaded.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<&str> = loaded.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["behind-a-load-balancer", "external-certificate", "original", "several-services"]);
    let warnings =
        |i: usize| loaded[i].1.warnings.iter().map(|warning| warning.key.as_str()).collect::<Vec<_>>();
    assert_eq!(warnings(0), ["services[0].TLSType"]);
    assert_eq!(warnings(1), [""; 0]);
    assert_eq!(warnings(2), ["stateDirectory", "services[0].TLSType"]);
    assert_eq!(warnings(3), [""; 0]);
    let several = &loaded[3].1.services;
    assert_eq!((several.len(), several[1].hosts.len()), (2, 2));
    assert_eq!(several[1].canonical_host.as_str(), "shop.example.com");
}

/// Examples are read by people: every one says how to run it.
#[test]
fn every_example_is_commented() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.starts_with("# ") && text.contains(&format!("-c config/examples/{name}")), "{name}");
    }
}
