//! The adversarial identity provider: in this process, on loopback, over plain HTTP. It approves everybody,
//! checks what the relying party sends, writes down every call, and misbehaves as its [`Behaviour`] says.

mod behaviour;
mod endpoints;
mod keys;
mod mode;
mod refresh;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub use behaviour::{Behaviour, ClientAuthentication, Reply, Signer, break_signature, set};
pub use endpoints::now;
pub use keys::{Algorithm, Key, encode, random};
pub use mode::Mode;

use super::ports::free_port;
use super::secrets::Secrets;
use super::soon;

/// A provider. It stops when dropped.
#[derive(Debug)]
pub struct Idp {
    /// The issuer, with the host that it was made with.
    pub issuer: String,
    port: u16,
    shared: Arc<Shared>,
    server: Mutex<Option<AbortHandle>>,
}

/// Where a call went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Discovery,
    Jwks,
    Authorize,
    Token,
    UserInfo,
    /// RFC 7009.
    Revoke,
    /// RP-Initiated Logout 1.0.
    EndSession,
    /// A path that the metadata doesn't name.
    Other(String),
}

/// A call that was received.
#[derive(Clone, Debug)]
pub struct Call {
    pub endpoint: Endpoint,
    pub method: http::Method,
    pub headers: http::HeaderMap,
    pub query: Vec<(String, String)>,
    pub form: Vec<(String, String)>,
}

impl Call {
    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }
}

/// The value of the first pair with this name.
pub fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// An authorization that waits for its code to be redeemed.
#[derive(Clone, Debug)]
struct Grant {
    redirect_uri: String,
    challenge: String,
    nonce: String,
    scope: String,
    acr_values: Option<String>,
    max_age: Option<String>,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    jwks_path: String,
    behaviour: Mutex<Behaviour>,
    calls: watch::Sender<Vec<Call>>,
    wrongs: Mutex<Vec<String>>,
    grants: Mutex<HashMap<String, Grant>>,
    access: Mutex<HashMap<String, String>>,
    refresh: Mutex<refresh::Families>,
    secrets: Secrets,
}

impl Idp {
    /// Starts one whose issuer is `http://127.0.0.1:<port>`.
    pub async fn start(behaviour: Behaviour) -> Self {
        let idp = Self::down(behaviour);
        idp.up().await;
        idp
    }

    /// One that is not there yet.
    pub fn down(behaviour: Behaviour) -> Self {
        let port = free_port();
        let issuer = format!("http://127.0.0.1:{port}");
        let secrets = Secrets::default();
        secrets.add(&behaviour.client_secret);
        let shared = Arc::new(Shared {
            issuer: issuer.clone(),
            jwks_path: format!("/keys/{}", random()),
            behaviour: Mutex::new(behaviour),
            calls: watch::Sender::new(Vec::new()),
            wrongs: Mutex::default(),
            grants: Mutex::default(),
            access: Mutex::default(),
            refresh: Mutex::default(),
            secrets,
        });
        Self { issuer, port, shared, server: Mutex::new(None) }
    }

    /// Starts to listen.
    pub async fn up(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let server = tokio::spawn(serve(listener, self.shared.clone()));
        if let Some(old) = self.server.lock().unwrap().replace(server.abort_handle()) {
            old.abort();
        }
    }

    /// Stops to listen and drops every connection.
    pub async fn stop(&self) {
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.abort();
            let gone = async {
                while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            soon("the provider to be gone", gone).await;
        }
    }

    /// Changes how it behaves from now on.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.shared.behaviour.lock().unwrap();
        change(&mut behaviour);
        self.shared.secrets.add(&behaviour.client_secret);
    }

    /// How it behaves now.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.behaviour.lock().unwrap().clone()
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// The calls of one endpoint.
    pub fn calls_of(&self, endpoint: &Endpoint) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.endpoint == *endpoint).collect()
    }

    /// How many calls an endpoint got.
    pub fn count(&self, endpoint: &Endpoint) -> usize {
        self.shared.calls.borrow().iter().filter(|call| call.endpoint == *endpoint).count()
    }

    /// How many refreshes were asked for.
    pub fn refreshes(&self) -> usize {
        let calls = self.shared.calls.borrow();
        calls.iter().filter(|call| find(&call.form, "grant_type") == Some("refresh_token")).count()
    }

    /// Waits for that many refreshes to be asked for.
    pub async fn wait_for_refreshes(&self, count: usize) {
        let mut calls = self.shared.calls.subscribe();
        let is_refresh = |call: &&Call| find(&call.form, "grant_type") == Some("refresh_token");
        let enough = calls.wait_for(|calls| calls.iter().filter(is_refresh).count() >= count);
        soon(&format!("refresh {count}"), enough).await.unwrap();
    }

    /// A logout token (Back-Channel Logout 1.0 section 2.4) about `alice`, changed before it is signed.
    pub fn logout_token(&self, change: impl FnOnce(&mut Value)) -> String {
        endpoints::logout_token(&self.shared, change)
    }

    /// Calls at the endpoints that only a login uses: token and UserInfo.
    pub fn login_calls(&self) -> (usize, usize) {
        (self.count(&Endpoint::Token), self.count(&Endpoint::UserInfo))
    }

    /// Waits for that many calls of an endpoint.
    pub async fn wait_for(&self, endpoint: &Endpoint, count: usize) {
        let mut calls = self.shared.calls.subscribe();
        let enough =
            calls.wait_for(|calls| calls.iter().filter(|call| call.endpoint == *endpoint).count() >= count);
        soon(&format!("call {count} of {endpoint:?}"), enough).await.unwrap();
    }

    /// What the relying party did wrong, as OpenID Connect sees it.
    pub fn wrongs(&self) -> Vec<String> {
        self.shared.wrongs.lock().unwrap().clone()
    }

    /// Codes, tokens and the client's secret: what nobody may see.
    pub fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = shared.clone();
        connections.spawn(async move {
            let answer = |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            };
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    async fn answer(&self, request: http::Request<Incoming>) -> endpoints::Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let call = self.record(&head, &body);
        endpoints::answer(self, &call).await
    }

    fn record(&self, head: &http::request::Parts, body: &Bytes) -> Call {
        let pairs = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect::<Vec<_>>();
        let endpoint = match head.uri.path() {
            "/.well-known/openid-configuration" => Endpoint::Discovery,
            "/authorize" => Endpoint::Authorize,
            "/token" => Endpoint::Token,
            "/userinfo" => Endpoint::UserInfo,
            "/revoke" => Endpoint::Revoke,
            "/end-session" => Endpoint::EndSession,
            path if path == self.jwks_path => Endpoint::Jwks,
            path => Endpoint::Other(path.to_owned()),
        };
        let call = Call {
            endpoint,
            method: head.method.clone(),
            headers: head.headers.clone(),
            query: pairs(head.uri.query().unwrap_or_default().as_bytes()),
            form: pairs(body),
        };
        self.keep_secrets(&call);
        self.calls.send_modify(|calls| calls.push(call.clone()));
        call
    }

    /// What the relying party sends here is for nobody else: codes, verifiers, tokens, the client's credentials, and
    /// what binds a login to its browser.
    fn keep_secrets(&self, call: &Call) {
        for name in ["code", "code_verifier", "refresh_token", "token", "client_secret"] {
            find(&call.form, name).into_iter().for_each(|value| self.secrets.add(value));
        }
        for name in ["state", "nonce", "id_token_hint"] {
            call.parameter(name).into_iter().for_each(|value| self.secrets.add(value));
        }
        let credentials = call.headers.get("authorization").and_then(|value| value.to_str().ok());
        let credentials = credentials.and_then(|value| value.split_once(' '));
        credentials.into_iter().for_each(|(_, value)| self.secrets.add(value));
    }

    /// Writes down a mistake of the relying party.
    fn wrong(&self, what: impl Into<String>) {
        self.wrongs.lock().unwrap().push(what.into());
    }
}
