use super::*;
use crate::session::redis::Topology;

fn with_redis(section: &str) -> String {
    format!("{GOOD}session: {{store: redis, redis: {{{section}}}}}\n")
}

/// One mistake, at the line of the section.
fn says_of(yaml: &str, key: &str, words: &[&str]) {
    let lines = bad(yaml);
    let [line] = lines.as_slice() else { panic!("{lines:#?}\n{yaml}") };
    assert!(line.starts_with("f.yaml:25:") && line.contains(&format!(": {key}: ")), "{line}\n{yaml}");
    assert!(words.iter().all(|word| line.contains(word)) && line.contains("; "), "{line}\nlacks {words:?}");
}

#[test]
fn every_way_to_redis() {
    for (section, topology) in [
        ("url: 'redis://localhost'", Topology::Single),
        ("url: 'rediss://user:hunter2@redis.example:6380/1'", Topology::Single),
        ("url: 'redis+unix:///run/redis.sock?db=1', cluster: false", Topology::Single),
        (
            "url: 'redis://a:26379,redis://b:26379', sentinelMaster: main",
            Topology::Sentinel { master: "main".to_owned() },
        ),
        ("url: 'redis://a:7000,redis://b:7000', cluster: true", Topology::Cluster),
    ] {
        let config = good(&with_redis(section));
        assert_eq!(config.redis.as_ref().unwrap().topology, topology);
        let shown = format!("{config:?}{}", config.redacted_yaml());
        assert!(!shown.contains("hunter2") && shown.contains("[redacted]"), "{shown}");
    }
    assert!(good(GOOD).redis.is_none());

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "redis://:hunter2@localhost\n").unwrap();
    let config = good(&with_redis(&format!("urlFile: '{}'", file.path().display())));
    assert_eq!(config.redis.unwrap().url.path(), Some(file.path()));
}

#[test]
fn mistakes_about_redis_name_the_key_and_the_fix() {
    let pem = "'-----BEGIN CERTIFICATE-----'";
    for (section, key, words) in [
        ("cluster: true", "session.redis.url", &["is missing", "urlFile"][..]),
        ("url: 'http://hunter2'", "session.redis.url", &["redis://host:6379"]),
        ("url: 'redis://:hunter2@b,redis://:hunter2@c'", "session.redis.url", &["several", "sentinelMaster"]),
        ("url: 'redis://a', urlFile: /x", "session.redis.urlFile", &["exclude each other"]),
        ("urlFile: /nonexistent", "session.redis.urlFile", &["cannot read"]),
        ("url: 'redis://a', cluster: true, sentinelMaster: m", "session.redis.cluster", &["exclude"]),
        ("url: 'redis://a/1', cluster: true", "session.redis.url", &["database 0"]),
        ("uri: 'redis://a'", "session.redis.uri", &["`url`"]),
        (
            &format!("url: 'redis://a', trustedCertificateAuthorities: {pem}"),
            "session.redis.trustedCertificateAuthorities",
            &["rediss://"],
        ),
    ] {
        says_of(&with_redis(section), key, words);
    }
    says_of(
        &format!("{GOOD}session: {{store: redis}}\n"),
        "session.redis",
        &["is missing", "redis://localhost:6379"],
    );
    let unused = format!("{GOOD}session: {{redis: {{url: 'redis://a'}}}}\n");
    says_of(&unused, "session.redis", &["has no effect", "store: redis"]);
    for yaml in [with_redis("url: 'http://hunter2'"), with_redis("url: 'redis://a:hunter2@b/x'")] {
        assert!(!bad(&yaml).concat().contains("hunter2"));
    }
}
