use super::*;

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
