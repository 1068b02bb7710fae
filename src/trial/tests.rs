//! The development provider as the proxy itself sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::*;
use crate::oidc::{
    Begin, CallbackParameters, EndSession, Identity, Provider, Refresh, RefreshError, Refreshed,
};
use crate::secret::Source;

/// The `Location` that a request leads to.
async fn location(address: SocketAddr, request: &str) -> url::Url {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let found = answer.lines().find_map(|line| line.strip_prefix("location: "));
    found.unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

/// The provider of `try` and the proxy's own view of it.
async fn pair() -> (SocketAddr, Arc<Provider>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let issuer = format!("http://{address}");
    let redirect_uris = RedirectUris::Exactly(vec![callback_url(8443)]);
    let client = Client::with_fresh_secret("portcullis", redirect_uris).unwrap();
    let setup = Setup {
        issuer: &issuer,
        client: &client,
        exposed_port: 8443,
        app: App::Demo { port: 1 },
        state_directory: None,
        admin_listen: None,
    };
    let source = config::Source::Text { name: "try".to_owned(), text: setup.config() };
    let config = config::load(&source, &Environment::of_process()).unwrap();
    let config::Authorization::Oidc(oidc) = &config.services[0].authorization else { panic!() };
    assert!(matches!(oidc.client_secret, Some(Source::Inline(_))));
    let control = Handle::current();
    let provider = Provider::new((**oidc).clone(), Clock::system(), control, Arc::new(drop)).unwrap();
    let idp = DevIdp::new(&issuer, vec![client], demo_users(), Clock::system()).unwrap();
    tokio::spawn(idp.serve(listener));
    (address, provider)
}

async fn login(address: SocketAddr, provider: &Arc<Provider>) -> Identity {
    let begin = Begin { state: "s".to_owned(), ..Begin::default() };
    let (url, transaction) = provider.begin(begin).await.unwrap();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("request", url.query().unwrap()).append_pair("user", "alice");
    let form = form.finish();
    let request =
        format!("POST /login HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{form}", form.len());
    let back = location(address, &request).await;
    let parameters = CallbackParameters::parse(back.query().unwrap()).unwrap();
    provider.finish(parameters, transaction).await.unwrap()
}

async fn refresh(
    provider: &Arc<Provider>,
    of: &Identity,
    token: &Secret<String>,
) -> Result<Refreshed, RefreshError> {
    let refresh = Refresh {
        refresh_token: token.clone(),
        subject: of.subject.clone(),
        nonce: of.nonce.clone(),
        auth_time: of.auth_time,
        claims: of.claims.clone(),
        from_user_info: BTreeSet::new(),
    };
    provider.refresh(refresh).await
}

#[tokio::test]
async fn sessions_of_the_trial_are_refreshed_revoked_and_ended() {
    let (address, provider) = pair().await;
    let first = login(address, &provider).await;
    let grant = first.grant.clone().unwrap();
    let refreshed = refresh(&provider, &first, &grant.refresh_token).await.unwrap();
    let id_token = refreshed.id_token.unwrap();
    assert_eq!((&id_token.sid, id_token.auth_time), (&first.sid, first.auth_time));
    assert!(first.sid.is_some() && refreshed.claims["groups"] == first.claims["groups"]);
    assert_eq!(refreshed.grant.expires_at.since(refreshed.grant.received_at), Duration::from_secs(300));
    // The first one again: somebody has it who should not.
    for token in [&grant.refresh_token, &refreshed.grant.refresh_token] {
        let outcome = refresh(&provider, &first, token).await;
        assert!(matches!(outcome, Err(RefreshError::Ended(_))), "{outcome:?}");
    }

    let second = login(address, &provider).await;
    let mut token = second.grant.clone().unwrap().refresh_token;
    provider.revoke(token.clone());
    let begin = Instant::now();
    while let Ok(refreshed) = refresh(&provider, &second, &token).await {
        assert!(begin.elapsed() < Duration::from_secs(5), "it was never revoked");
        token = refreshed.grant.refresh_token;
    }

    let logout = EndSession {
        id_token_hint: Some(second.id_token.expose()),
        logout_hint: None,
        post_logout_redirect_uri: "https://localhost:8443/aporeto/oidc/logout",
        state: "x",
    };
    let url = provider.end_session(logout).unwrap();
    let target = format!("{}?{}", url.path(), url.query().unwrap());
    let back = location(address, &format!("GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")).await;
    assert_eq!(back.as_str(), "https://localhost:8443/aporeto/oidc/logout?state=x");
}
