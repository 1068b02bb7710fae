//! Request parameters from a query or a form, each at most once (RFC 6749 section 3.1).

use url::form_urlencoded;

/// Decoded parameters.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

/// A parameter came twice, or there are more than anybody needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated;

impl Parameters {
    /// Parses `text`, which is form-urlencoded.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Repeated> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text) {
            if parameters.len() == MOST_PARAMETERS || parameters.iter().any(|(other, _)| *other == name) {
                return Err(Repeated);
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    /// The value of `name`; an empty one counts as none (RFC 6749 section 3.1).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The space-separated words of `name`.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let words = self.get(name).unwrap_or_default().split(' ');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

/// Most parameters of one request.
const MOST_PARAMETERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_may_come_once() {
        let parameters = Parameters::parse(b"a=1+2&b=%2F&c=&d").unwrap();
        assert_eq!(parameters.get("a"), Some("1 2"));
        assert_eq!(parameters.words("a"), ["1", "2"]);
        assert_eq!(parameters.get("b"), Some("/"));
        assert_eq!((parameters.get("c"), parameters.get("d"), parameters.get("e")), (None, None, None));
        assert_eq!(Parameters::parse(b"a=1&%61=1").unwrap_err(), Repeated);
    }
}
