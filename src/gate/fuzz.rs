//! What a request says about its host, its client and its login, under arbitrary bytes. See [`crate::fuzzing`].
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "see crate::fuzzing")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Uri};
use url::Url;

use super::host::{RequestHost, normal_host};
use super::login;
use crate::session::{CookieName, LoginCookies, MAX_LOGINS, TransactionId};

/// One field of this name for each line; `None` where a line can be no field.
fn fields(name: &'static str, lines: &[&[u8]]) -> Option<HeaderMap> {
    lines.iter().map(|line| Some((name.parse().ok()?, HeaderValue::from_bytes(line).ok()?))).collect()
}

/// The first line is `:authority`, or none; each of the others is a Host.
pub fn authority(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let Some(headers) = fields("host", &lines[1..]) else { return };
    let uri = match lines[0] {
        [] => Uri::from_static("/"),
        authority => {
            let uri = Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
            let Ok(uri) = uri else { return };
            uri
        }
    };
    let Some(host) = RequestHost::of(&uri, &headers) else { return };
    let hosts: Vec<&HeaderValue> = headers.get_all(HOST).iter().collect();
    assert!(hosts.len() <= 1, "one of several Hosts was chosen");
    let sent = uri.authority().map(|authority| authority.as_str().as_bytes());
    for said in sent.into_iter().chain(hosts.iter().map(|host| host.as_bytes())) {
        assert!(said.eq_ignore_ascii_case(host.authority.as_bytes()), "another authority than was sent");
    }
    let name = host.name.as_str();
    assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)), "{name}");
    if !name.ends_with('.') {
        assert_eq!(normal_host(name).as_deref(), Some(name), "not a fixed point");
    }
    assert!(!host.authority.contains(['@', '/', '?', '#', '\\']), "{}", host.authority);

    // What others make of it. Numbers are left out: a URL parser takes `1` for 0.0.0.1.
    if let Ok(url) = Url::parse(&format!("https://{}/", host.authority))
        && let Some(url::Host::Domain(domain)) = url.host()
    {
        assert_eq!(domain.strip_suffix('.').unwrap_or(domain), name, "a URL parser reads another host");
        assert_eq!(url.port_or_known_default(), host.port.or(Some(443)));
    }
}

/// Each line is an X-Forwarded-For.
pub fn forwarded(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let Some(headers) = fields("x-forwarded-for", &lines) else { return };
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let trusted = |address: IpAddr| matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[0] == 10);
    let client = super::forwarded::client(&headers, peer, trusted);
    assert_eq!(client, client.to_canonical());

    // By another reading: from the right, as long as they are trusted.
    let all = String::from_utf8_lossy(&lines.join(&b',')).into_owned();
    let mut expected = peer;
    for entry in all.rsplit(',').map(str::trim) {
        let host = entry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let read = match (host, entry.rsplit_once(':')) {
            (Some((v6, "")), _) => v6.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
            (Some((v6, port)), _) => entry.parse::<std::net::SocketAddr>().ok().map(|found| {
                assert!(port.starts_with(':') && found.is_ipv6() && v6.contains(':'));
                found.ip()
            }),
            (None, Some((v4, port))) if !v4.contains(':') => v4
                .parse::<Ipv4Addr>()
                .ok()
                .filter(|_| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
                .map(IpAddr::V4),
            _ => entry.parse().ok(),
        };
        let Some(read) = read else { break };
        expected = read.to_canonical();
        if !trusted(read) {
            break;
        }
    }
    assert_eq!(client, expected);

    // Whoever is not trusted can't change who they are by what they send.
    if !trusted(client) {
        let mut more: Vec<&[u8]> = vec![b"192.0.2.66, 10.0.0.9"];
        more.extend(&lines);
        let more = fields("x-forwarded-for", &more).expect("fields, as before");
        assert_eq!(super::forwarded::client(&more, peer, trusted), client, "spoofed");
    }
    let mut proto = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(lines[0]) {
        proto.insert("x-forwarded-proto", value);
        assert_eq!(super::forwarded::over_tls(&proto), lines[0].eq_ignore_ascii_case(b"https"));
        proto.append("x-forwarded-proto", HeaderValue::from_static("https"));
        assert!(!super::forwarded::over_tls(&proto), "one of several was chosen");
    }
}

/// The first line is the name of a login in progress, the second is what is in its seal, the others are Cookie fields.
pub fn login_transaction(bytes: &[u8]) {
    static COOKIES: LazyLock<LoginCookies> =
        LazyLock::new(|| LoginCookies::new(CookieName::parse(CookieName::LOGIN).unwrap()));
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (id, sealed) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let cookies: Vec<&[u8]> = lines.next().unwrap_or_default().split(|byte| *byte == b'\n').collect();
    login::fuzz_sealed(sealed);
    let Some(headers) = fields("cookie", &cookies) else { return };

    let evicted = COOKIES.evict(&headers);
    let sent =
        headers.get_all(COOKIE).iter().map(|field| field.as_bytes().split(|byte| *byte == b';').count());
    assert!(evicted.len() <= 32 && evicted.len() + MAX_LOGINS <= sent.sum::<usize>() + 1 + MAX_LOGINS);
    for id in &evicted {
        check_id(id);
        let field = COOKIES.clear(id);
        assert!(
            field.to_str().is_ok_and(
                |field| field.starts_with("__Host-portcullis-login.") && field.contains("Max-Age=0")
            )
        );
    }
    let Some(id) = std::str::from_utf8(id).ok().and_then(TransactionId::parse) else { return };
    check_id(&id);
    let found = COOKIES.find(&headers, &id);
    assert!(found.len() <= 128);
    assert!(
        found.is_empty()
            || bytes.windows(id.as_str().len()).filter(|at| *at == id.as_str().as_bytes()).count() > 1
    );
}

/// Fit for a cookie's name and for a URL, and what it was parsed from.
fn check_id(id: &TransactionId) {
    assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert_eq!(TransactionId::parse(id.as_str()).as_ref(), Some(id));
}
