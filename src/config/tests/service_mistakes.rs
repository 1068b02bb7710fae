use super::*;

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
        (service_with("  upstream: 'h2c://localhost:8443'"), "12:13: services[0].upstream", &["in circles"]),
        (service_with("  upstream: 'h2c://a/b'"), "12:13: services[0].upstream", &["a path or a query"]),
        (service_with("  upstream: 'h2c+unix:'"), "12:13: services[0].upstream", &["path of a socket"]),
        (service_with("  upstream: 'h2:localhost:1'"), "12:13: services[0].upstream", &["is not a URL"]),
        (
            service_with("  upstream: 'grpc://localhost:1'"),
            "12:13: services[0].upstream",
            &["is not a URL", "h2c://"],
        ),
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
        (service_with("  TLSType: External"), "12:12: services[0].TLSType", &["TLSCertificateKeyFile"]),
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
            "12:25: services[0].proxyProtocolEnabled",
            &["needs proxyProtocolSubnets"],
        ),
        (
            service_with("  proxyProtocolSubnets: [10.0.0.1]"),
            "12:25: services[0].proxyProtocolSubnets",
            &["no effect without proxyProtocolEnabled"],
        ),
        (
            service_with("  proxyProtocolEnabled: true\n  proxyProtocolSubnets: [10.0.0.0/8, balancer]"),
            "13:38: services[0].proxyProtocolSubnets[1]",
            &["not an IP address or a network"],
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
    // What is left over from a login is named, and the callback still tells where users see the application.
    let left_over = GOOD
        .replace("authorizationType: OIDC", "authorizationType: None")
        .replace("public: false", "public: true")
        .replace("    allowedScopes:\n    - - group=staff\n", "");
    let config = good(&left_over);
    assert_eq!(config.services[0].base_url, "https://app.example.com");
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].ends_with(": OIDCProviderURL, OIDCClientID, OIDCClientSecret, OIDCScopes"),
        "{warnings:?}"
    );
    says(&public.replace("  hosts: [app.example.com]\n", ""), "2:3: services[0].hosts", &["missing"]);
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
