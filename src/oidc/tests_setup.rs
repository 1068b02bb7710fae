//! Credentials, mistakes of the configuration, and the connection test.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::secret::{Secret, Source};
use crate::web::testing::{Reply, Server, TestAuthority};

use super::testing::{TestKey, config};
use super::testing_idp::{CODE, Idp, NOW, Script, asking};
use super::*;

#[tokio::test]
async fn rp_25_credentials_are_form_encoded_and_then_basic() {
    let idp = Idp::start().await;
    let (provider, ..) = idp.provider_with(|config| {
        config.client_id = "m:e %+é".to_owned();
        config.client_secret = Some(Source::Inline(Secret::new("s:e %+é".to_owned())));
    });
    idp.script(|script| script.claims = json!({"aud": "m:e %+é"}));
    idp.login(&provider).await.unwrap();
    let asked = idp.server.asked();
    let token = asked.iter().find(|asked| asked.target == "/token").unwrap();
    let expected = STANDARD.encode("m%3Ae+%25%2B%C3%A9:s%3Ae+%25%2B%C3%A9");
    let line =
        token.head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:")).unwrap();
    assert!(line.ends_with(&format!("Basic {expected}")), "{line}");
    assert!(!token.body.contains("client_secret"));
    assert!(token.body.contains("redirect_uri=https%3A%2F%2Fapp.example%2Faporeto%2Foidc%2Fcallback"));
}

#[tokio::test]
async fn client_authentication_follows_the_offer() {
    for (offered, configured, basic) in [
        (Value::Null, ClientAuthentication::Auto, true),
        (json!(["client_secret_post", "client_secret_basic"]), ClientAuthentication::Auto, true),
        (json!(["client_secret_post"]), ClientAuthentication::Auto, false),
        (json!(["client_secret_post"]), ClientAuthentication::Basic, true),
        (json!(["client_secret_basic"]), ClientAuthentication::Post, false),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| script.document = json!({"token_endpoint_auth_methods_supported": offered}));
        let (provider, ..) = idp.provider_with(|config| config.client_authentication = configured);
        idp.login(&provider).await.unwrap();
        let asked = idp.server.asked();
        let token = asked.iter().find(|asked| asked.target == "/token").unwrap();
        assert_eq!(token.head.contains("Basic "), basic, "{offered} {configured:?}");
        assert_eq!(token.body.contains("client_secret=client-secret"), !basic);
    }
}

#[tokio::test]
async fn errors_of_the_token_endpoint_say_what_to_do_and_show_no_secret() {
    for (status, error, code, advice) in [
        (401, "invalid_client", "token_endpoint", "OIDCClientSecret"),
        (400, "unauthorized_client", "token_endpoint", "grant"),
        (400, "invalid_grant", "invalid_grant", "https://app.example/aporeto/oidc/callback"),
        (429, "slow_down", "token_endpoint", "slow_down"),
        (400, "client-secret", "token_endpoint", "400"),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| {
            let body = json!({"error": error, "error_description": format!("{CODE} client-secret")});
            script.replies.insert("/token", Reply::Full(status, vec![], body.to_string().into_bytes()));
        });
        let failure = idp.login(&idp.provider()).await.unwrap_err();
        let text = format!("{failure} {failure:?}");
        assert_eq!(failure.code(), code);
        assert!(text.contains(advice), "{text}");
        assert!(!text.contains(CODE) && !text.contains("client-secret"), "{text}");
    }
}

#[tokio::test]
async fn a_changed_secret_file_is_used_from_the_next_login() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "old\n").unwrap();
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|config| {
        config.client_secret = Some(Source::File(path.clone()));
        assert_eq!(files(config), std::slice::from_ref(&path));
    });
    assert_eq!(provider.watched_files(), std::slice::from_ref(&path));
    idp.script(|script| script.accepted_secret = Some("old"));
    idp.login(&provider).await.unwrap();
    idp.script(|script| script.accepted_secret = Some("new"));
    assert_eq!(idp.login(&provider).await.unwrap_err().code(), "token_endpoint");

    heard.lock().unwrap().clear();
    provider.reload_files();
    assert!(heard.lock().unwrap().is_empty());
    std::fs::write(&path, "new\n").unwrap();
    provider.reload_files();
    assert_eq!(*heard.lock().unwrap(), [Event::Reloaded { path: path.clone() }]);
    idp.login(&provider).await.unwrap();

    std::fs::write(&path, "\n").unwrap();
    provider.reload_files();
    assert!(matches!(heard.lock().unwrap()[1], Event::ReloadFailed { .. }));
    idp.login(&provider).await.unwrap();
}

/// The authority of a provider is a file that may change, and only who has its signature is the provider.
#[tokio::test]
async fn a_certificate_authority_from_a_file_is_who_vouches() {
    let (ours, other) = (TestAuthority::new(), TestAuthority::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, other.pem()).unwrap();
    let server = Server::tls(ours.server(&["localhost"], |_| ()), |_| Reply::status(404)).await;
    let issuer = server.url("").replace("http://127.0.0.1", "https://localhost");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let events: Events = Arc::new(move |event| log.lock().unwrap().push(event));
    let config = Config { certificate_authority: Some(Source::File(path.clone())), ..config(&issuer) };
    let provider = Provider::new(config, Clock::system(), Handle::current(), events).unwrap();
    assert_eq!(provider.watched_files(), std::slice::from_ref(&path));
    let asked = async || {
        provider.begin(asking("s")).await.unwrap_err();
        let reason = provider.last_problem().unwrap();
        provider.forget_attempt();
        reason
    };
    assert!(asked().await.contains("authority that is not trusted"));
    assert!(server.asked().is_empty());

    heard.lock().unwrap().clear();
    provider.reload_files();
    assert!(heard.lock().unwrap().is_empty(), "it is what it was");
    std::fs::write(&path, ours.pem()).unwrap();
    provider.reload_files();
    assert_eq!(heard.lock().unwrap().pop(), Some(Event::Reloaded { path: path.clone() }));
    assert!(asked().await.contains("404"));

    std::fs::write(&path, "no certificate").unwrap();
    provider.reload_files();
    assert!(matches!(heard.lock().unwrap().pop(), Some(Event::ReloadFailed { .. })));
    assert!(asked().await.contains("404"), "the one before is still in use");
}

#[tokio::test]
async fn mistakes_of_the_configuration_are_named() {
    type Change = fn(&mut Config);
    let rows: Vec<(&str, Change)> = vec![
        ("OIDCProviderURL", |c| c.issuer = "idp.example".to_owned()),
        ("OIDCProviderURL", |c| c.issuer = "http://203.0.113.1".to_owned()),
        ("OIDCClientSecret", |c| c.client_secret = Some(Source::File("/nonexistent".into()))),
        ("OIDCClientSecret", |c| c.client_secret = Some(Source::Inline(Secret::new(String::new())))),
        ("OIDCSigningAlgorithms", |c| {
            c.client_secret = None;
            c.signing_algorithms = Some(vec![SigningAlgorithm::Hs256]);
        }),
        ("OIDCProviderCertificateAuthority", |c| {
            c.certificate_authority = Some(Source::Inline(Secret::new("hello".to_owned())));
        }),
        ("`nonce`", |c| c.authorization_parameters = vec![("nonce".to_owned(), "n".to_owned())]),
        ("max_age", |c| c.authorization_parameters = vec![("max_age".to_owned(), "1h".to_owned())]),
        ("`prompt`", |c| {
            c.authorization_parameters =
                vec![("prompt".to_owned(), String::new()), ("prompt".to_owned(), String::new())];
        }),
    ];
    for (named, change) in rows {
        let mut config = config("https://idp.example");
        change(&mut config);
        let made = Provider::new(config, Clock::system(), Handle::current(), Arc::new(drop));
        let text = made.unwrap_err().to_string();
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[tokio::test]
async fn the_connection_test_finds_what_is_wrong() {
    type Change = fn(&mut Script);
    let rows: Vec<(&str, Level, Change)> = vec![
        ("accepts OIDCClientID", Level::Ok, |_| ()),
        ("issuer mismatch", Level::Error, |s| s.document = json!({"issuer": "https://idp.example"})),
        ("refuses the client", Level::Error, |s| s.accepted_secret = Some("another")),
        ("keys can't be had", Level::Error, |s| drop(s.replies.insert("/jwks", Reply::status(500)))),
        ("no published key fits", Level::Error, |s| {
            s.document = json!({"id_token_signing_alg_values_supported": ["ES256"]});
            s.keys = vec![TestKey::rs256().jwk()];
        }),
        ("PKCE", Level::Warning, |s| s.document = json!({"code_challenge_methods_supported": ["plain"]})),
        ("after a logout here its own session goes on", Level::Ok, |_| ()),
        ("refresh tokens end by themselves", Level::Ok, |_| ()),
        ("no back-channel logout", Level::Ok, |_| ()),
        ("is passed on to the provider", Level::Ok, |s| {
            s.document = json!({"end_session_endpoint": format!("{}/logout", s.base)});
        }),
        ("are revoked at a logout", Level::Ok, |s| {
            s.document = json!({"revocation_endpoint": format!("{}/revoke", s.base)});
        }),
        ("can end sessions here", Level::Ok, |s| s.document = json!({"backchannel_logout_supported": true})),
        ("OIDCFrontChannelLogout", Level::Ok, |s| {
            s.document = json!({"frontchannel_logout_supported": true})
        }),
        ("end_session_endpoint", Level::Warning, |s| {
            s.document = json!({"end_session_endpoint": "file:///"})
        }),
        ("does not list its scopes", Level::Ok, |_| ()),
        ("can be refreshed", Level::Ok, |s| s.document = json!({"scopes_supported": ["offline_access"]})),
        ("may not be refreshed", Level::Warning, |s| s.document = json!({"scopes_supported": ["openid"]})),
        ("does not offer", Level::Warning, |s| {
            s.document = json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]});
        }),
        ("authenticates by client_secret_basic", Level::Ok, |s| {
            s.document = json!({"token_endpoint_auth_methods_supported": ["client_secret_basic"]});
        }),
        ("could not be tried", Level::Warning, |s| drop(s.replies.insert("/token", Reply::status(500)))),
        ("refuses our request for the callback", Level::Warning, |s| {
            s.replies.insert("/authorize", Reply::status(400));
        }),
        ("clock", Level::Error, |s| {
            let mut headers = vec![("Date".to_owned(), httpdate::fmt_http_date(std::time::UNIX_EPOCH))];
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
            let document = s.document().to_string().into_bytes();
            s.replies.insert("/.well-known/openid-configuration", Reply::Full(200, headers, document));
        }),
    ];
    for (named, level, change) in rows {
        let idp = Idp::start().await;
        idp.script(change);
        let (provider, ..) = idp.provider_with(|config| config.scopes.push("offline_access".to_owned()));
        let findings = provider.diagnose().await;
        let found = findings.iter().find(|finding| finding.what.contains(named));
        assert_eq!(found.map(|finding| finding.level), Some(level), "{named}: {findings:?}");
        assert_eq!(findings.iter().map(|finding| finding.level).max(), Some(level), "{named}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.fix.is_empty() == (finding.level == Level::Ok)));
    }
}

/// Up to ten seconds and the precision of a `Date` are as it should be, up to the configured skew logins work.
#[tokio::test]
async fn the_connection_test_measures_the_provider_s_clock() {
    for (off, level) in [
        (0, Level::Ok),
        (12, Level::Ok),
        (-12, Level::Ok),
        (13, Level::Warning),
        (60, Level::Warning),
        (-60, Level::Warning),
        (61, Level::Error),
        (-61, Level::Error),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| {
            let theirs =
                std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW.saturating_add_signed(off));
            let mut headers = vec![("Date".to_owned(), httpdate::fmt_http_date(theirs))];
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
            let document = script.document().to_string().into_bytes();
            script.replies.insert("/.well-known/openid-configuration", Reply::Full(200, headers, document));
        });
        let findings = idp.provider().diagnose().await;
        let found = findings.iter().find(|finding| finding.what.contains("clock")).unwrap();
        assert_eq!(found.level, level, "{off}: {found:?}");
        assert!(found.what.contains(&format!("differ by {} s", off.abs())), "{found:?}");
    }
}

/// What an authorization endpoint says at once: a page or a redirect is fine, an error of either side is told.
#[tokio::test]
async fn the_connection_test_looks_at_the_first_answer() {
    for (status, level, words) in [
        (200, Level::Ok, "takes the callback"),
        (403, Level::Warning, "refuses our request"),
        (500, Level::Warning, "answers 500"),
    ] {
        let idp = Idp::start().await;
        idp.script(|script| drop(script.replies.insert("/authorize", Reply::status(status))));
        let findings = idp.provider().diagnose().await;
        let found = findings.iter().find(|finding| finding.what.contains(words));
        assert_eq!(found.map(|finding| finding.level), Some(level), "{status}: {findings:?}");
        // Who does not ask for refresh tokens is told nothing about them.
        assert!(!findings.iter().any(|finding| finding.what.contains("offline_access")));
    }
}
