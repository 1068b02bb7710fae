//! The ways to Redis: sockets, TLS, files, Sentinels, clusters.

use super::server::{Server, free_port};
use super::*;

#[tokio::test]
async fn a_socket_and_a_database_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock");
    let url = format!("redis+unix://{}", socket.display());
    let options = ["--port", "0", "--unixsocket", socket.to_str().unwrap()].map(str::to_owned);
    let admin = config(&url, Topology::Single);
    let server = Server::reached_by(&options, directory, 0, admin).await;
    let process = Process::connected(config(&format!("{url}?db=3"), Topology::Single)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    assert!(process.store.load(&scope, &ticket).await.unwrap().is_some());
    assert_eq!(server.call::<i64>(&["DBSIZE"]).await, 0, "it is in another database");
}

#[tokio::test]
async fn tls_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let authority = certificates(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let options = [
        ("--port", "0".to_owned()),
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("leaf.crt")),
        ("--tls-key-file", path("leaf.key")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    let options: Vec<String> = options.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
    let trusting = |host: &str| Config {
        authorities: Some(Source::Inline(Secret::new(authority.clone()))),
        ..config(&format!("rediss://{host}:{port}"), Topology::Single)
    };
    let _server = Server::reached_by(&options, directory, port, trusting("localhost")).await;
    let process = Process::connected(trusting("localhost")).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();

    let is_tls = |outage: &Unavailable| matches!(outage, Unavailable::Tls(_));
    let outage = Process::started(trusting("127.0.0.1")).fails_with(is_tls).await;
    assert!(outage.to_string().contains("another name"), "{outage}");
    let stranger = config(&format!("rediss://localhost:{port}"), Topology::Single);
    let outage = Process::started(stranger).fails_with(is_tls).await;
    assert!(outage.to_string().contains("authority"), "{outage}");
    let plain = config(&format!("redis://localhost:{port}"), Topology::Single);
    Process::started(plain).fails_with(|outage| *outage != Unavailable::NotYet).await;
}

/// A CA and a leaf for `localhost` in `directory`; the CA's certificate.
fn certificates(directory: &std::path::Path) -> String {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("leaf.crt"), leaf.pem()).unwrap();
    std::fs::write(directory.join("leaf.key"), key.serialize_pem()).unwrap();
    ca.pem()
}

#[tokio::test]
async fn tls_with_an_authority_of_its_own_in_a_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let authority = certificates(directory.path());
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(directory.path().join("ca.crt"), &authority).unwrap();
    let port = free_port();
    let options = [
        ("--port", "0".to_owned()),
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("leaf.crt")),
        ("--tls-key-file", path("leaf.key")),
        ("--tls-ca-cert-file", path("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
        ("--tls-cluster", "yes".to_owned()),
        ("--cluster-enabled", "yes".to_owned()),
        ("--cluster-announce-hostname", "localhost".to_owned()),
        ("--cluster-preferred-endpoint-type", "hostname".to_owned()),
    ];
    let options: Vec<String> = options.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect();
    let url = format!("rediss://localhost:{port}");
    let trusting = |topology| Config {
        authorities: Some(Source::Inline(Secret::new(authority.clone()))),
        ..config(&url, topology)
    };
    let server = Server::reached_by(&options, directory, port, trusting(Topology::Single)).await;
    let _: String = server.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let process = Process::connected(trusting(Topology::Cluster)).await;
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    assert!(process.store.load(&scope, &ticket).await.unwrap().is_some());

    // None of the system's authorities has signed it.
    let stranger = Process::started(config(&url, Topology::Cluster));
    stranger.fails_with(|outage| *outage != Unavailable::NotYet).await;
}

#[tokio::test]
async fn the_file_of_the_url_is_read_again() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, format!("{}\n", server.url())).unwrap();
    let config = Config { url: Source::File(file.clone()), ..single(&server) };
    let process = Process::connected(config).await;
    let other = Server::start().await;
    std::fs::write(&file, other.url()).unwrap();
    server.kill();
    let until = async {
        loop {
            let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
            match process.store.create(&scope, &ticket, b"p", IDLE).await {
                Ok(()) => break,
                Err(_) => a_moment().await,
            }
        }
    };
    soon("the other server", until).await;
    assert!(other.call::<i64>(&["DBSIZE"]).await > 0);
}

#[tokio::test]
async fn a_failover_by_sentinels_takes_seconds() {
    let mut master = Server::start().await;
    let replica = Server::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(Server::sentinel(master.port, "").await);
    }
    let urls: Vec<_> = sentinels.iter().map(Server::url).collect();
    let named = |master: &str| Topology::Sentinel { master: master.to_owned() };
    let process = Process::connected(config(&urls.join(","), named("main"))).await;
    let stranger = Process::started(config(&urls[0], named("other")));
    let outage = stranger.fails_with(|outage| matches!(outage, Unavailable::NoMaster(_))).await;
    assert!(outage.to_string().contains("`other`"));
    for sentinel in &sentinels {
        let until = async {
            loop {
                let master: Vec<String> = sentinel.call(&["SENTINEL", "MASTER", "main"]).await;
                let value =
                    |name: &str| master.iter().position(|it| it == name).map(|at| master[at + 1].clone());
                if value("num-slaves").as_deref() == Some("1")
                    && value("num-other-sentinels").as_deref() == Some("2")
                {
                    break;
                }
                a_moment().await;
            }
        };
        soon("the Sentinels to know all", until).await;
    }
    let (scope, ticket) = (scope("app"), Ticket::new().unwrap());
    process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
    let ended = ending("before the failover", IDLE);
    process.end(&ended).await.unwrap();
    let until = async {
        while replica.call::<i64>(&["DBSIZE"]).await < 3 {
            a_moment().await;
        }
    };
    soon("replication", until).await;

    master.kill();
    process.fails_with(|_| true).await;
    process.works().await;
    assert!(process.store.load(&scope, &ticket).await.unwrap().is_some(), "the replica has the session");
    let role: (String, i64, redis::Value) = replica.call(&["ROLE"]).await;
    assert_eq!(role.0, "master");
    let later = Process::connected(config(&urls.join(","), named("main"))).await;
    assert!(later.memory.known().contains(&ended));
}

/// One Sentinel still names a master of before: the others outvote it, whoever answers first.
#[tokio::test]
async fn most_sentinels_are_believed() {
    let (master, former) = (Server::start().await, Server::start().await);
    let mut sentinels = Vec::new();
    for port in [former.port, master.port, master.port] {
        sentinels.push(Server::sentinel(port, "").await);
    }
    let urls: Vec<_> = sentinels.iter().map(Server::url).collect();
    let config = config(&urls.join(","), Topology::Sentinel { master: "main".to_owned() });
    // Chance would be right half of the time.
    for _ in 0..20 {
        let link = connect::connect(&config).await.unwrap();
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("port");
        let (_, port): (String, u16) = link.run(&ask).await.unwrap();
        assert_eq!(port, master.port);
    }
}

#[tokio::test]
async fn a_cluster_of_six_and_the_loss_of_a_master() {
    let mut nodes = Vec::new();
    for _ in 0..6 {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        nodes.push(Server::with(&options).await);
    }
    form(&nodes).await;
    for node in &nodes {
        let _: String = node.call(&documented_user()).await;
    }
    let url = |node: &Server| format!("redis://{}:PASSWORD@127.0.0.1:{}", documented_user()[2], node.port);
    let urls: Vec<_> = nodes.iter().take(2).map(url).collect();
    let process = Process::connected(config(&urls.join(","), Topology::Cluster)).await;
    let scope = scope("app");
    let mut tickets = Vec::new();
    for _ in 0..50 {
        let ticket = Ticket::new().unwrap();
        process.store.create(&scope, &ticket, b"p", IDLE).await.unwrap();
        let lease = process.store.lease(&scope, &ticket).await.unwrap().unwrap();
        let replaced = process.store.replace(&scope, &ticket, b"q", &lease).await.unwrap();
        assert_eq!(replaced, Replaced::Yes);
        tickets.push(ticket);
    }
    let mut used = 0;
    for node in &nodes[..3] {
        used += usize::from(node.call::<i64>(&["DBSIZE"]).await > 0);
    }
    assert_eq!(used, 3, "the sessions are spread");
    process.end(&ending("e", IDLE)).await.unwrap();

    let until = async {
        loop {
            let (master, replica) =
                (nodes[0].call::<i64>(&["DBSIZE"]).await, nodes[3].call::<i64>(&["DBSIZE"]).await);
            if master == replica {
                break;
            }
            a_moment().await;
        }
    };
    soon("replication", until).await;
    nodes[0].kill();
    let until = async {
        'again: loop {
            for ticket in &tickets {
                match process.store.load(&scope, ticket).await {
                    Ok(loaded) => assert_eq!(*loaded.unwrap().payload, b"q"),
                    Err(_) => {
                        a_moment().await;
                        continue 'again;
                    }
                }
            }
            break;
        }
    };
    soon("the replica of the lost master", until).await;
    process.works().await;
    let later = Process::connected(config(&url(&nodes[1]), Topology::Cluster)).await;
    later.knows(&process.memory.known()[0]).await;
}

/// Three masters and their replicas.
async fn form(nodes: &[Server]) {
    let slots = [(0, 5460), (5461, 10922), (10923, 16383)];
    for (node, (first, last)) in nodes.iter().zip(slots) {
        let _: String = node.call(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
    }
    for node in &nodes[1..] {
        let _: String = node.call(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]).await;
    }
    let mut ids = Vec::new();
    for node in nodes {
        ids.push(node.call::<String>(&["CLUSTER", "MYID"]).await);
    }
    let has = |text: String, line: &str| text.lines().any(|it| it.trim() == line);
    for node in nodes {
        let until = async {
            while !has(node.call(&["CLUSTER", "INFO"]).await, "cluster_known_nodes:6") {
                a_moment().await;
            }
        };
        soon("the nodes to meet", until).await;
    }
    for (node, master) in nodes[3..].iter().zip(&ids) {
        let _: String = node.call(&["CLUSTER", "REPLICATE", master]).await;
    }
    for node in nodes {
        let until = async {
            while !has(node.call(&["CLUSTER", "INFO"]).await, "cluster_state:ok") {
                a_moment().await;
            }
        };
        soon("the cluster", until).await;
    }
    for node in &nodes[3..] {
        let until = async {
            while !has(node.call(&["INFO", "replication"]).await, "master_link_status:up") {
                a_moment().await;
            }
        };
        soon("replication", until).await;
    }
}
