//! The provider's metadata (OpenID Connect Discovery 1.0): read with tolerance, believed with none.

use serde_json::{Map, Value};
use url::Url;

use crate::web::outbound::Outbound;

use super::algorithm::{SigningAlgorithm, accepted};
use super::config::Config;
use super::error::Shown;
use super::told::shown_name;

/// What the provider says about itself, after every check that Discovery section 4.3 asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    pub jwks_uri: Url,
    pub user_info_endpoint: Option<Url>,
    /// RP-Initiated Logout 1.0 section 2.1.
    pub end_session_endpoint: Option<Url>,
    /// RFC 7009, announced as RFC 8414 section 2 says.
    pub revocation_endpoint: Option<Url>,
    /// What ID tokens may be signed with, as configured and offered; at least one.
    pub signing_algorithms: Vec<SigningAlgorithm>,
    /// `token_endpoint_auth_methods_supported`, if it is there.
    pub authentication_methods: Option<Vec<String>>,
    /// `code_challenge_methods_supported`, if it is there.
    pub challenge_methods: Option<Vec<String>>,
    /// `scopes_supported`, if it is there.
    pub scopes: Option<Vec<String>>,
    /// RFC 9207: the callback must carry `iss`.
    pub announces_callback_issuer: bool,
    /// `backchannel_logout_supported` (Back-Channel Logout 1.0 section 2.1).
    pub back_channel_logout: bool,
    /// `frontchannel_logout_supported` (Front-Channel Logout 1.0 section 3).
    pub front_channel_logout: bool,
    /// Why optional endpoints that are in the document are not used.
    pub ignored: Vec<String>,
}

/// Why there is no metadata. Cloneable, because everyone who waited for it gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// Try again later.
    #[error("{0}")]
    Unreachable(String),
    /// Trying again won't help until someone changes something.
    #[error("{0}")]
    Unusable(String),
}

const END_SESSION: &str = "end_session_endpoint";
const REVOCATION: &str = "revocation_endpoint";

/// Where the document of `issuer` is (Discovery section 4.1: a final slash is not doubled).
pub(super) fn address(issuer: &Url) -> Url {
    let mut address = issuer.clone();
    address.set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
    address
}

/// Gets and checks the document. `issuer` is the configured one as a URL.
pub(super) async fn fetch(outbound: &Outbound, config: &Config, issuer: &Url) -> Result<Metadata, Problem> {
    let address = address(issuer);
    let answer = outbound.get(&address).await.map_err(|error| Problem::Unreachable(error.to_string()))?;
    let status = answer.status();
    if status != http::StatusCode::OK {
        return Err(Problem::Unreachable(format!(
            "{address} answers {}; is OIDCProviderURL the issuer?",
            status.as_u16()
        )));
    }
    let mut metadata = Metadata::parse(answer.body(), config, &address)?;
    metadata.admit(outbound).await?;
    Ok(metadata)
}

impl Metadata {
    /// Reads the document. The issuer is compared byte for byte.
    pub fn parse(body: &[u8], config: &Config, address: &Url) -> Result<Self, Problem> {
        let issuer = &config.issuer;
        let document: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
            Problem::Unreachable(format!("{address} answers something else than a JSON object"))
        })?;
        match document.get("issuer") {
            Some(Value::String(found)) if found == issuer => {}
            found => {
                return Err(Problem::Unusable(format!(
                    "issuer mismatch: OIDCProviderURL is {issuer:?}, the discovery document says {}; they must be \
                     equal to the last character (look for a final slash, the port, upper case), so enter \
                     the second if it is the provider that you mean",
                    Shown::of(found)
                )));
            }
        }
        let mut ignored = Vec::new();
        let mut optional = |name| {
            endpoint(&document, name).unwrap_or_else(|why| {
                ignored.push(why.to_string());
                None
            })
        };
        let stated = |name: &str| matches!(document.get(name), Some(Value::Bool(true)));
        Ok(Self {
            end_session_endpoint: optional(END_SESSION),
            revocation_endpoint: optional(REVOCATION),
            ignored,
            authorization_endpoint: required(&document, "authorization_endpoint")?,
            token_endpoint: required(&document, "token_endpoint")?,
            jwks_uri: required(&document, "jwks_uri")?,
            user_info_endpoint: endpoint(&document, "userinfo_endpoint")?,
            signing_algorithms: algorithms(&document, config)?,
            authentication_methods: names(&document, "token_endpoint_auth_methods_supported"),
            challenge_methods: names(&document, "code_challenge_methods_supported"),
            scopes: names(&document, "scopes_supported"),
            announces_callback_issuer: stated("authorization_response_iss_parameter_supported"),
            back_channel_logout: stated("backchannel_logout_supported"),
            front_channel_logout: stated("frontchannel_logout_supported"),
        })
    }

    /// Every address is judged before any is used; the browser is only sent to http or https.
    async fn admit(&mut self, outbound: &Outbound) -> Result<(), Problem> {
        let named = [
            ("authorization_endpoint", Some(&self.authorization_endpoint)),
            ("token_endpoint", Some(&self.token_endpoint)),
            ("jwks_uri", Some(&self.jwks_uri)),
            ("userinfo_endpoint", self.user_info_endpoint.as_ref()),
        ];
        for (name, url) in named {
            let Some(url) = url else { continue };
            let admitted = outbound.admit(url).await;
            admitted.map_err(|why| Problem::Unusable(format!("{name} of the discovery document: {why}")))?;
        }
        let optional =
            [(END_SESSION, &mut self.end_session_endpoint), (REVOCATION, &mut self.revocation_endpoint)];
        for (name, slot) in optional {
            let Some(url) = slot else { continue };
            if let Err(why) = outbound.admit(url).await {
                self.ignored.push(format!("{name} of the discovery document: {why}"));
                *slot = None;
            }
        }
        Ok(())
    }
}

fn algorithms(document: &Map<String, Value>, config: &Config) -> Result<Vec<SigningAlgorithm>, Problem> {
    let offered = names(document, "id_token_signing_alg_values_supported");
    let accepted = accepted(config.signing_algorithms.as_deref(), offered.as_deref());
    if accepted.is_empty() {
        let offered: Vec<_> = offered.unwrap_or_default().iter().map(|name| shown_name(name)).collect();
        return Err(Problem::Unusable(format!(
            "the provider signs ID tokens with {}, and none of these is accepted: change OIDCSigningAlgorithms, \
             or how the provider signs for this client",
            offered.join(", ")
        )));
    }
    Ok(accepted)
}

fn required(document: &Map<String, Value>, name: &str) -> Result<Url, Problem> {
    endpoint(document, name)?.ok_or_else(|| {
        Problem::Unusable(format!("the discovery document has no {name}: is it an OIDC provider?"))
    })
}

fn endpoint(document: &Map<String, Value>, name: &str) -> Result<Option<Url>, Problem> {
    let text = match document.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => "",
    };
    match Url::parse(text) {
        // RFC 6749 section 3.1: no fragment.
        Ok(url) if url.fragment().is_none() => Ok(Some(url)),
        _ => Err(Problem::Unusable(format!("{name} of the discovery document is not a usable URL"))),
    }
}

fn names(document: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let list = document.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::testing::config;
    use serde_json::json;

    const ISSUER: &str = "https://idp.example/realm";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://idp.example/authorize",
            "token_endpoint": "https://idp.example/token",
            "jwks_uri": "https://idp.example/jwks",
        })
    }

    fn parse(document: &Value) -> Result<Metadata, Problem> {
        let address = Url::parse("https://idp.example/realm/.well-known/openid-configuration").unwrap();
        Metadata::parse(document.to_string().as_bytes(), &config(ISSUER), &address)
    }

    #[test]
    fn a_small_document_is_enough() {
        let metadata = parse(&document()).unwrap();
        assert_eq!(metadata.signing_algorithms, [SigningAlgorithm::Rs256]);
        assert!(!metadata.announces_callback_issuer);
    }

    #[test]
    fn a_provider_that_signs_with_nothing_accepted_is_unusable() {
        let mut document = document();
        document["id_token_signing_alg_values_supported"] = json!(["none", "HS256", "ES512"]);
        let Err(Problem::Unusable(text)) = parse(&document) else { panic!() };
        assert!(text.contains("none, HS256, ES512") && text.contains("OIDCSigningAlgorithms"), "{text}");
    }

    #[test]
    fn rp_21_another_issuer_is_unusable() {
        for issuer in [
            json!("https://idp.example/realm/"),
            json!("https://idp.example"),
            json!("https://idp.example:443/realm"),
            json!("https://IDP.example/realm"),
            json!("http://idp.example/realm"),
            json!(null),
            json!(["https://idp.example/realm"]),
        ] {
            let mut document = document();
            document["issuer"] = issuer.clone();
            let Err(Problem::Unusable(text)) = parse(&document) else { panic!("{issuer}") };
            assert!(text.contains(ISSUER) && text.contains(&issuer.to_string()), "{text}");
        }
        let mut document = document();
        document.as_object_mut().unwrap().remove("issuer");
        assert!(matches!(parse(&document), Err(Problem::Unusable(_))));
    }

    #[test]
    fn endpoints_must_be_urls() {
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for value in [json!(null), json!(""), json!("/token"), json!(7), json!("https://idp.example/#f")]
            {
                let mut document = document();
                document[name] = value.clone();
                let Err(Problem::Unusable(text)) = parse(&document) else { panic!("{name} {value}") };
                assert!(text.contains(name));
            }
        }
    }

    #[test]
    fn unusable_optional_endpoints_are_ignored_and_named() {
        for name in [END_SESSION, REVOCATION] {
            for value in [json!(""), json!("/logout"), json!(7), json!("https://idp.example/#f")] {
                let mut document = document();
                document[name] = value.clone();
                let metadata = parse(&document).unwrap();
                assert_eq!((&metadata.end_session_endpoint, &metadata.revocation_endpoint), (&None, &None));
                let [why] = &metadata.ignored[..] else { panic!("{name} {value}") };
                assert!(why.contains(name), "{why}");
            }
            let mut document = document();
            document[name] = json!(null);
            assert!(parse(&document).unwrap().ignored.is_empty());
        }
    }

    #[test]
    fn odd_optional_members_are_as_if_absent() {
        let mut document = document();
        document["id_token_signing_alg_values_supported"] = json!("RS256");
        document["token_endpoint_auth_methods_supported"] = json!([1, "client_secret_post", null]);
        document["authorization_response_iss_parameter_supported"] = json!("true");
        let metadata = parse(&document).unwrap();
        assert_eq!(metadata.signing_algorithms, [SigningAlgorithm::Rs256]);
        assert_eq!(metadata.authentication_methods, Some(vec!["client_secret_post".to_owned()]));
        assert!(!metadata.announces_callback_issuer);
    }

    #[test]
    fn the_address_has_one_slash() {
        for (issuer, expected) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/r/", "https://a.example/r/.well-known/openid-configuration"),
        ] {
            assert_eq!(address(&Url::parse(issuer).unwrap()).as_str(), expected);
        }
    }
}
