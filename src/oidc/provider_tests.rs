//! What is kept of a provider, how old it may get, and what is known while it can't be asked.

use super::super::keys;
use super::super::testing_idp::{Idp, stale};
use super::*;
use crate::web::testing::Reply;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn pauses_double_up_to_a_bound_and_differ_a_little() {
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1000, 30)] {
        let whole = Duration::from_secs(seconds);
        for pause in (0..50).map(|_| backoff(failures)) {
            assert!((whole.mul_f64(0.75)..=whole).contains(&pause), "{failures}: {pause:?}");
        }
    }
    let pauses: std::collections::BTreeSet<_> = (0..50).map(|_| jittered(REFRESH_EVERY)).collect();
    assert!(pauses.len() > 10, "replicas must not ask in step");
}

/// How often the provider was asked for its metadata, and for its keys.
fn asked(idp: &Idp) -> (usize, usize) {
    (idp.server.count(DISCOVERY), idp.server.count("/jwks"))
}

#[tokio::test]
async fn metadata_and_keys_are_fetched_again_when_they_are_old_and_not_before() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (1, 1));
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (1, 1), "both are new");
    let almost = REFRESH_EVERY / 2 - 20 * SECOND;
    provider.finder.age_by(almost);
    provider.keys.age_by(almost);
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (1, 1), "not yet");
    provider.finder.age_by(20 * SECOND);
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (2, 1), "each by its own age");
    provider.keys.age_by(20 * SECOND);
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (2, 2));
    provider.freshen().await.unwrap();
    assert_eq!(asked(&idp), (2, 2), "and then they are new");
}

#[tokio::test]
async fn old_metadata_is_kept_while_there_is_no_better() {
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|_| ());
    let found = || {
        let events = std::mem::take(&mut *heard.lock().unwrap());
        let named = events.iter().filter_map(|event| match event {
            Event::Discovered => Some("found"),
            Event::DiscoveryFailed { keeps_old: true, .. } => Some("kept"),
            _ => None,
        });
        named.collect::<Vec<_>>()
    };
    provider.freshen().await.unwrap();
    assert_eq!((found(), provider.last_problem()), (vec!["found"], None));
    provider.finder.age_by(REFRESH_EVERY);
    provider.freshen().await.unwrap();
    assert_eq!(found(), [""; 0], "nothing new");
    idp.script(|script| drop(script.replies.insert(DISCOVERY, Reply::status(500))));
    for told in [vec!["kept"], vec![]] {
        provider.finder.age_by(REFRESH_EVERY);
        assert!(provider.freshen().await.is_err());
        assert_eq!((found(), provider.status()), (told, Status::Ready));
        assert!(provider.last_problem().is_some_and(|problem| problem.contains("500")));
    }
    idp.script(|script| script.replies.clear());
    provider.finder.age_by(SECOND);
    provider.freshen().await.unwrap();
    assert_eq!((found(), provider.last_problem()), (vec!["found"], None));
}

/// A key that was taken back is good for a day at most, whether or not the provider can be asked.
#[tokio::test]
async fn keys_are_believed_for_a_day() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    provider.freshen().await.unwrap();
    let url = provider.finder.metadata().unwrap().jwks_uri.clone();
    let get = || provider.keys.get(&provider.outbound, &url);
    provider.keys.age_by(keys::MAX_AGE - 20 * SECOND);
    get().await.unwrap();
    assert_eq!(asked(&idp), (1, 1));
    idp.script(|script| drop(script.replies.insert("/jwks", Reply::status(500))));
    provider.keys.age_by(20 * SECOND);
    assert!(get().await.is_err(), "and no old ones");
    idp.script(|script| script.replies.clear());
    assert!(get().await.is_err(), "it was asked a moment ago");
    assert_eq!(asked(&idp), (1, 2));
    provider.keys.age_by(SECOND);
    get().await.unwrap();
    assert_eq!(asked(&idp), (1, 3));
}

#[tokio::test]
async fn a_failure_of_the_keys_is_told_until_it_is_another() {
    let idp = Idp::start().await;
    let (provider, _, heard) = idp.provider_with(|_| ());
    for (status, told) in [(500, 1), (500, 0), (503, 1), (200, 1), (200, 0), (500, 1)] {
        idp.script(|script| match status {
            200 => script.replies.clear(),
            status => drop(script.replies.insert("/jwks", Reply::status(status))),
        });
        heard.lock().unwrap().clear();
        provider.finder.age_by(REFRESH_EVERY);
        provider.keys.age_by(REFRESH_EVERY);
        assert_eq!(provider.freshen().await.is_ok(), status == 200);
        let events = heard.lock().unwrap();
        let of_keys = events.iter().filter(|event| match event {
            Event::KeysFailed { reason } => reason.contains(&status.to_string()),
            Event::KeysChanged { .. } => status == 200,
            _ => false,
        });
        assert_eq!(of_keys.count(), told, "{status}: {events:?}");
    }
}

/// Whoever gets an answer knows that the provider answers, and need not knock.
#[tokio::test]
async fn every_answer_is_a_sign_of_life() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    let is_known = || {
        let known = provider.contact.is_fresh();
        provider.contact.forget();
        known
    };
    assert!(!is_known());
    provider.freshen().await.unwrap();
    assert!(is_known());
    idp.login(&provider).await.unwrap();
    assert!(is_known());
    provider.refresh(stale()).await.unwrap();
    assert!(is_known());
}

/// Whoever waits for a fetch takes what it brings.
#[tokio::test]
async fn a_fetch_of_keys_is_shared() {
    let idp = Idp::start().await;
    let provider = idp.provider();
    provider.freshen().await.unwrap();
    let url = provider.finder.metadata().unwrap().jwks_uri.clone();
    let refresh = || provider.keys.refresh(&provider.outbound, &url);
    let (one, other) = tokio::join!(refresh(), refresh());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(asked(&idp), (1, 2));
}

#[tokio::test]
async fn an_outage_is_known_without_asking() {
    let idp = Idp::start().await;
    idp.script(|script| drop(script.replies.insert(DISCOVERY, Reply::status(500))));
    let provider = idp.provider();
    assert!(provider.outage().is_none(), "nothing is known");
    assert!(provider.freshen().await.is_err());
    assert!(matches!(provider.outage(), Some(Error::Unreachable(_))));
    idp.script(|script| script.replies.clear());
    provider.finder.age_by(SECOND);
    provider.freshen().await.unwrap();
    assert!(provider.outage().is_none());
    assert_eq!(provider.origin(), idp.server.url(""));
}
