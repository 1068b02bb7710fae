//! The admin listener and the probes: what they show, to whom, and that the traffic port shows none of it.

use serde_json::json;

use crate::support::client::{Answer, FETCH, Raw};
use crate::support::ports::free_port;
use crate::support::proxy::refused;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

async fn ask(stage: &Stage, method: &str, port: u16, path: &str, headers: &[(&str, &str)]) -> Answer {
    stage.browser().send(method, &format!("http://127.0.0.1:{port}{path}"), headers, b"").await
}

#[tokio::test]
async fn health_readiness_metrics_and_config() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    browser.fetch(&stage.url("/admin/")).await.expect(403);
    stage.admin("/healthz").await.expect(200);
    let ready = stage.admin("/readyz").await.expect(200);
    assert!(ready.json().to_string().contains("\"app\""), "{}", ready.text());
    stage.admin("/readyz?service=app").await.expect(200);
    assert!(stage.admin("/readyz?service=nobody").await.status >= 400);
    let metrics = stage.admin("/metrics").await.expect(200).text();
    for name in [
        "portcullis_requests_total{",
        "portcullis_request_duration_seconds",
        "portcullis_logins_total{",
        "portcullis_connections{worker=\"0\"}",
        "portcullis_log_dropped_total",
        "portcullis_reload_failures_total",
        "portcullis_build_info{",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let counted = metrics.lines().any(|line| {
        line.starts_with("portcullis_requests_total{")
            && ["service=\"app\"", "action=\"Reject\"", "status=\"403\""]
                .iter()
                .all(|label| line.contains(label))
    });
    assert!(counted, "{metrics}");
    let config = stage.admin("/config").await.expect(200).text();
    assert!(config.contains("client-of-the-tests"), "{config}");
    assert_eq!(stage.secrets().found_in(&config), None);
    assert_eq!(stage.secrets().found_in(&metrics), None);
    for (method, path, status) in [("GET", "/nothing", 404), ("PUT", "/healthz", 405)] {
        let answer = ask(&stage, method, stage.admin, path, &[]).await.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["status"], status);
    }
}

/// 64 clients that keep their connections are split over two workers no worse than 40:60.
#[tokio::test]
async fn connections_are_split_over_the_workers() {
    let stage = Stage::with(|plan| plan.limit("workers", json!(2))).await;
    for round in 0..5 {
        let clients = (0..64).map(|_| async {
            let mut client = Raw::connect(stage.port, HOST).await;
            client.send(format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            client.answer().await.unwrap().expect(200);
            client
        });
        let clients = futures_util::future::join_all(clients).await;
        let split = open_connections(&stage, 64).await;
        assert!(split.iter().all(|count| (26..=38).contains(count)), "round {round}: {split:?}");
        drop(clients);
        open_connections(&stage, 0).await;
    }
}

/// Waits until so many connections are open, and says how many each worker has.
async fn open_connections(stage: &Stage, wanted: u64) -> Vec<u64> {
    soon("the connections to be counted", async {
        loop {
            let metrics = stage.admin("/metrics").await.text();
            let lines = metrics.lines().filter(|line| line.starts_with("portcullis_connections{"));
            let counts: Vec<u64> =
                lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            if counts.iter().sum::<u64>() == wanted {
                return counts;
            }
        }
    })
    .await
}

/// A page in a browser can't read it, by name rebinding or from another origin.
#[tokio::test]
async fn only_local_programs_are_answered() {
    let stage = Stage::usual().await;
    for path in ["/healthz", "/config", "/metrics"] {
        for (name, value) in [
            ("host", "evil.test"),
            ("host", "evil.test:9901"),
            ("origin", "https://evil.test"),
            ("origin", "http://127.0.0.1"),
            ("origin", "null"),
        ] {
            let answer = raw(stage.admin, path, name, value).await;
            assert!(
                answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 421"),
                "{name}: {value}: {answer}"
            );
        }
        for host in ["127.0.0.1", "localhost:1", "[::1]:9901"] {
            let answer = raw(stage.admin, path, "host", host).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        }
    }
}

async fn raw(port: u16, path: &str, name: &str, value: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = if name == "host" { String::new() } else { "Host: localhost\r\n".to_owned() };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{name}: {value}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    soon("an answer of the admin listener", exchange).await
}

/// `admin.tokenFile`.
#[tokio::test]
async fn a_token_guards_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "token-of-the-operator-x7\n").unwrap();
    let stage = Stage::with(|plan| plan.config["admin"]["tokenFile"] = json!(file)).await;
    for (value, status) in [
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic token-of-the-operator-x7", 401),
        ("Bearer token-of-the-operator-x7", 200),
    ] {
        let headers: &[(&str, &str)] = if value.is_empty() { &[] } else { &[("authorization", value)] };
        assert_eq!(ask(&stage, "GET", stage.admin, "/config", headers).await.status, status, "{value}");
    }
    stage.admin("/healthz").await.expect(200);
    stage.admin("/metrics").await.expect(200);
}

/// `admin.probes` shows less.
#[tokio::test]
async fn probes_show_only_what_kubelet_needs() {
    let port = free_port();
    let stage = Stage::with(|plan| plan.config["admin"]["probes"] = json!(format!("127.0.0.1:{port}"))).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        ask(&stage, "GET", port, path, &[]).await.expect(200);
        let answer = raw(port, path, "host", "10.0.0.7:9902").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "kubelet names the pod's address: {answer}");
    }
    for path in ["/config", "/flows", "/"] {
        assert_eq!(ask(&stage, "GET", port, path, &[]).await.status, 404, "{path}");
    }
}

/// Connections that say nothing keep nobody from asking.
#[tokio::test]
async fn silent_connections_hold_no_probe_up() {
    let port = free_port();
    let stage = Stage::with(|plan| plan.config["admin"]["probes"] = json!(format!("127.0.0.1:{port}"))).await;
    let mut silent = Vec::new();
    for port in [port, stage.admin] {
        for _ in 0..200 {
            silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let asked = std::time::Instant::now();
        let answer = raw(port, "/healthz", "host", &format!("127.0.0.1:{port}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // They may stay for ten seconds.
        assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}

/// OPS-02.
#[tokio::test]
async fn the_traffic_port_shows_nothing_of_it() {
    let stage = Stage::usual().await;
    let mut browser = stage.logged_in().await;
    for path in ["/healthz", "/readyz", "/metrics", "/config", "/flows"] {
        let answer = browser.send("GET", &stage.url(path), &FETCH, b"").await;
        assert!(matches!(answer.status, 200 | 403), "{path}: {answer:?}");
        assert!(answer.status == 403 || answer.header("x-app") == "yes", "{path}");
        let stranger = stage.browser().fetch(&stage.url(path)).await;
        assert_eq!(stranger.status, 401, "{path}");
    }
}

#[tokio::test]
async fn an_open_admin_listener_needs_a_token() {
    let mut config = crate::support::stage::config(free_port(), free_port());
    config["admin"] = json!({ "listen": format!("0.0.0.0:{}", free_port()) });
    for (name, value) in
        [("OIDCProviderURL", "https://idp.test"), ("OIDCClientID", "c"), ("OIDCClientSecret", "s")]
    {
        config["services"][0][name] = json!(value);
    }
    config["services"][0]["port"] = json!(8080);
    let finished = refused(&serde_yaml::to_string(&config).unwrap()).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("tokenFile"), "{}", finished.stderr);
}

/// A Unix socket in place of a port.
#[tokio::test]
async fn the_admin_listener_can_be_a_socket() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let stage =
        Stage::with(|plan| plan.config["admin"]["listen"] = json!(format!("unix:{}", socket.display())))
            .await;
    let exchange = async {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon("an answer over the socket", exchange).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stage);
}
