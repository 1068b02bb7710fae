//! The whole play: a provider, an application, and the proxy between them and a browser.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::app::App;
use super::client::{Answer, Browser};
use super::idp::{Algorithm, Behaviour, Endpoint, Idp};
use super::ports::free_port;
use super::proxy::{Finished, Proxy};
use super::secrets::Secrets;

/// The host of the service.
pub const HOST: &str = "app.test";

/// What a stage is made of, to be changed before it is built.
#[derive(Debug)]
pub struct Plan {
    pub behaviour: Behaviour,
    /// The configuration file.
    pub config: Value,
    /// Whether the provider is there when the proxy starts.
    pub idp_is_up: bool,
    /// Whether the application is.
    pub app_is_up: bool,
    /// Whether to wait until discovery is through.
    pub wait_for_discovery: bool,
    /// How many files the proxy may have open, if it is limited.
    pub files: Option<usize>,
}

impl Plan {
    /// A field of the first service.
    pub fn set(&mut self, field: &str, value: Value) {
        self.config["services"][0][field] = value;
    }

    /// A second service on the same port and with the same rules, with another host.
    pub fn second(&mut self, name: &str, host: &str) -> &mut Value {
        let mut service = self.config["services"][0].clone();
        let port = service["exposedPort"].as_u64().unwrap();
        service["name"] = json!(name);
        service["hosts"] = json!([host]);
        service["OIDCCallbackURL"] = json!(format!("https://{host}:{port}"));
        let services = self.config["services"].as_array_mut().unwrap();
        services.push(service);
        services.last_mut().unwrap()
    }

    /// The endpoints of the only spec.
    pub fn endpoints(&mut self, endpoints: Value) {
        self.config["httpResourceSpecs"][0]["endpoints"] = endpoints;
    }

    /// A limit.
    pub fn limit(&mut self, name: &str, value: Value) {
        self.config["limits"][name] = value;
    }
}

/// A running stage. When it is dropped, the log must hold no secret and the proxy must end well.
#[derive(Debug)]
pub struct Stage {
    pub proxy: Proxy,
    pub idp: Idp,
    pub app: App,
    /// Where users come.
    pub port: u16,
    /// `https://app.test:<port>`.
    pub origin: String,
    /// The admin listener.
    pub admin: u16,
    /// The file that it runs with.
    pub config: Value,
}

impl Stage {
    /// Everything as usual.
    pub async fn usual() -> Self {
        Self::with(|_| {}).await
    }

    /// With a provider that behaves so.
    pub async fn misbehaving(behaviour: Behaviour) -> Self {
        Self::with(|plan| plan.behaviour = behaviour).await
    }

    /// With changes.
    pub async fn with(change: impl FnOnce(&mut Plan)) -> Self {
        match Self::build(change, Arc::new(TempDir::new().unwrap())).await {
            Ok(stage) => stage,
            Err(finished) => panic!("portcullis did not start: {finished:#?}"),
        }
    }

    /// With changes and the state of an earlier run.
    pub async fn build(change: impl FnOnce(&mut Plan), state: Arc<TempDir>) -> Result<Self, Finished> {
        let [port, admin] = [free_port(), free_port()];
        let mut plan = Plan {
            behaviour: Behaviour::good(Algorithm::Es256),
            config: config(port, admin),
            idp_is_up: true,
            app_is_up: true,
            wait_for_discovery: true,
            files: None,
        };
        change(&mut plan);
        let app = App::down();
        if plan.app_is_up {
            app.up().await;
        }
        let idp = Idp::down(plan.behaviour);
        if plan.idp_is_up {
            idp.up().await;
        }
        fill(&mut plan.config, &idp, &app);
        let text = serde_yaml::to_string(&plan.config).unwrap();
        let mut proxy = match plan.files {
            Some(files) => Proxy::start_limited(state, &text, files).await?,
            None => Proxy::start_in(state, &text, &[]).await?,
        };
        proxy.secrets = idp.secrets().clone();
        proxy.admin = Some(admin);
        if plan.idp_is_up && plan.wait_for_discovery {
            idp.wait_for(&Endpoint::Discovery, 1).await;
        }
        Ok(Self {
            proxy,
            idp,
            app,
            port,
            origin: format!("https://{HOST}:{port}"),
            admin,
            config: plan.config,
        })
    }

    /// An absolute URL of the service.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// What nobody may see.
    pub fn secrets(&self) -> &Secrets {
        self.idp.secrets()
    }

    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(self.secrets())
    }

    /// A browser that is logged in.
    pub async fn logged_in(&self) -> Browser {
        self.logged_in_at("/app/").await
    }

    /// A browser that was logged in by a page.
    pub async fn logged_in_at(&self, path: &str) -> Browser {
        let mut browser = self.browser();
        browser.follow(&self.url(path)).await.expect(200);
        browser
    }

    /// A login from a page on, up to and with the callback's answer.
    pub async fn login(&self, browser: &mut Browser, path: &str) -> Answer {
        let callback = browser.authorize(&self.url(path)).await;
        browser.navigate(callback.as_str()).await
    }

    /// A path of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        self.browser().send("GET", &format!("http://127.0.0.1:{}{path}", self.admin), &[], b"").await
    }
}

/// A configuration with one service and rules of every kind. Ports and names of the provider and the application
/// are filled in later.
pub fn config(port: u16, admin: u16) -> Value {
    json!({
        "services": [{
            "name": "app",
            "type": "HTTP",
            "authorizationType": "OIDC",
            "OIDCCallbackURL": format!("https://{HOST}:{port}"),
            "OIDCScopes": ["openid", "email", "profile"],
            "hosts": [HOST],
            "listenAddress": "127.0.0.1",
            "exposedPort": port,
            "exposedAPIs": [["httpresourcespec:name=app"]],
            "claimsToHTTPHeaderMappings": [
                { "claimName": "sub", "targetHTTPHeader": "X-User" },
                { "claimName": "groups", "targetHTTPHeader": "X-Groups" },
            ],
        }],
        "httpResourceSpecs": [{
            "name": "app",
            "associatedTags": ["httpresourcespec:name=app"],
            "endpoints": [
                { "URI": "/public/*", "methods": ["GET", "POST"], "public": true },
                { "URI": "/app/*", "methods": ["*"], "allowedScopes": [["email=*"]] },
                { "URI": "/staff/*", "methods": ["GET", "POST"], "allowedScopes": [["groups=staff"]] },
                { "URI": "/admin/*", "methods": ["*"], "allowedScopes": [["groups=admin"]] },
                { "URI": "/closed/*", "methods": ["*"], "allowedScopes": [] },
                { "URI": "/strong/*", "methods": ["*"], "allowedScopes": [["email=*"]], "requiredACR": ["gold"] },
                { "URI": "/fresh/*", "methods": ["*"], "allowedScopes": [["email=*"]], "maxAuthenticationAge": "15m" },
                { "URI": "/", "methods": ["GET"], "allowedScopes": [["email=*"]] },
            ],
        }],
        "admin": { "listen": format!("127.0.0.1:{admin}") },
        "log": { "format": "json" },
        "limits": { "workers": 1, "shutdownDelay": "1ms", "drain": "5s" },
    })
}

/// Fills in what the services do not say of their provider and application. A null is taken away.
pub fn fill(config: &mut Value, idp: &Idp, app: &App) {
    let behaviour = idp.behaviour();
    for service in config["services"].as_array_mut().unwrap() {
        let service = service.as_object_mut().unwrap();
        let mut default = |name: &str, value: Value| {
            service.entry(name).or_insert(value);
        };
        default("port", json!(app.port));
        default("OIDCProviderURL", json!(idp.issuer));
        default("OIDCClientID", json!(behaviour.client_id));
        default("OIDCClientSecret", json!(behaviour.client_secret));
        service.retain(|_, value| !value.is_null());
    }
}
