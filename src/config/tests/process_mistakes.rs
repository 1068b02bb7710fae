use super::*;

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
            format!(
                "{other}  exposedPort: 8443\n  proxyProtocolEnabled: true\n  proxyProtocolSubnets: [10.0.0.1]\n"
            ),
            "23:16: services[1].exposedPort",
            &["only one of them expects the PROXY protocol", "proxyProtocolSubnets"],
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
