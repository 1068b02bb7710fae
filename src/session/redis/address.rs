//! Where Redis is: the text of `session.redis.url`, taken apart. Knows nothing of how a connection is made.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::config::Topology;
use crate::secret::Secret;

/// All that the text says.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// One server; or all Sentinels, or some nodes of the cluster. At least one, at most [`MAX_NODES`].
    pub(super) nodes: Vec<Node>,
    /// Whether TLS is spoken to all of them.
    pub(super) tls: bool,
    /// The ACL user.
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret<String>>,
    pub(super) database: i64,
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// What is wrong with the text, and what to do. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of a scheme that we know.
    #[error(
        "is not the URL of a Redis server; write redis://host:6379, rediss://host:6379 (TLS) or \
         redis+unix:///path (a % in a password is %25, a comma %2C)"
    )]
    NotRedis,
    /// Two or more URLs for one server.
    #[error("names several servers; name one, or set sentinelMaster or cluster")]
    Several,
    /// Too many URLs.
    #[error("names more than {MAX_NODES} servers; a few of them are enough to find the others")]
    TooMany,
    /// URLs that differ in more than the address.
    #[error(
        "names servers with different schemes, users, passwords or databases; they must be the same for all"
    )]
    Unlike,
    /// Something after the database.
    #[error(
        "has a query or a fragment; leave it out (a redis+unix: URL may have ?db=N&user=NAME&pass=PASSWORD)"
    )]
    Query,
    /// A path that is no number.
    #[error("has a path that is not the number of a database; leave it out, or write one like /0")]
    Database,
    /// A cluster has one database, and no sockets.
    #[error(
        "a cluster has database 0 only and is reached over TCP; leave the path out, or set cluster: false"
    )]
    Cluster,
    /// A Sentinel on a socket.
    #[error("Sentinels are reached over TCP; write redis://host:26379 or rediss://host:26379")]
    Sentinel,
}

impl Address {
    /// Reads one URL, or for Sentinels and clusters several with commas between them.
    pub fn parse(text: &str, topology: &Topology) -> Result<Self, AddressError> {
        let default_port = if matches!(topology, Topology::Sentinel { .. }) { 26_379 } else { 6_379 };
        let mut whole: Option<Self> = None;
        for (index, one) in text.split(',').enumerate() {
            if index >= MAX_NODES {
                return Err(AddressError::TooMany);
            }
            let mut one = Self::parse_one(one.trim(), default_port)?;
            match &mut whole {
                None => whole = Some(one),
                Some(whole) if whole.is_like(&one) => whole.nodes.append(&mut one.nodes),
                Some(_) => return Err(AddressError::Unlike),
            }
        }
        let whole = whole.ok_or(AddressError::NotRedis)?;
        let has_socket = whole.nodes.iter().any(|node| matches!(node, Node::Unix(_)));
        match topology {
            Topology::Single if whole.nodes.len() > 1 => Err(AddressError::Several),
            Topology::Sentinel { .. } if has_socket => Err(AddressError::Sentinel),
            Topology::Cluster if has_socket || whole.database != 0 => Err(AddressError::Cluster),
            _ => Ok(whole),
        }
    }

    /// Whether TLS is spoken.
    pub fn uses_tls(&self) -> bool {
        self.tls
    }

    fn parse_one(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|_| AddressError::NotRedis)?;
        match url.scheme() {
            "redis" | "rediss" => Self::from_tcp(&url, default_port),
            "redis+unix" | "unix" => Self::from_unix(&url),
            _ => Err(AddressError::NotRedis),
        }
    }

    fn from_tcp(url: &Url, default_port: u16) -> Result<Self, AddressError> {
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Query);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(AddressError::NotRedis)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => database(number)?,
        };
        Ok(Self {
            nodes: vec![Node::Tcp { host: decoded(host)?, port: url.port().unwrap_or(default_port) }],
            tls: url.scheme() == "rediss",
            user: Some(decoded(url.username())?).filter(|user| !user.is_empty()),
            password: url.password().map(decoded).transpose()?.map(Secret::new),
            database,
        })
    }

    fn from_unix(url: &Url) -> Result<Self, AddressError> {
        let path = decoded(url.path())?;
        if url.host_str().is_some_and(|host| !host.is_empty()) || !path.starts_with('/') {
            return Err(AddressError::NotRedis);
        }
        let nodes = vec![Node::Unix(PathBuf::from(path))];
        let mut address = Self { nodes, tls: false, user: None, password: None, database: 0 };
        for (name, value) in url.query_pairs() {
            match &*name {
                "db" => address.database = database(&value)?,
                "user" => address.user = Some(value.into_owned()),
                "pass" => address.password = Some(Secret::new(value.into_owned())),
                _ => return Err(AddressError::Query),
            }
        }
        if url.fragment().is_some() { Err(AddressError::Query) } else { Ok(address) }
    }

    fn is_like(&self, other: &Self) -> bool {
        let all_but_nodes = |it: &Self| (it.tls, it.user.clone(), it.password.clone(), it.database);
        all_but_nodes(self) == all_but_nodes(other)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("nodes", &self.nodes).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn decoded(text: &str) -> Result<String, AddressError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressError::NotRedis)?;
    Ok(text.into_owned())
}

fn database(number: &str) -> Result<i64, AddressError> {
    number.parse().ok().filter(|number| *number >= 0).ok_or(AddressError::Database)
}

/// Most servers that one text names.
pub const MAX_NODES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinel() -> Topology {
        Topology::Sentinel { master: "m".to_owned() }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let (single, cluster) = (Topology::Single, Topology::Cluster);
        let rows = [
            (&single, "redis://h", "h:6379 tls=false -:- 0"),
            (&single, "rediss://u:p%2C%40@h:7000/3", "h:7000 tls=true u:p,@ 3"),
            (&single, "redis://:p@[::1]:7/", "[::1]:7 tls=false -:p 0"),
            (&single, "redis+unix:///run/r.sock", "/run/r.sock tls=false -:- 0"),
            (&single, "unix:///r?db=2&user=u&pass=p%26", "/r tls=false u:p& 2"),
            (&sentinel(), "redis://a, redis://b:1", "a:26379 b:1 tls=false -:- 0"),
            (&cluster, "redis://a,redis://b:1", "a:6379 b:1 tls=false -:- 0"),
        ];
        for (topology, text, wanted) in rows {
            let address = Address::parse(text, topology).unwrap_or_else(|error| panic!("{text}: {error}"));
            let nodes: Vec<_> = address.nodes.iter().map(ToString::to_string).collect();
            let password = address.password.as_ref().map_or("-", |password| password.expose());
            let user = address.user.as_deref().unwrap_or("-");
            let found = format!(
                "{} tls={} {user}:{password} {}",
                nodes.join(" "),
                address.uses_tls(),
                address.database
            );
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        let many = vec!["redis://h"; MAX_NODES + 1].join(",");
        let (single, cluster) = (Topology::Single, Topology::Cluster);
        let rows = [
            (&single, "", AddressError::NotRedis),
            (&single, "h:6379", AddressError::NotRedis),
            (&single, "http://h", AddressError::NotRedis),
            (&single, "redis://", AddressError::NotRedis),
            (&single, "redis+unix://host/path", AddressError::NotRedis),
            (&single, "redis://a,redis://b", AddressError::Several),
            (&single, "redis://h/x", AddressError::Database),
            (&single, "redis://h/-1", AddressError::Database),
            (&single, "redis://h?protocol=resp3", AddressError::Query),
            (&single, "rediss://h#insecure", AddressError::Query),
            (&single, "unix:///r?x=1", AddressError::Query),
            (&cluster, "redis://a,rediss://b", AddressError::Unlike),
            (&cluster, "redis://u:p@a,redis://u:q@b", AddressError::Unlike),
            (&cluster, "redis://a/1", AddressError::Cluster),
            (&cluster, &many, AddressError::TooMany),
            (&sentinel(), "unix:///r", AddressError::Sentinel),
        ];
        for (topology, text, wanted) in rows {
            assert_eq!(Address::parse(text, topology), Err(wanted), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let address = Address::parse("redis://us3r:s3cret@h", &Topology::Single).unwrap();
        let shown = format!("{address:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("us3r"), "{shown}");
    }
}
