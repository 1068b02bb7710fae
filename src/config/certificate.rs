//! The certificate of `exposedPort`: every key that begins with `TLS`.

use std::path::Path;

use super::host::Host;
use super::problem::Problem;
use super::raw_service::{Service as Raw, TlsType};
use super::resolve::Resolver;
use crate::tls;

impl Resolver<'_> {
    /// `Some(None)`: plain, behind a proxy.
    pub fn certificate(
        &mut self,
        at: &str,
        raw: &Raw,
        hosts: &[Host],
        state_directory: Option<&Path>,
    ) -> Option<Option<tls::Certificate>> {
        let decided = !self.origins.is_pruned(&format!("{at}.TLSType"));
        let secret = raw.tls_certificate_key.as_ref().map(|key| key.0.expose().as_str());
        let certificate = ("TLSCertificate", raw.tls_certificate.as_deref());
        let certificate_file = ("TLSCertificateFile", raw.tls_certificate_file.as_deref());
        let key = ("TLSCertificateKey", secret);
        let key_file = ("TLSCertificateKeyFile", raw.tls_certificate_key_file.as_deref());
        if decided && raw.tls_type != TlsType::External {
            let given =
                [certificate, certificate_file, key, key_file].into_iter().find(|(_, value)| value.is_some());
            if let Some((key, _)) = given {
                let condition = "unless TLSType is External";
                let problem = Problem::NoEffect { condition, advice: "set TLSType: External" };
                self.mistake(&format!("{at}.{key}"), problem);
            }
        }
        if !decided {
            self.pem(at, certificate, certificate_file);
            self.pem(at, key, key_file);
            return None;
        }
        match raw.tls_type {
            TlsType::External => {
                let present = |keys: [(&str, Option<&str>); 2]| {
                    let one = |(key, value): (&str, Option<&str>)| {
                        value.is_some() || self.origins.is_pruned(&format!("{at}.{key}"))
                    };
                    keys.into_iter().any(one)
                };
                match (present([certificate, certificate_file]), present([key, key_file])) {
                    (true, true) => {}
                    (false, false) => self.mistake(&format!("{at}.TLSType"), Problem::ExternalWithoutPair),
                    (true, false) => {
                        self.missing(&format!("{at}.TLSCertificateKey"), "the key of TLSCertificate")
                    }
                    (false, true) => {
                        self.missing(
                            &format!("{at}.TLSCertificate"),
                            "the certificate chain of TLSCertificateKey",
                        );
                    }
                }
                let certificate = self.pem(at, certificate, certificate_file);
                let key = self.pem(at, key, key_file);
                Some(Some(tls::Certificate::External { certificate: certificate?, key: key? }))
            }
            TlsType::Aporeto => {
                let directory = state_directory.map(|state| state.join("certs"));
                if directory.is_none() {
                    self.warn(&format!("{at}.TLSType"), "the own CA lives in memory, because stateDirectory is not set: browsers see a new CA after every restart; set stateDirectory");
                }
                let hosts = hosts.iter().map(|host| host.name().to_owned()).collect();
                Some(Some(tls::Certificate::Own { directory, hosts }))
            }
            TlsType::None => {
                let path = format!("{at}.trustedProxies");
                let reported = self.origins.is_pruned(&path) || self.origins.is_incomplete(&path);
                if raw.trusted_proxies.is_empty() && !reported {
                    self.mistake(&format!("{at}.TLSType"), Problem::PlainWithoutProxies);
                }
                Some(None)
            }
        }
    }
}
