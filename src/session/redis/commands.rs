//! The words that are spoken to Redis. Knows no connection and no meaning: names and bytes go in, commands
//! come out. What these use is what the ACL of `docs/sessions-redis.md` permits.

use std::time::Duration;

use redis::{Cmd, Pipeline, cmd};

use super::record::{KEY_PREFIX, MAX_RECORD_BYTES, Names};
use crate::clock::UnixTime;

/// Writes a new record with an idle end.
pub(super) fn create(names: &Names, record: &[u8], idle: Duration) -> Cmd {
    let mut set = cmd("SET");
    set.arg(&names.record).arg(record).arg("PX").arg(millis(idle));
    set
}

/// Reads a record and how long it has left. No more is read than a record may have, whoever wrote it.
pub(super) fn load(names: &Names) -> Pipeline {
    let mut both = redis::pipe();
    both.cmd("GETRANGE").arg(&names.record).arg(0).arg(MAX_RECORD_BYTES - 1);
    both.cmd("PTTL").arg(&names.record);
    both
}

/// Moves the idle end. 0: there is no record.
pub(super) fn touch(names: &Names, idle: Duration) -> Cmd {
    let mut expire = cmd("PEXPIRE");
    expire.arg(&names.record).arg(millis(idle));
    expire
}

/// Removes a record.
pub(super) fn remove(names: &Names) -> Cmd {
    let mut delete = cmd("DEL");
    delete.arg(&names.record);
    delete
}

/// Writes a record anew, keeping its idle end: 1; 0: there is none; -1: the lease is another's.
pub(super) fn replace(names: &Names, record: &[u8], token: &str) -> Cmd {
    let mut eval = script(REPLACE, &[&names.record, &names.lease]);
    eval.arg(token).arg(record);
    eval
}

/// Takes a lease that nobody has; nothing otherwise.
pub(super) fn take_lease(names: &Names, token: &str, length: Duration) -> Cmd {
    let mut set = cmd("SET");
    set.arg(&names.lease).arg(token).arg("NX").arg("PX").arg(millis(length));
    set
}

/// Prolongs a lease that is still ours: 1; 0 otherwise.
pub(super) fn renew_lease(names: &Names, token: &str, length: Duration) -> Cmd {
    let mut eval = script(RENEW, &[&names.lease]);
    eval.arg(token).arg(millis(length));
    eval
}

/// Gives back a lease that is still ours.
pub(super) fn release_lease(names: &Names, token: &str) -> Cmd {
    let mut eval = script(RELEASE, &[&names.lease]);
    eval.arg(token);
    eval
}

/// Adds an entry to the revocations.
pub(super) fn append(scope: &[u8], entry: &[u8], expires_at: UnixTime) -> Cmd {
    let mut eval = script(APPEND, &[&revocations()]);
    eval.arg(scope).arg(entry).arg(expires_at.0).arg(MAX_REVOCATIONS).arg(FOLDED_AT_ONCE);
    eval
}

/// A small write, and a page of the revocations from `start` (an id, itself included) on.
pub(super) fn poll(start: &str) -> Pipeline {
    let mut both = redis::pipe();
    both.cmd("SET").arg(format!("{KEY_PREFIX}{{revocations}}:written")).arg(1).arg("PX").arg(WRITTEN_MILLIS);
    both.cmd("XRANGE").arg(revocations()).arg(start).arg("+").arg("COUNT").arg(PAGE);
    both
}

fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(text).arg(keys.len()).arg(keys);
    eval
}

fn revocations() -> String {
    format!("{KEY_PREFIX}{{revocations}}")
}

/// Whole milliseconds, at least one: Redis refuses a lifetime of zero.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_MILLIS)
}

const REPLACE: &str = "\
if redis.call('GETRANGE', KEYS[2], 0, -1) ~= ARGV[1] then return -1 end
if redis.call('SET', KEYS[1], ARGV[2], 'XX', 'KEEPTTL') then return 1 end
return 0";

const RENEW: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, -1) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

const RELEASE: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, -1) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Entries leave at the head when they have expired by the server's clock, a few with each that comes, so that
/// no process with a wrong clock or a shorter `maxLifetime` removes another's. If there are too many, the
/// oldest are folded into one entry that ends every session from before the newest of them. The stream itself
/// goes when its last entry has expired, and is kept for a hundred years at most: more EXPIRE does not take.
const APPEND: &str = "\
local stream, now = KEYS[1], tonumber(redis.call('TIME')[1])
redis.call('XADD', stream, '*', 's', ARGV[1], 'e', ARGV[2], 'x', ARGV[3])
for _, head in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', 16)) do
  local x = head[2][5] == 'x' and tonumber(head[2][6])
  if x and x > now then break end
  redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - 1)
end
local last, length = tonumber(ARGV[3]), redis.call('XLEN', stream)
if length > tonumber(ARGV[4]) then
  redis.call('XTRIM', stream, 'MAXLEN', length - tonumber(ARGV[5]))
  local head = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  local till = math.floor(tonumber(string.match(head, '^%d+')) / 1000) + 1
  redis.call('XADD', stream, '*', 's', '', 'e', string.format('%d', till), 'x', ARGV[3])
end
if redis.call('TTL', stream) < last - now then
  redis.call('EXPIRE', stream, string.format('%d', math.min(last - now + 60, 3153600000)))
end
return 1";

/// Entries of one page of the revocations.
pub(super) const PAGE: usize = 512;
/// Most entries of the revocations, all services of all processes together; about 40 MiB.
pub(super) const MAX_REVOCATIONS: usize = 200_000;
/// How many of them are folded when there are more.
const FOLDED_AT_ONCE: usize = MAX_REVOCATIONS / 10;
/// How long the key of the small write lives.
const WRITTEN_MILLIS: u64 = 60_000;
/// A hundred years: what Redis adds to its clock without an overflow.
const MAX_MILLIS: u64 = 100 * 365 * 86_400_000;
