//! A ledger's file that can't be used now: who is told, who waits, and for how long.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// Far less than any pause or wait of the ledger that these tests rule out.
const SOON: Duration = Duration::from_secs(5);

/// A ledger that is not started yet, and what it tells.
fn ledger(directory: &Path, patience: Patience) -> (DiskLedger, Receiver<DiskEvent>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let events: DiskEvents = Arc::new(move |event| drop(tell.lock().unwrap().send(event)));
    (DiskLedger::with_patience(directory, Clock::manual(START).0, events, patience), told)
}

fn an_end() -> Revocation {
    Revocation::new(Entry::Everything, Why::Admin, Millis(1), START.plus(LIFETIME))
}

/// Whether the ledger has it, said soon.
async fn appended(ledger: &DiskLedger) -> bool {
    let written = tokio::time::timeout(SOON, ledger.append("app", &an_end())).await;
    written.expect("an answer").is_ok()
}

#[tokio::test]
async fn nobody_waits_for_a_file_that_can_t_be_used() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    std::fs::write(&state, "in the way").unwrap();
    // What is wrong is no lock, so it is told at once; and it is not tried again while this test runs.
    let (ledger, told) = ledger(&state, Patience { lock: HOUR, retry: HOUR });
    let early = ledger.append("app", &an_end());
    ledger.start().unwrap();
    assert!(matches!(told.recv_timeout(SOON), Ok(DiskEvent::Unusable { .. })));
    assert!(tokio::time::timeout(SOON, early).await.expect("an answer").is_err());
    assert!(!appended(&ledger).await);
}

#[tokio::test]
async fn a_file_that_works_takes_what_comes() {
    let directory = TempDir::new().unwrap();
    let (ledger, told) = ledger(directory.path(), Patience { lock: HOUR, retry: HOUR });
    let early = ledger.append("app", &an_end());
    ledger.start().unwrap();
    assert_eq!(tokio::time::timeout(SOON, early).await.expect("an answer"), Ok(()));
    assert!(appended(&ledger).await);
    assert!(told.try_recv().is_err(), "nothing worth telling");
}

/// A lock is looked at often at first, for it is the old process that still ends.
#[test]
fn a_locked_file_is_told_when_patience_ends() {
    let directory = TempDir::new().unwrap();
    let _first = Process::start(directory.path());
    let patience = Patience { lock: Duration::from_millis(200), retry: HOUR };
    let (second, told) = ledger(directory.path(), patience);
    let begun = std::time::Instant::now();
    second.start().unwrap();
    assert!(matches!(told.recv_timeout(SOON), Ok(DiskEvent::Locked { .. })));
    assert!((patience.lock..SOON).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// In place of a broken file there is a new one without a pause.
#[tokio::test]
async fn a_broken_file_is_replaced_at_once() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join(LEDGER_FILE), "not a database").unwrap();
    let (ledger, told) = ledger(directory.path(), Patience { lock: HOUR, retry: HOUR });
    let begun = std::time::Instant::now();
    ledger.start().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(matches!(told.recv_timeout(SOON), Ok(DiskEvent::SetAside { .. })));
    assert!(appended(&ledger).await);
}
