//! Where sessions live, if not in cookies: `session.store` and `session.redis`.

use super::problem::Problem;
use super::raw;
use super::raw_redis::Redis;
use super::resolve::Resolver;
use crate::secret::{Secret, Source};
use crate::session::redis::{Address, Config, Topology};

const SECTION: &str = "session.redis";

impl Resolver<'_> {
    /// The store in Redis, if sessions are to live there. Whatever is missing or wrong has been reported.
    pub fn redis(&mut self, session: &raw::Session) -> Option<Config> {
        match (session.store, &session.redis) {
            (raw::Store::Cookie, None) => None,
            (raw::Store::Cookie, Some(_)) => {
                if !self.origins.is_pruned("session.store") {
                    let (condition, advice) = ("unless sessions live there", "set session.store: redis");
                    self.mistake(SECTION, Problem::NoEffect { condition, advice });
                }
                None
            }
            (raw::Store::Redis, None) => {
                self.missing(SECTION, "with the url of Redis in it, such as redis://localhost:6379");
                None
            }
            (raw::Store::Redis, Some(redis)) => self.redis_section(redis),
        }
    }

    fn redis_section(&mut self, redis: &Redis) -> Option<Config> {
        let topology = match (&redis.sentinel_master, redis.cluster) {
            (Some(_), true) => {
                let (this, other) = ("cluster", "sentinelMaster");
                self.mistake(&format!("{SECTION}.{this}"), Problem::Exclusive { this, other });
                return None;
            }
            (Some(master), false) => Topology::Sentinel { master: master.clone() },
            (None, true) => Topology::Cluster,
            (None, false) => Topology::Single,
        };
        let authorities = self.pem(
            SECTION,
            ("trustedCertificateAuthorities", redis.trusted_certificate_authorities.as_deref()),
            ("trustedCertificateAuthoritiesFile", redis.trusted_certificate_authorities_file.as_deref()),
        );
        let (url, path) = self.redis_url(redis)?;
        let address = match url.read().ok().map(|text| Address::parse(text.expose(), &topology))? {
            Ok(address) => address,
            Err(error) => {
                self.mistake(&path, Problem::RedisUrl(error));
                return None;
            }
        };
        if authorities.is_some() && !address.uses_tls() {
            let (condition, advice) = ("without TLS", "write the URL with rediss://");
            let key = match &redis.trusted_certificate_authorities {
                Some(_) => "trustedCertificateAuthorities",
                None => "trustedCertificateAuthoritiesFile",
            };
            self.mistake(&format!("{SECTION}.{key}"), Problem::NoEffect { condition, advice });
        }
        Some(Config { url, topology, authorities })
    }

    /// Where the URL is, and the key that says so.
    fn redis_url(&mut self, redis: &Redis) -> Option<(Source, String)> {
        let (path, file_path) = (format!("{SECTION}.url"), format!("{SECTION}.urlFile"));
        match (&redis.url, &redis.url_file) {
            (Some(_), Some(_)) => {
                self.mistake(&file_path, Problem::Exclusive { this: "urlFile", other: "url" });
                None
            }
            (Some(url), None) => Some((Source::Inline(Secret::new(url.0.expose().clone())), path)),
            (None, Some(named)) => {
                self.file(&file_path, named, false).map(|file| (Source::File(file), file_path))
            }
            (None, None) => {
                if !self.origins.is_pruned(&file_path) {
                    self.missing(&path, "such as redis://localhost:6379, or urlFile");
                }
                None
            }
        }
    }
}
