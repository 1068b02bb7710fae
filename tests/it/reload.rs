//! Files that are read again when they change: certificates, session keys, the client's secret. A bad one keeps
//! the old one, says so, and is counted.

use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::client::connect;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// A self-signed pair for a host; its certificate as DER.
fn write_pair(directory: &Path) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.der().to_vec()
}

async fn shown(stage: &Stage) -> Vec<u8> {
    let tls = connect(stage.port, Some(HOST), &[b"http/1.1"]).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn shows(stage: &Stage, wanted: &[u8]) {
    let until = async {
        while shown(stage).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    soon("the new certificate", until).await;
}

async fn metric(stage: &Stage, name: &str) -> f64 {
    let text = stage.admin("/metrics").await.expect(200).text();
    let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// REL-19, with the swap of links that Kubernetes makes.
#[tokio::test]
async fn certificates_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path();
    let first = write_pair(&mount.join("..first"));
    symlink("..first", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let stage = Stage::with(|plan| {
        plan.set("TLSType", json!("External"));
        plan.set("TLSCertificate", json!(mount.join("tls.crt")));
        plan.set("TLSCertificateKey", json!(mount.join("tls.key")));
    })
    .await;
    assert_eq!(shown(&stage).await, first);
    let second = write_pair(&mount.join("..second"));
    symlink("..second", mount.join("..new")).unwrap();
    std::fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    shows(&stage, &second).await;

    // A key of another certificate: the old pair stays.
    let failures = metric(&stage, "portcullis_reload_failures_total").await;
    let other = directory.path().join("other");
    write_pair(&other);
    std::fs::copy(other.join("tls.key"), mount.join("..second/tls.key")).unwrap();
    let told = |line: &Value| line["event"] == "certificate" && line["level"] == "error";
    stage.proxy.line("the pair that does not fit", told).await;
    assert_eq!(shown(&stage).await, second);
    assert!(metric(&stage, "portcullis_reload_failures_total").await > failures);
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);

    let third = write_pair(&mount.join("..second"));
    shows(&stage, &third).await;
}

/// SES-07 without a restart.
#[tokio::test]
async fn session_keys_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let [old, new] = [[1; 32], [2; 32]].map(|key| base64::engine::general_purpose::STANDARD.encode(key));
    std::fs::write(&file, &old).unwrap();
    let stage = Stage::with(|plan| plan.config["session"] = json!({ "keyFile": file })).await;
    let mut browser = stage.logged_in().await;
    let mut of_before = browser.clone();
    let rotated = |count: usize| {
        let stage = &stage;
        async move {
            let seen = std::cell::Cell::new(0);
            let told = |line: &Value| {
                let keys = line["event"] == "key-rotation"
                    && line["message"].as_str().unwrap_or_default().contains("session");
                seen.set(if line["event"] == "started" { 0 } else { seen.get() + usize::from(keys) });
                seen.get() >= count
            };
            stage.proxy.line("the rotation of the session keys", told).await;
        }
    };
    std::fs::write(&file, format!("{new}\n{old}\n")).unwrap();
    rotated(1).await;
    browser.fetch(&stage.url("/app/")).await.expect(200);
    // Garbage keeps what is there.
    std::fs::write(&file, "not a key\n").unwrap();
    stage.proxy.event("reload-failed").await;
    browser.fetch(&stage.url("/app/")).await.expect(200);
    std::fs::write(&file, format!("{new}\n")).unwrap();
    rotated(2).await;
    // The browser may have got a cookie under the new key; one of before is worth nothing, whoever has it cached.
    of_before.fetch(&stage.url("/app/")).await.expect(401);
    stage.logged_in().await;
}

/// `OIDCClientSecretFile`: a changed secret is used by the next login.
#[tokio::test]
async fn the_clients_secret_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "secret-of-the-tests-8f14e45f\n").unwrap();
    let stage = Stage::with(|plan| {
        plan.set("OIDCClientSecret", Value::Null);
        plan.set("OIDCClientSecretFile", json!(file));
    })
    .await;
    stage.logged_in().await;
    stage.idp.change(|behaviour| behaviour.client_secret = "another-secret-of-the-tests".into());
    std::fs::write(&file, "another-secret-of-the-tests").unwrap();
    stage.proxy.event("reloaded").await;
    stage.logged_in().await;
    assert_eq!(stage.idp.wrongs(), Vec::<String>::new());
}
