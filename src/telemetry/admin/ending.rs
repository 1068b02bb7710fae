//! `POST /sessions/end`: what its body says, and what is answered.
//!
//! Owns the form of the call. It does not know what a session is: whoever assembles the listener brings along the
//! closure that ends them.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{Sources, problem, text};

/// Which sessions of a service are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The one with this id.
    Session(String),
    /// All of the person with this `sub`.
    Subject(String),
    /// All.
    All,
}

/// Ends sessions of the named service. They are over in this process when it returns; the future resolves when they
/// stay so after a restart and all who share them know, or when that is not in sight.
pub type EndSessions = dyn Fn(&str, &Ending) -> Result<Ended, EndError> + Send + Sync;

/// Sessions are over, or not everywhere.
pub type Ended = Pin<Box<dyn Future<Output = Result<(), NotEverywhere>> + Send>>;

/// Other processes, which have the sessions too, could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is over in this process; Redis, by which the others hear of it, does not answer. They are told when it does, \
     unless this process ends before: send this again"
)]
pub struct NotEverywhere;

/// Why nothing was ended. The blame is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// No service of that name has sessions.
    #[error("no service with sessions has that name")]
    NoService,
    /// The id is none.
    #[error(
        "a session id has 22 letters, digits, `-` or `_`; it is in the events login and logout as `session`"
    )]
    NotASession,
}

/// Answers a call that may be made.
pub(super) async fn end(sources: &Sources, headers: &HeaderMap, body: Incoming) -> Response<Full<Bytes>> {
    let (service, ending) = match read(headers, body).await {
        Ok(body) => match parse(headers, &body) {
            Ok(call) => call,
            Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
        },
        Err((status, detail)) => return problem(status, detail),
    };
    match (sources.end_sessions)(&service, &ending) {
        Ok(ended) => {
            if let Err(error) = ended.await {
                return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            }
            let ended = match ending {
                Ending::Session(id) => json!({ "session": id }),
                Ending::Subject(subject) => json!({ "subject": subject }),
                Ending::All => json!({ "all": true }),
            };
            let body = json!({ "service": service, "ended": ended });
            text(StatusCode::OK, "application/json", format!("{body}\n"))
        }
        Err(error @ EndError::NoService) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ EndError::NotASession) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, (StatusCode, &'static str)> {
    if form_of(headers).is_none() {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send application/x-www-form-urlencoded or application/json",
        ));
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect());
    match body.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has at most 8 KiB"))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Urlencoded,
    Json,
}

fn form_of(headers: &HeaderMap) -> Option<Form> {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (fields.next(), fields.next()) else { return None };
    let media_type = value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-www-form-urlencoded" => Some(Form::Urlencoded),
        "application/json" => Some(Form::Json),
        _ => None,
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<(String, Ending), String> {
    let parameters = match form_of(headers) {
        Some(Form::Json) => {
            let Parameters(parameters) =
                serde_json::from_slice(body).map_err(|error| format!("not a JSON object: {error}; {HOW}"))?;
            parameters
        }
        _ => url::form_urlencoded::parse(body).into_owned().collect(),
    };
    let mut service = None;
    let mut endings = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "service" if service.is_none() => service = Some(value),
            "service" => return Err(format!("service is there twice; {HOW}")),
            "session" => endings.push(Ending::Session(value)),
            "subject" => endings.push(Ending::Subject(value)),
            "all" if value == "true" => endings.push(Ending::All),
            "all" => return Err(format!("all can only be true; {HOW}")),
            // Not shown: whoever mistyped it can see it, and others need not.
            _ => return Err(format!("there is a parameter of another name; {HOW}")),
        }
    }
    let service = service.ok_or_else(|| format!("service is missing; {HOW}"))?;
    let mut endings = endings.into_iter();
    match (endings.next(), endings.next()) {
        // An empty text is more likely a variable that was not set than a name.
        (Some(Ending::Session(value) | Ending::Subject(value)), None) if value.is_empty() => {
            Err(format!("the value is empty; {HOW}"))
        }
        (Some(ending), None) => Ok((service, ending)),
        _ => Err(format!("one of session, subject and all is needed, and only one; {HOW}")),
    }
}

/// The members of a JSON object in order, repeated ones too.
struct Parameters(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    let value = match value {
                        Value::String(text) => text,
                        Value::Bool(true) if name == "all" => "true".to_owned(),
                        _ => return Err(serde::de::Error::custom("values are texts, and all is true")),
                    };
                    members.push((name, value));
                }
                Ok(Parameters(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

const HOW: &str = "send service=NAME and one of session=ID, subject=SUB and all=true";
/// Most bytes of a call's body.
const MAX_BODY_BYTES: usize = 8 * 1024;
/// Longest wait for a call's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parsed(form: &'static str, body: &str) -> Result<(String, Ending), String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
        parse(&headers, body.as_bytes())
    }

    #[test]
    fn a_call_says_one_thing() {
        const FORM: &str = "application/x-www-form-urlencoded";
        const JSON: &str = "Application/JSON; charset=utf-8";
        let subject = || Ending::Subject("a&b=c".to_owned());
        let cases = [
            (FORM, "service=app&subject=a%26b%3Dc", Ok(subject())),
            (FORM, "session=AAAA&service=app", Ok(Ending::Session("AAAA".to_owned()))),
            (FORM, "service=app&all=true", Ok(Ending::All)),
            (JSON, r#"{"service": "app", "subject": "a&b=c"}"#, Ok(subject())),
            (JSON, r#"{"service": "app", "all": true}"#, Ok(Ending::All)),
            (FORM, "", Err("service is missing")),
            (FORM, "subject=a", Err("service is missing")),
            (FORM, "service=app", Err("one of session, subject and all")),
            (FORM, "service=app&subject=a&all=true", Err("and only one")),
            (FORM, "service=app&subject=a&subject=a", Err("and only one")),
            (FORM, "service=app&service=app&all=true", Err("service is there twice")),
            (FORM, "service=app&all=false", Err("all can only be true")),
            (FORM, "service=app&all", Err("all can only be true")),
            (FORM, "service=app&subject=", Err("the value is empty")),
            (FORM, "service=app&all=true&dry=1", Err("another name")),
            (FORM, r#"{"service": "app", "all": true}"#, Err("another name")),
            (JSON, "service=app&all=true", Err("not a JSON object")),
            (JSON, r#"{"service": "app", "all": false}"#, Err("all is true")),
            (JSON, r#"{"service": "app", "subject": 7}"#, Err("values are texts")),
            (JSON, r#"{"service": "app", "subject": "a", "subject": "b"}"#, Err("and only one")),
            (JSON, r#"[{"service": "app", "all": true}]"#, Err("not a JSON object")),
            (JSON, r#"{"service": "app", "all": true} {}"#, Err("not a JSON object")),
        ];
        for (form, body, expected) in cases {
            match (parsed(form, body), expected) {
                (Ok((service, ending)), Ok(wanted)) => {
                    assert!(service == "app" && ending == wanted, "{body}")
                }
                (Err(detail), Err(part)) => {
                    assert!(detail.contains(part) && detail.contains(HOW), "{body}: {detail}");
                }
                (found, wanted) => panic!("{body}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
