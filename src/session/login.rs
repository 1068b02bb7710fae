//! The cookies of logins in progress: one for each, in the browser that began it.
//!
//! Owns their names, their life and how many a browser may hold. It does not know what a login is, or what
//! is sealed in its cookie. The server remembers nothing, so anonymous requests can fill nothing.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};

use super::cookie::{self, CookieName};
use super::parts::{MAX_COOKIE_BYTES, MAX_TRIES};
use super::seal::SealError;
use crate::clock::UnixTime;

/// Names one login in progress: when it began, then 128 random bits. Sorts by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(String);

impl TransactionId {
    /// A new one.
    pub fn new(now: UnixTime) -> Result<Self, SealError> {
        let mut bytes = [0; RANDOM_BYTES];
        rand::fill(&mut bytes).map_err(|_| SealError::Random)?;
        let time = now.0 & MAX_TIME;
        Ok(Self(format!("{time:010x}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Takes a text that [`TransactionId::new`] could have made.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, random) = text.split_at_checked(TIME_DIGITS)?;
        let is_time = time.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let random = URL_SAFE_NO_PAD.decode(random).ok()?;
        (is_time && random.len() == RANDOM_BYTES).then(|| Self(text.to_owned()))
    }

    /// The id as text: fit for a cookie name and for a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it began, to the second; what sorting goes by.
    fn time(&self) -> &str {
        self.0.get(..TIME_DIGITS).unwrap_or_default()
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The login cookies of one service: `<base>.<id>`.
#[derive(Clone, Debug)]
pub struct LoginCookies {
    base: CookieName,
}

impl LoginCookies {
    /// Cookies whose names begin with `base`.
    pub fn new(base: CookieName) -> Self {
        Self { base }
    }

    /// The Set-Cookie field that keeps `sealed` (what [`super::Sealer::seal`] returned) for ten minutes.
    pub fn set(&self, id: &TransactionId, sealed: &str) -> Result<HeaderValue, SealError> {
        let field = cookie::set(&self.name(id), sealed, Some(LOGIN_LIFETIME));
        if field.len() > MAX_COOKIE_BYTES {
            return Err(SealError::TooLong { bytes: sealed.len() });
        }
        Ok(field)
    }

    /// What the browser sent for this login. Mostly one text; if another site planted more under the same
    /// name, the caller takes the one that opens.
    pub fn find<'a>(&self, headers: &'a HeaderMap, id: &TransactionId) -> Vec<&'a str> {
        let name = self.name(id);
        cookie::pairs(headers)
            .filter(|pair| pair.name == name.as_bytes())
            .filter_map(|pair| str::from_utf8(pair.value).ok())
            .take(MAX_TRIES)
            .collect()
    }

    /// What the browser sent for any login, at most [`MAX_SEEN`].
    pub fn all<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let of_logins = cookie::pairs(headers).filter(|pair| self.id_of(pair.name).is_some());
        of_logins.filter_map(|pair| str::from_utf8(pair.value).ok()).take(MAX_SEEN)
    }

    /// The Set-Cookie field that ends a login.
    pub fn clear(&self, id: &TransactionId) -> HeaderValue {
        cookie::delete(&self.name(id))
    }

    /// The logins to [`LoginCookies::clear`] when one more begins, the oldest first, so that the browser then
    /// holds at most [`MAX_LOGINS`].
    pub fn evict(&self, headers: &HeaderMap) -> Vec<TransactionId> {
        let mut present: Vec<TransactionId> = Vec::new();
        for id in cookie::pairs(headers).filter_map(|pair| self.id_of(pair.name)) {
            if present.len() < MAX_SEEN && !present.contains(&id) {
                present.push(id);
            }
        }
        // Within a second, browsers send the older cookie first (RFC 6265 section 5.4), and the sort is stable.
        present.sort_by(|a, b| a.time().cmp(b.time()));
        present.truncate((present.len() + 1).saturating_sub(MAX_LOGINS));
        present
    }

    fn name(&self, id: &TransactionId) -> String {
        format!("{}.{}", self.base, id.as_str())
    }

    fn id_of(&self, name: &[u8]) -> Option<TransactionId> {
        let id = name.strip_prefix(self.base.as_str().as_bytes())?.strip_prefix(b".")?;
        TransactionId::parse(str::from_utf8(id).ok()?)
    }
}

/// How long a login may take.
pub const LOGIN_LIFETIME: Duration = Duration::from_secs(600);
/// The most logins in progress in one browser.
pub const MAX_LOGINS: usize = 4;
/// The most login cookies that are looked at, and so deleted, at once.
const MAX_SEEN: usize = 32;
const TIME_DIGITS: usize = 10;
/// The largest time of [`TIME_DIGITS`] digits: the year 36812.
const MAX_TIME: u64 = 0xff_ffff_ffff;
const RANDOM_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn cookies() -> LoginCookies {
        LoginCookies::new(CookieName::parse(CookieName::LOGIN).unwrap())
    }

    fn id(at: u64) -> TransactionId {
        TransactionId::new(UnixTime(NOW.0 + at)).unwrap()
    }

    fn request(pairs: &[String]) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&pairs.join("; ")).unwrap())])
    }

    fn pair(id: &TransactionId, value: &str) -> String {
        format!("{}.{}={value}", CookieName::LOGIN, id.as_str())
    }

    #[test]
    fn ids_are_new_sort_by_time_and_parse() {
        let ids: Vec<_> = [0, 1, 15, 16, 255, 1 << 30].map(id).into();
        assert!(ids.is_sorted());
        assert_ne!(id(0), id(0));
        for id in &ids {
            assert_eq!(TransactionId::parse(id.as_str()).as_ref(), Some(id));
            assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }
        assert!(TransactionId::parse(TransactionId::new(UnixTime(u64::MAX)).unwrap().as_str()).is_some());
        let good = ids[0].as_str();
        for bad in [
            "",
            "1",
            "é",
            &good[1..],
            &format!("{good}A"),
            &good.replacen('0', "G", 1),
            &good.replace('0', "%"),
        ] {
            assert_eq!(TransactionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ses_01_login_cookies_live_ten_minutes_and_are_deleted_alike() {
        let id = id(0);
        let name = format!("__Host-portcullis-login.{}", id.as_str());
        let set = cookies().set(&id, "sealed").unwrap();
        assert_eq!(set, format!("{name}=sealed; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=600"));
        assert!(set.is_sensitive());
        let clear = cookies().clear(&id);
        assert_eq!(clear, format!("{name}=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0"));
        let room = MAX_COOKIE_BYTES - cookies().set(&id, "").unwrap().len();
        assert!(cookies().set(&id, &"x".repeat(room)).is_ok());
        assert!(cookies().set(&id, &"x".repeat(room + 1)).is_err());
        assert_eq!(format!("{id:?}"), id.as_str());
    }

    #[test]
    fn ses_09_planted_copies_are_all_returned_within_a_bound() {
        let (mine, other) = (id(0), id(1));
        let mut pairs = vec![pair(&other, "other"), pair(&mine, "planted"), pair(&mine, "mine")];
        assert_eq!(cookies().find(&request(&pairs), &mine), ["planted", "mine"]);
        assert_eq!(cookies().find(&request(&pairs), &other), ["other"]);
        assert!(cookies().find(&request(&pairs), &id(0)).is_empty());
        pairs.extend(vec![pair(&mine, "x"); 1000]);
        assert_eq!(cookies().find(&request(&pairs), &mine).len(), MAX_TRIES);
    }

    #[test]
    fn web_06_the_oldest_logins_go() {
        let ids: Vec<_> = (0..20).map(id).collect();
        for present in 0..20 {
            let mut pairs: Vec<_> = ids.iter().take(present).map(|id| pair(id, "x")).collect();
            pairs.reverse();
            pairs.push("__Host-portcullis-login.1=x".into());
            pairs.push(format!("__Host-portcullis-login-other.{}=x", id(0).as_str()));
            pairs.push(format!("__Host-portcullis.{}=x", id(0).as_str()));
            let evicted = cookies().evict(&request(&pairs));
            let expected = (present + 1).saturating_sub(MAX_LOGINS);
            assert_eq!(evicted, ids[..expected], "{present}");
        }
    }

    #[test]
    fn logins_of_one_second_go_in_the_order_sent_and_copies_count_once() {
        let ids: Vec<_> = (0..5).map(|_| id(0)).collect();
        let pairs: Vec<_> = ids.iter().flat_map(|id| [pair(id, "x"), pair(id, "y")]).collect();
        assert_eq!(cookies().evict(&request(&pairs)), ids[..2]);
        let many: Vec<_> = (0..1000).map(|at| pair(&id(at), "x")).collect();
        assert_eq!(cookies().evict(&request(&many)).len(), MAX_SEEN + 1 - MAX_LOGINS);
    }
}
