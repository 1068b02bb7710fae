//! The UserInfo endpoint (OIDC Core section 5.3): claims that the provider keeps out of the ID token.

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::jwt::Unique;
use crate::secret::Secret;
use crate::web::outbound::Outbound;

/// Why there are no claims of UserInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// They are about somebody else (OIDC Core section 5.3.2): whoever mixed that up, this login ends.
    OtherSubject,
    /// The answer can't be used.
    Unusable(String),
}

/// Asks once, with the access token in the header and never in the URL.
pub(super) async fn fetch(
    outbound: &Outbound,
    url: &Url,
    access_token: &Secret<String>,
    subject: &str,
) -> Result<Map<String, Value>, Problem> {
    let unusable = |text: &str| Problem::Unusable(text.to_owned());
    if access_token.expose().is_empty() {
        return Err(unusable("the token answer has no access token to ask with"));
    }
    let bearer = Secret::new(format!("Bearer {}", access_token.expose()));
    let mut bearer = HeaderValue::from_str(bearer.expose())
        .map_err(|_| unusable("the access token can't be sent in a header"))?;
    bearer.set_sensitive(true);
    let request = Request::get(url.as_str())
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, bearer)
        .body(Vec::new())
        .map_err(|_| unusable("its address can't be sent a request"))?;
    let answer = outbound.send(request).await.map_err(|error| Problem::Unusable(error.to_string()))?;
    if answer.status() != StatusCode::OK {
        return Err(Problem::Unusable(format!("it answers {}", answer.status().as_u16())));
    }
    read(answer.body(), subject)
}

pub(super) fn read(body: &[u8], subject: &str) -> Result<Map<String, Value>, Problem> {
    let Unique(claims) = serde_json::from_slice(body).map_err(|_| {
        Problem::Unusable(
            "it answers something else than a JSON object without repeated members (signed or encrypted UserInfo is not supported: turn \
             it off for this client at the provider)"
                .to_owned(),
        )
    })?;
    match claims.get("sub") {
        Some(Value::String(found)) if found == subject => Ok(claims),
        Some(Value::String(_)) => Err(Problem::OtherSubject),
        _ => Err(Problem::Unusable("its answer has no `sub`".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rp_24_answers() {
        let rows: [(&[u8], Result<usize, bool>); 11] = [
            (br#"{"sub":"alice","groups":["a"]}"#, Ok(2)),
            (br#"{"sub":"mallory"}"#, Err(true)),
            (br#"{"sub":""}"#, Err(true)),
            (br#"{"groups":["a"]}"#, Err(false)),
            (br#"{"sub":7}"#, Err(false)),
            (br#"{"sub":"mallory","sub":"alice"}"#, Err(false)),
            (br#"{"sub":"alice","email_verified":false,"email_verified":true}"#, Err(false)),
            (br#"[{"sub":"alice"}]"#, Err(false)),
            (b"eyJhbGciOiJSUzI1NiJ9.e30.AAAA", Err(false)),
            (b"", Err(false)),
            (b"{\"sub\":\"\xff\"}", Err(false)),
        ];
        for (body, expected) in rows {
            let outcome = read(body, "alice")
                .map(|claims| claims.len())
                .map_err(|problem| problem == Problem::OtherSubject);
            assert_eq!(outcome, expected, "{}", String::from_utf8_lossy(body));
        }
    }
}
