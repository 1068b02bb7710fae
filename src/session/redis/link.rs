//! A connection to Redis that was made, and what its errors mean. Every command has a deadline.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError};
use tokio::task::AbortHandle;

use super::COMMAND_DEADLINE;
use super::error::Unavailable;

/// One connection, or those to the nodes of a cluster. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection, Arc<Driver>),
    Cluster(ClusterConnection),
}

/// The task that writes commands and reads answers. Ends with the last clone of its link, also if the server
/// never answers.
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// A link to one server, driven on this runtime.
    pub(super) fn one(
        connection: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Self::One(connection, Arc::new(driver))
    }

    /// Sends one command and waits for its answer.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let answer = async {
            match self.clone() {
                Self::One(mut link, _driver) => command.query_async(&mut link).await,
                Self::Cluster(mut link) => command.query_async(&mut link).await,
            }
        };
        in_time(COMMAND_DEADLINE, answer).await
    }

    /// Sends several commands whose keys are in one slot, and waits for all answers.
    pub(super) async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Unavailable> {
        let answer = async {
            match self.clone() {
                Self::One(mut link, _driver) => commands.query_async(&mut link).await,
                Self::Cluster(mut link) => commands.query_async(&mut link).await,
            }
        };
        in_time(COMMAND_DEADLINE, answer).await
    }
}

/// What `answer` gives before the deadline.
pub(super) async fn in_time<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Unavailable> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer.map_err(|error| meaning(&error)),
        Err(_) => Err(Unavailable::Slow(deadline)),
    }
}

/// What an error means for the operator. Takes the code of the server's answer and never its text, which may
/// quote what was sent.
pub(super) fn meaning(error: &RedisError) -> Unavailable {
    // Of several commands, what the first that failed says.
    match error.clone().into_server_errors().and_then(|errors| errors.first().cloned()) {
        Some((_, first)) => meaning_of_one(&RedisError::from(first)),
        None => meaning_of_one(error),
    }
}

fn meaning_of_one(error: &RedisError) -> Unavailable {
    match error.code() {
        // What Redis 7.0 says of a right that a script lacks.
        Some("ERR") if error.detail().is_some_and(|text| text.contains(SCRIPT_LACKS_RIGHT)) => {
            return Unavailable::Forbidden;
        }
        Some("WRONGPASS" | "NOAUTH") => return Unavailable::Credentials,
        Some("NOPERM") => return Unavailable::Forbidden,
        Some("READONLY") => return Unavailable::ReadOnly,
        Some(code @ ("MISCONF" | "OOM" | "NOREPLICAS")) => return Unavailable::Refusing(code.to_owned()),
        Some("LOADING") => return Unavailable::Loading,
        Some("CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN") => return Unavailable::ClusterDown,
        _ => {}
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => Unavailable::Credentials,
        ErrorKind::ClusterConnectionNotFound => Unavailable::ClusterDown,
        _ if error.is_timeout() => Unavailable::no_answer(),
        ErrorKind::Io => Unavailable::Broken,
        kind => Unavailable::Unexpected(error.code().map_or_else(|| format!("{kind:?}"), str::to_owned)),
    }
}

const SCRIPT_LACKS_RIGHT: &str = "The user executing the script can't run this command";

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// What an answer of the server says, when it is an error.
    fn answered(text: &str) -> Unavailable {
        let answer = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        meaning(&answer.extract_error().unwrap_err())
    }

    #[test]
    fn an_error_of_the_server_is_told_by_its_code() {
        let unexpected = |code: &str| Unavailable::Unexpected(code.to_owned());
        let refusing = |code: &str| Unavailable::Refusing(code.to_owned());
        let lacking = format!("ERR {SCRIPT_LACKS_RIGHT} script");
        for (text, wanted) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", Unavailable::Credentials),
            ("NOAUTH Authentication required.", Unavailable::Credentials),
            ("NOPERM this user has no permissions", Unavailable::Forbidden),
            (&lacking, Unavailable::Forbidden),
            ("ERR unknown command", unexpected("ERR")),
            ("READONLY You can't write against a read only replica.", Unavailable::ReadOnly),
            ("MISCONF Errors writing to the AOF file", refusing("MISCONF")),
            ("OOM command not allowed", refusing("OOM")),
            ("NOREPLICAS Not enough good replicas to write.", refusing("NOREPLICAS")),
            ("LOADING Redis is loading the dataset in memory", Unavailable::Loading),
            ("CLUSTERDOWN The cluster is down", Unavailable::ClusterDown),
            ("MASTERDOWN Link with MASTER is down", Unavailable::ClusterDown),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable::ClusterDown),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", unexpected("WRONGTYPE")),
        ] {
            assert_eq!(answered(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_error_on_the_way_is_told_by_its_kind() {
        let on_the_way = |kind: io::ErrorKind| meaning(&RedisError::from(io::Error::from(kind)));
        for kind in [
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::PermissionDenied,
        ] {
            assert_eq!(on_the_way(kind), Unavailable::Broken, "{kind}");
        }
        assert_eq!(on_the_way(io::ErrorKind::TimedOut), Unavailable::no_answer());
        for (kind, wanted) in [
            (ErrorKind::AuthenticationFailed, Unavailable::Credentials),
            (ErrorKind::ClusterConnectionNotFound, Unavailable::ClusterDown),
            (ErrorKind::Parse, Unavailable::Unexpected("Parse".to_owned())),
        ] {
            assert_eq!(meaning(&RedisError::from((kind, "x"))), wanted, "{kind:?}");
        }
    }
}
