//! What the contract names and this version doesn't enforce. It is absent from the schema, and asking for it is
//! an error of its own: nothing that protects is ever accepted and ignored.

/// Keys, with the indices of lists left out.
const KEYS: [&str; 7] = [
    "services.JWTAudiences",
    "services.JWTIssuers",
    "services.JWTSigningCertificate",
    "services.JWTSigningCertificateFile",
    "services.MTLSCertificateAuthority",
    "services.MTLSCertificateAuthorityFile",
    "services.identityAssertion",
];

/// Values of keys that are known.
const VALUES: [(&str, &str); 4] = [
    ("services.TLSType", "LetsEncrypt"),
    ("services.authorizationType", "JWT"),
    ("services.authorizationType", "MTLS"),
    ("services.type", "TCP"),
];

/// Whether this path, such as `services[0].identityAssertion`, is a key of a later version.
pub(super) fn is_later_key(path: &str) -> bool {
    KEYS.contains(&without_indices(path).as_str())
}

/// Whether this value is one of a later version.
pub(super) fn is_later_value(path: &str, value: &str) -> bool {
    VALUES.contains(&(without_indices(path).as_str(), value))
}

fn without_indices(path: &str) -> String {
    let mut inside = false;
    let outside = |c: &char| {
        inside = match c {
            '[' => true,
            ']' => {
                inside = false;
                return false;
            }
            _ => inside,
        };
        !inside
    };
    path.chars().filter(outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_do_not_count() {
        assert_eq!(without_indices("services[10].exposedAPIs[0][1]"), "services.exposedAPIs");
        assert!(is_later_key("services[3].identityAssertion") && !is_later_key("services[3].hosts"));
        assert!(is_later_value("services[0].type", "TCP") && !is_later_value("services[0].type", "HTTP"));
    }
}
