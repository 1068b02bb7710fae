//! The configuration, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "see crate::fuzzing")]

use super::{Environment, Source, load};
use crate::fuzzing::is_one_line;

/// The value of every variable; nothing that is printed may show it.
const CANARY: &str = "canary-9f2c51e7";

/// The bytes as a file.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files that are named are looked at, and some of these never end.
    if text.contains("dev") || text.contains("proc") || text.contains("sys/") {
        return;
    }
    let environment = Environment::of([("CLIENT_SECRET", CANARY)]);
    let source = Source::Text { name: "fuzz.yaml".to_owned(), text: text.to_owned() };
    match load(&source, &environment) {
        Ok(config) => {
            assert!(!config.services.is_empty());
            for service in &config.services {
                assert!(!service.hosts.is_empty() && service.callback_path.starts_with('/'));
                assert!(!service.base_url.ends_with('/'));
            }
            let shown = config.redacted_yaml();
            assert!(!shown.contains(&format!("OIDCClientSecret: {CANARY}")), "a secret is shown");
            assert!(!format!("{config:?}").contains(&format!("Secret(\"{CANARY}")), "a secret is shown");
        }
        Err(mistakes) => {
            assert!(mistakes.len() > 0 && mistakes.iter().count() == mistakes.len());
            let all = mistakes.to_string();
            assert!(!all.contains(CANARY), "a variable is shown: {all}");
            for mistake in mistakes.iter() {
                assert!(is_one_line(&mistake.to_string()), "{:?}", mistake.to_string());
                assert!(mistake.place.line >= 1 && mistake.place.column >= 1);
            }
            let again = load(&source, &environment).expect_err("refused before");
            assert_eq!(again, mistakes, "the same file, other mistakes");
        }
    }
}
