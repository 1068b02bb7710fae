//! The target of a request, and what a login may return to.

use url::Url;

use crate::path::{EncodedSlashes, NormalPath, Options};

/// Reads the bytes as a request's target, under every option.
pub fn request_target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for merge_slashes in [false, true] {
        for encoded_slashes in [EncodedSlashes::Refuse, EncodedSlashes::Keep] {
            let options = Options { merge_slashes, encoded_slashes };
            let Ok(path) = NormalPath::parse(text, &options) else { continue };
            check(text, &path, &options);
        }
    }
    let [strict, lax] = [EncodedSlashes::Refuse, EncodedSlashes::Keep]
        .map(|encoded_slashes| NormalPath::parse(text, &Options { encoded_slashes, ..Options::default() }));
    if let Ok(strict) = strict {
        assert_eq!(lax, Ok(strict), "an option that allows more changes what was allowed before");
    }
}

fn check(text: &str, path: &NormalPath, options: &Options) {
    let again = NormalPath::parse(path.as_str(), options);
    assert_eq!(again.as_ref(), Ok(path), "what is judged is not a fixed point");

    let (sent_path, sent_query) = text.split_once('?').map_or((text, None), |(p, q)| (p, Some(q)));
    assert_eq!(path.query(), sent_query, "the query changed");
    let whole = path.query().map_or(path.path().to_owned(), |query| format!("{}?{query}", path.path()));
    assert_eq!(path.as_str(), whole);
    assert!(path.path().starts_with('/') && !path.path().contains("//"), "{path:?}");
    let harmless = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'#';
    assert!(path.as_str().bytes().all(harmless), "{path:?}");
    assert!(!path.path().contains(['\\', '?']), "{path:?}");
    if !options.merge_slashes {
        assert_eq!(decoded(sent_path), decoded(path.path()), "the path was repaired");
    }

    for segment in path.path().split('/') {
        let bytes = decoded(segment);
        let text = String::from_utf8(bytes).expect("a segment decodes to UTF-8");
        assert!(!text.chars().any(char::is_control), "{path:?}");
        if options.encoded_slashes == EncodedSlashes::Refuse {
            assert!(!text.contains(['/', '\\']), "{path:?}");
        }
        for part in text.split(['/', '\\']) {
            let name = part.split(';').next().unwrap_or_default();
            assert!(name != "." && name != "..", "a dot segment: {path:?}");
            assert!(!name.is_empty() || part == segment && part.is_empty(), "an empty segment: {path:?}");
        }
    }

    // What a browser and Node's server make of it.
    let url = Url::parse("https://app.example").and_then(|base| base.join(path.as_str())).expect("a URL");
    assert_eq!(url.origin().ascii_serialization(), "https://app.example", "{path:?}");
    assert_eq!(decoded(url.path()), decoded(path.path()), "a URL parser reads another path");
    assert!(url.username().is_empty() && url.password().is_none());
}

/// Percent-decoded once, by another reading than the one under test.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}
