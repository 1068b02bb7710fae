//! The right to refresh one session, held by one process at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error::Unavailable;
use super::record::Names;
use super::{Store, commands};

/// A lease on one session. It is renewed until it is dropped, and given back then; if the process dies, it ends
/// by itself after [`LEASE_LENGTH`].
#[derive(Debug)]
pub struct Lease {
    store: Arc<Store>,
    names: Names,
    token: String,
    lost: Arc<AtomicBool>,
    renewal: AbortHandle,
}

impl Lease {
    /// Takes the lease; `None`: another holds it.
    pub(super) async fn take(store: &Arc<Store>, names: Names) -> Result<Option<Self>, Unavailable> {
        let token = token()?;
        let (this, at, ours) = (Arc::clone(store), names.clone(), token.clone());
        let taken = store.on_control(async move {
            let take = commands::take_lease(&at, &ours, LEASE_LENGTH);
            let taken: Option<String> = this.link()?.run(&take).await?;
            if taken.is_none() {
                return Ok(None);
            }
            let lost = Arc::new(AtomicBool::new(false));
            let renewal = tokio::spawn(renew(Arc::clone(&this), at.clone(), ours.clone(), Arc::clone(&lost)));
            let renewal = renewal.abort_handle();
            // Made here, so that it is given back also if nobody waits for it any more.
            Ok(Some(Self { store: this, names: at, token: ours, lost, renewal }))
        });
        taken.await
    }

    /// Whether it is still ours, as far as is known. Only [`Store::replace`] knows for sure.
    pub fn is_held(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
    }

    /// What is left of a holder whose process was killed.
    #[cfg(test)]
    pub(super) fn die(self) {
        self.renewal.abort();
        std::mem::forget(self);
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        let (store, names, token) = (Arc::clone(&self.store), self.names.clone(), self.token.clone());
        let release = async move {
            // Without a connection, or if this fails, it ends by itself.
            if let Ok(link) = store.link() {
                let _: Result<i64, _> = link.run(&commands::release_lease(&names, &token)).await;
            }
        };
        self.store.control.spawn(release);
    }
}

/// Renews until the lease is lost, or held for longer than any refresh takes.
async fn renew(store: Arc<Store>, names: Names, token: String, lost: Arc<AtomicBool>) {
    let begun = Instant::now();
    let mut renewed = begun;
    while begun.elapsed() < LONGEST_HOLD {
        tokio::time::sleep(RENEWAL).await;
        let asked = Instant::now();
        let answer: Result<i64, Unavailable> = match store.link() {
            Ok(link) => link.run(&commands::renew_lease(&names, &token, LEASE_LENGTH)).await,
            Err(unavailable) => Err(unavailable),
        };
        match answer {
            Ok(1) => renewed = asked,
            Ok(_) => break,
            Err(_) if renewed.elapsed() < LEASE_LENGTH => {}
            Err(_) => break,
        }
    }
    lost.store(true, Ordering::Release);
}

/// What tells this holder from all others.
fn token() -> Result<String, Unavailable> {
    let mut random = [0; 16];
    // Without randomness there is no lease, as there is no cipher: the machine is broken.
    rand::fill(&mut random).map_err(|_| Unavailable::Unexpected("no random numbers".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// How long a lease lives without its holder.
pub const LEASE_LENGTH: Duration = Duration::from_secs(5);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(1_500);
/// A holder that has not ended by then is stuck: a refresh takes 15 s at most.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
