//! The proxy in this process, with a clock that the test moves: for what takes hours, and for rounds by the thousand.
//! Everything else is real: sockets, TLS, workers, the provider and the application.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis::clock::{Clock, ManualClock, UnixTime};
use portcullis::config::{self, Environment};
use portcullis::run::{Options, Proxy};
use portcullis::telemetry::{Format, Log};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::app::App;
use super::client::Browser;
use super::idp::{Algorithm, Behaviour, Endpoint, Idp};
use super::ports::free_port;
use super::stage::{self, HOST, Plan};

/// A running stage. Dropped, it ends the proxies and demands a log without secrets.
#[derive(Debug)]
pub struct Inside {
    pub idp: Idp,
    pub app: App,
    /// `https://app.test:<port>`: the proxy's port, or that of a balancer in front of several.
    pub origin: String,
    /// Where each proxy listens itself.
    pub ports: Vec<u16>,
    clock: ManualClock,
    time: Clock,
    log: Lines,
    proxies: Vec<Running>,
    _state: TempDir,
}

#[derive(Debug)]
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    /// One proxy whose clock stands at the present until it is moved. Sessions can be refreshed.
    pub async fn with(change: impl Fn(&mut Plan)) -> Self {
        Self::replicas(1, change).await
    }

    /// Several proxies with the same keys, behind a balancer that gives each connection to the next.
    pub async fn replicas(count: usize, change: impl Fn(&mut Plan)) -> Self {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let front = if count == 1 { ports[0] } else { free_port() };
        let state = TempDir::new().unwrap();
        let plan = |port: u16| {
            let mut plan = Plan {
                behaviour: Behaviour::good(Algorithm::Es256),
                config: stage::config(port, free_port()),
                idp_is_up: true,
                app_is_up: true,
                wait_for_discovery: true,
                files: None,
            };
            plan.set("OIDCScopes", json!(["openid", "email", "profile", "offline_access"]));
            plan.set("OIDCCallbackURL", json!(format!("https://{HOST}:{front}")));
            plan.config["stateDirectory"] = json!(state.path().join(port.to_string()));
            if count > 1 {
                plan.config["session"]["keyFile"] = json!(state.path().join("keys"));
            }
            change(&mut plan);
            plan
        };
        std::fs::write(state.path().join("keys"), STANDARD.encode([7; 32])).unwrap();
        let app = App::down();
        app.up().await;
        let idp = Idp::start(plan(front).behaviour).await;
        let (clock, manual) = Clock::manual(UnixTime(super::idp::now()));
        let log = Lines::default();
        let mut proxies = Vec::new();
        for port in &ports {
            let mut plan = plan(*port);
            stage::fill(&mut plan.config, &idp, &app);
            let (stop, stopped) = oneshot::channel();
            let (serving, served) = oneshot::channel();
            let (text, clock, output) =
                (serde_yaml::to_string(&plan.config).unwrap(), clock.clone(), log.clone());
            let thread = std::thread::spawn(move || serve(text, clock, output, stopped, serving));
            served.await.expect("the proxy started");
            proxies.push(Running { stop: Some(stop), thread: Some(thread) });
        }
        idp.wait_for(&Endpoint::Discovery, count).await;
        if count > 1 {
            tokio::spawn(balance(
                TcpListener::bind((Ipv4Addr::LOCALHOST, front)).await.unwrap(),
                ports.clone(),
            ));
        }
        let origin = format!("https://{HOST}:{front}");
        Self { idp, app, origin, ports, clock: manual, time: clock, log, proxies, _state: state }
    }

    /// An absolute URL of one of the proxies, past the balancer.
    pub fn url_of(&self, replica: usize, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.ports[replica])
    }

    /// Moves the clocks of the proxy and of the provider.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.tell_the_provider();
    }

    /// Sets all clocks by so many seconds, forward or back, as an administrator does.
    pub fn jump(&self, seconds: i64) {
        self.clock.set(UnixTime(self.time.now().0.saturating_add_signed(seconds)));
        self.tell_the_provider();
    }

    /// The provider's clock goes on by itself: it is set to ours whenever that is moved.
    fn tell_the_provider(&self) {
        let ours = i64::try_from(self.time.now().0).unwrap();
        self.idp.change(|behaviour| {
            behaviour.seconds_ahead = ours - i64::try_from(super::idp::now()).unwrap();
        });
    }

    /// An absolute URL of the service.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// A browser that is logged in.
    pub async fn logged_in(&self) -> Browser {
        let mut browser = Browser::new(self.idp.secrets());
        browser.follow(&self.url("/app/")).await.expect(200);
        browser
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<Value> {
        let text = self.log.text();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line of this kind, which may still be on its way.
    pub async fn line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                if let Some(line) = self.log().into_iter().find(&is_it) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        super::soon(what, found).await
    }

    /// The events of this name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["event"] == name).collect()
    }
}

/// Gives each connection to the next proxy, byte for byte.
async fn balance(listener: TcpListener, ports: Vec<u16>) {
    for port in ports.into_iter().cycle() {
        let Ok((mut client, _)) = listener.accept().await else { return };
        tokio::spawn(async move {
            if let Ok(mut proxy) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
            }
        });
    }
}

fn serve(
    config: String,
    clock: Clock,
    output: Lines,
    stopped: oneshot::Receiver<()>,
    serving: oneshot::Sender<()>,
) {
    let source = config::Source::Text { name: "inside".to_owned(), text: config };
    let config = config::load(&source, &Environment::of_process()).expect("a good configuration");
    let (log, writer) = Log::start(Format::Json, output);
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    control.block_on(async {
        let proxy =
            Proxy::assemble(&config, &Options { log, explain_denials: false, clock }).expect("assembled");
        // Its ports are taken from here on; connections wait until the workers are up.
        serving.send(()).unwrap();
        let stop = async { drop(stopped.await) };
        proxy.serve(stop).await.expect("served to the end");
    });
    writer.finish();
}

impl Drop for Inside {
    fn drop(&mut self) {
        let ends = self.proxies.iter_mut().map(|proxy| {
            drop(proxy.stop.take());
            proxy.thread.take().map(JoinHandle::join)
        });
        let ended: Vec<_> = ends.collect();
        if std::thread::panicking() {
            eprintln!("{}", self.log.text());
            return;
        }
        assert!(ended.iter().all(|end| matches!(end, Some(Ok(())))), "a proxy panicked");
        let found = self.idp.secrets().found_in(&self.log.text());
        assert!(found.is_none(), "the log shows a secret");
        assert_eq!(self.idp.secrets().found_in_shown(), None, "a secret in an answer");
    }
}

/// What the log writes, kept.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
