use super::*;

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
