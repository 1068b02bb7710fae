//! What was ended stays ended: in memory, over time, and over restarts.

mod repeated;
mod trouble;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Map;
use tempfile::TempDir;

use super::disk::Patience;
use super::list::List;
use super::*;
use crate::clock::{ManualClock, UnixTime};
use crate::session::{NewSession, SessionId};

const START: UnixTime = UnixTime(1_800_000_000);
const ISSUER: &str = "https://idp.example.com";
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A service with its clock.
struct Service {
    revocations: Arc<Revocations>,
    clock: Clock,
    hand: ManualClock,
}

fn service() -> Service {
    let (clock, hand) = Clock::manual(START);
    service_with(clock, hand, None)
}

fn service_with(clock: Clock, hand: ManualClock, ledger: Option<Arc<dyn Ledger>>) -> Service {
    let revocations = Revocations::new("app".into(), LIFETIME, clock.clone(), ledger, Arc::new(|_, _| {}));
    Service { revocations: Arc::new(revocations), clock, hand }
}

impl Service {
    fn login(&self, subject: &str, sid: Option<&str>) -> Session {
        let login = NewSession {
            issuer: ISSUER,
            subject,
            sid,
            claims: &Map::new(),
            keep: &std::collections::BTreeSet::new(),
            born: self.revocations.birth(),
            token_expires_at: self.clock.now(),
            acr: None,
            auth_time: None,
            grant: None,
            id_token: None,
            replaced: Vec::new(),
        };
        Session::new(login, self.clock.now()).unwrap()
    }

    /// In memory; what a ledger makes of it is not waited for.
    fn end(&self, entry: Entry<'_>, why: Why) {
        drop(self.revocations.end(entry, why));
    }

    fn ended(&self, session: &Session) -> Option<Why> {
        self.revocations.ended(session)
    }
}

#[test]
fn each_kind_of_end_ends_just_what_it_names() {
    let service = service();
    let sessions = [
        service.login("alice", Some("1")),
        service.login("alice", Some("2")),
        service.login("bob", Some("1")),
        service.login("carol", None),
    ];
    let named = Entry::Session(sessions[1].id);
    let cases: [(Entry<'_>, [bool; 4]); 9] = [
        (named, [false, true, false, false]),
        (Entry::ProviderSession { issuer: ISSUER, sid: "1" }, [true, false, true, false]),
        (Entry::ProviderSession { issuer: "https://other", sid: "1" }, [false; 4]),
        (Entry::Subject { issuer: ISSUER, subject: "alice" }, [true, true, false, false]),
        (Entry::Subject { issuer: "https://idp.example.co", subject: "malice" }, [false; 4]),
        (Entry::Subject { issuer: ISSUER, subject: "1" }, [false; 4]),
        (Entry::Unplaced { issuer: ISSUER, subject: "alice" }, [false; 4]),
        (Entry::Unplaced { issuer: ISSUER, subject: "carol" }, [false, false, false, true]),
        (Entry::Everything, [true; 4]),
    ];
    for (entry, expected) in cases {
        let other = service_with(service.clock.clone(), service.hand.clone(), None);
        let epoch = other.revocations.epoch();
        for session in &sessions {
            assert_eq!(other.ended(session), None);
        }
        other.end(entry, Why::Admin);
        assert_ne!(other.revocations.epoch(), epoch);
        let found = [0, 1, 2, 3].map(|index| other.ended(&sessions[index]));
        assert_eq!(found, expected.map(|ended| ended.then_some(Why::Admin)), "{entry:?}");
    }
}

/// Within one second and one millisecond: who logs in after the end stays logged in.
#[test]
fn a_login_after_the_end_is_not_ended() {
    for (entry, sid) in [
        (Entry::Subject { issuer: ISSUER, subject: "alice" }, Some("1")),
        (Entry::Unplaced { issuer: ISSUER, subject: "alice" }, None),
        (Entry::Everything, Some("1")),
    ] {
        let service = service();
        let before = service.login("alice", sid);
        service.end(entry, Why::BackChannel);
        let after = service.login("alice", sid);
        assert_eq!(service.ended(&before), Some(Why::BackChannel));
        assert_eq!(service.ended(&after), None, "{entry:?}");
    }
    // A session of the provider does not come back: a login that was under way belongs to what was ended.
    let service = service();
    service.end(Entry::ProviderSession { issuer: ISSUER, sid: "1" }, Why::BackChannel);
    assert_eq!(service.ended(&service.login("alice", Some("1"))), Some(Why::BackChannel));
}

#[test]
fn the_wall_clock_may_jump() {
    let service = service();
    let [dead, live] = [service.login("alice", None), service.login("bob", None)];
    service.end(Entry::Session(dead.id), Why::Logout);
    // Forward, so that the end is out of date and makes room, and back.
    service.hand.advance(10 * LIFETIME);
    let of_the_future = service.login("carol", None);
    service.end(Entry::Session(of_the_future.id), Why::Logout);
    service.end(Entry::Subject { issuer: ISSUER, subject: "alice" }, Why::Admin);
    service.hand.set(START);
    assert!(service.ended(&dead).is_some(), "revived");
    for subject in ["alice", "bob", "carol"] {
        assert_eq!(service.ended(&service.login(subject, None)), None, "{subject} is locked out");
    }
    service.end(Entry::Everything, Why::Admin);
    assert!(service.ended(&live).is_some() && service.ended(&of_the_future).is_some());
    assert_eq!(service.ended(&service.login("bob", None)), None);

    // Back before anything began.
    service.hand.set(UnixTime(START.0 - 1_000_000));
    let early = service.login("bob", None);
    assert_eq!(service.ended(&early), None);
    service.end(Entry::Subject { issuer: ISSUER, subject: "bob" }, Why::Admin);
    assert_eq!(service.ended(&early), Some(Why::Admin));
}

/// A replica's clock is ahead of ours: its session was seen here, and is ended here by its person.
#[test]
fn a_session_born_ahead_of_our_clock_can_be_ended() {
    let (clock, hand) = Clock::manual(START.plus(MINUTE));
    let ahead = service_with(clock, hand, None).login("alice", None);
    let service = service();
    assert_eq!(service.ended(&ahead), None);
    service.end(Entry::Subject { issuer: ISSUER, subject: "alice" }, Why::Admin);
    assert_eq!(service.ended(&ahead), Some(Why::Admin));
}

#[test]
fn a_full_list_ends_the_oldest_and_forgets_nobody() {
    let service = service();
    let mut list = List::of_at_most(10);
    let sessions: Vec<_> = (0..25).map(|_| service.login("alice", None)).collect();
    for (number, session) in sessions.iter().enumerate() {
        let revocation = revocation(&service, Entry::Session(session.id), service.revocations.birth());
        list.put(revocation, START);
        assert!(sessions[..=number].iter().all(|session| list.ended(session).is_some()), "{number}");
        assert_eq!(list.is_folding(), number >= 10);
    }
    assert_eq!(list.revocations().count(), 11, "ten and the line");
    assert_eq!(list.ended(&service.login("alice", None)), None);
}

/// That ends are folded for want of room is told when it begins, and not again while it lasts.
#[test]
fn a_list_that_folds_is_told_once() {
    let (clock, hand) = Clock::manual(START);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let events: Events = Arc::new(move |_, event| drop(tell.lock().unwrap().send(event)));
    let revocations = Revocations::new("app".into(), LIFETIME, clock, None, events);
    let end = || drop(revocations.end(Entry::Session(SessionId::new().unwrap()), Why::Logout));
    let folding = || told.try_iter().filter(|event| *event == Event::Folding).count();
    for _ in 0..MAX_ENTRIES {
        end();
    }
    assert_eq!(folding(), 0, "just full");
    end();
    assert_eq!(folding(), 1);
    end();
    assert_eq!(folding(), 0, "still");
    // All of them expire, so there is room.
    hand.advance(2 * LIFETIME);
    for _ in 0..MAX_ENTRIES {
        end();
    }
    assert_eq!(folding(), 0, "nothing is folded that is needed");
    end();
    assert_eq!(folding(), 1, "again");
}

#[test]
fn what_is_out_of_date_makes_room() {
    let service = service();
    let mut list = List::of_at_most(10);
    let old = service.login("alice", None);
    list.put(revocation(&service, Entry::Session(old.id), service.revocations.birth()), START);
    let now = START.plus(LIFETIME + MINUTE);
    service.hand.set(now);
    let young = service.login("alice", None);
    let moved = list.put(revocation(&service, Entry::Session(young.id), service.revocations.birth()), now);
    assert!(moved.is_some() && !list.is_folding());
    assert_eq!(list.revocations().count(), 2, "the line and the new one");
    assert!(list.ended(&old).is_some() && list.ended(&young).is_some());
}

fn revocation(service: &Service, entry: Entry<'_>, made: Millis) -> Revocation {
    Revocation::new(entry, Why::Logout, made, service.clock.now().plus(LIFETIME + MINUTE))
}

#[test]
fn a_revocation_comes_back_from_its_bytes() {
    let service = service();
    let id = service.login("alice", None).id;
    for entry in [
        Entry::Session(id),
        Entry::ProviderSession { issuer: ISSUER, sid: "1" },
        Entry::Subject { issuer: ISSUER, subject: "alice" },
        Entry::Unplaced { issuer: ISSUER, subject: "alice" },
        Entry::Everything,
    ] {
        for why in [
            Why::Logout,
            Why::BackChannel,
            Why::FrontChannel,
            Why::Admin,
            Why::Refused,
            Why::Replaced,
            Why::Older,
        ] {
            let revocation = Revocation::new(entry, why, Millis(7), START);
            let bytes = revocation.to_bytes();
            assert_eq!(Revocation::from_bytes(&bytes), Some(revocation));
            assert_eq!(Revocation::from_bytes(&bytes[1..]), None);
            assert!(!bytes.windows(5).any(|window| window == b"alice"));
            for place in [0, 17] {
                let mut unknown = bytes;
                unknown[place] = b'?';
                assert_eq!(Revocation::from_bytes(&unknown), None, "of a later version");
            }
        }
    }
    assert_eq!(SessionId::parse(&id.to_string()), Some(id));
}

/// A session of the provider is one end, also where it ends sessions without a `sid` besides.
#[tokio::test]
async fn one_word_is_told_once() {
    for subject in [None, Some("alice")] {
        let (tell, told) = channel();
        let events: Events = Arc::new(move |_, event| tell.send(format!("{event:?}")).unwrap());
        let revocations = Revocations::new("app".into(), LIFETIME, Clock::manual(START).0, None, events);
        let word = revocations.end_provider_session(ISSUER, ("1", subject), START, Why::BackChannel);
        assert_eq!(word.await, Ok(()));
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told, ["Ended { why: BackChannel }"], "{subject:?}");
    }
}

/// And everybody where the clock was put back, so that nobody can say who began when.
#[tokio::test]
async fn a_word_about_a_time_ends_who_began_before() {
    const MINUTE: Duration = Duration::from_secs(60);
    let service = service();
    let (revocations, hand) = (&service.revocations, &service.hand);
    let subject = Entry::Subject { issuer: ISSUER, subject: "alice" };
    for knows in [true, false] {
        let early = service.login("alice", None);
        hand.advance(2 * MINUTE);
        let late = service.login("alice", None);
        let time = service.clock.now().minus(MINUTE);
        revocations.end_until(subject, time, Why::BackChannel).await.unwrap();
        assert_eq!((service.ended(&early).is_some(), service.ended(&late).is_some()), (true, !knows));
        // A time to come counts for as much as has passed.
        let time = service.clock.now().plus(MINUTE);
        revocations.end_until(subject, time, Why::BackChannel).await.unwrap();
        assert!(service.ended(&late).is_some() && service.ended(&service.login("alice", None)).is_none());
        // An hour ahead for one login, and back.
        hand.advance(60 * MINUTE);
        service.login("bob", None);
        hand.set(START);
    }
    // The session of a provider is over whenever it began.
    let session = service.login("carol", Some("1"));
    let named = Entry::ProviderSession { issuer: ISSUER, sid: "1" };
    revocations.end_until(named, START.minus(MINUTE), Why::BackChannel).await.unwrap();
    assert!(service.ended(&session).is_some());
}

/// A disk that never answers.
#[derive(Debug)]
struct Hung;

impl Ledger for Hung {
    fn append(&self, _: &str, _: &Revocation) -> Written {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_ledger_that_hangs_is_told_once_and_holds_nobody_up() {
    let (clock, _) = Clock::manual(START);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let events: Events = Arc::new(move |_, event| drop(tell.lock().unwrap().send(event)));
    let revocations = Revocations::new("app".into(), LIFETIME, clock, Some(Arc::new(Hung)), events);
    let ends = (0..3).map(|_| revocations.end(Entry::Everything, Why::Admin));
    let all = futures_util::future::join_all(ends);
    tokio::time::timeout(3 * DURABLE_WITHIN, all).await.expect("an end that waits for the ledger");
    let slow = told.try_iter().filter(|event| *event == Event::LedgerSlow).count();
    assert_eq!(slow, 1);
}

/// One that says so at once, or later, or never.
#[derive(Debug)]
struct Says(Option<Result<(), LedgerError>>, bool);

impl Ledger for Says {
    fn append(&self, _: &str, _: &Revocation) -> Written {
        match self.0 {
            Some(said) => Box::pin(std::future::ready(said)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn is_shared(&self) -> bool {
        self.1
    }
}

/// That others don't know is said, whatever else is wrong; that a disk hangs is no reason to say it.
#[tokio::test]
async fn what_others_do_not_know_is_told_from_what_may_be_forgotten() {
    use LedgerError::{NotDurable, NotShared};
    for (shared, kept, wanted) in [
        (Some(Ok(())), Some(Ok(())), Ok(())),
        (Some(Err(NotShared)), Some(Ok(())), Err(NotShared)),
        (Some(Err(NotShared)), Some(Err(NotDurable)), Err(NotShared)),
        (Some(Ok(())), Some(Err(NotDurable)), Err(NotDurable)),
        (Some(Ok(())), None, Err(NotDurable)),
        (None, Some(Ok(())), Err(NotShared)),
    ] {
        let both = SharedAndKept { shared: Arc::new(Says(shared, true)), kept: Arc::new(Says(kept, false)) };
        let (clock, _) = Clock::manual(START);
        let events: Events = Arc::new(|_, _| {});
        let revocations = Revocations::new("app".into(), LIFETIME, clock, Some(Arc::new(both)), events);
        let [one, other] = [SessionId::new().unwrap(), SessionId::new().unwrap()];
        assert_eq!(revocations.end_each([one, other], Why::Logout).await, wanted, "{shared:?} {kept:?}");
        assert_eq!(revocations.known().len(), 2, "both are over here");
    }
}

#[tokio::test]
async fn of_several_ends_the_worst_is_told() {
    use LedgerError::{NotDurable, NotShared};
    for (ends, wanted) in [
        (&[Ok(()), Ok(())][..], Ok(())),
        (&[Err(NotShared), Ok(())], Err(NotShared)),
        (&[Err(NotShared), Err(NotDurable)], Err(NotShared)),
        (&[Err(NotDurable), Err(NotShared)], Err(NotShared)),
        (&[Err(NotDurable), Ok(())], Err(NotDurable)),
        (&[Ok(()), Err(NotDurable), Ok(())], Err(NotDurable)),
        (&[], Ok(())),
    ] {
        let all = ends.iter().map(|end| -> Written { Box::pin(std::future::ready(*end)) }).collect();
        assert_eq!(all_written(all).await, wanted, "{ends:?}");
    }
}

#[test]
fn a_ledger_is_shared_if_others_read_it() {
    let directory = TempDir::new().unwrap();
    let disk = Process::start(directory.path())._ledger;
    assert!(!disk.is_shared());
    for shared in [true, false] {
        let both = SharedAndKept { shared: Arc::new(Says(None, shared)), kept: disk.clone() };
        assert_eq!(both.is_shared(), shared);
    }
}

/// A process: its ledger, and what that told. The file is locked until the thread of a dropped one has noticed.
struct Process {
    service: Service,
    _ledger: Arc<DiskLedger>,
    told: Receiver<DiskEvent>,
}

impl Process {
    fn start(directory: &Path) -> Self {
        Self::start_at(directory, START)
    }

    fn start_at(directory: &Path, now: UnixTime) -> Self {
        let (clock, hand) = Clock::manual(now);
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let events: DiskEvents = Arc::new(move |event| drop(tell.lock().unwrap().send(event)));
        let patience = Patience { lock: Duration::from_millis(200), retry: Duration::from_millis(20) };
        let ledger = Arc::new(DiskLedger::with_patience(directory, clock.clone(), events, patience));
        let service = service_with(clock, hand, Some(ledger.clone()));
        ledger.attach(&service.revocations);
        ledger.start().unwrap();
        Self { service, _ledger: ledger, told }
    }

    async fn end(&self, entry: Entry<'_>) {
        // Some of these ledgers are in trouble.
        let _ = self.service.revocations.end(entry, Why::Logout).await;
    }

    fn tells(&self) -> DiskEvent {
        self.told.recv_timeout(Duration::from_secs(10)).expect("an event of the ledger")
    }
}

#[tokio::test]
async fn what_was_ended_stays_ended_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    let first = Process::start(&state);
    let names = ["session", "sid", "subject", "nobody"];
    let sessions = names.map(|name| first.service.login(name, Some(name)));
    first.end(Entry::Session(sessions[0].id)).await;
    first.end(Entry::ProviderSession { issuer: ISSUER, sid: "sid" }).await;
    first.end(Entry::Subject { issuer: ISSUER, subject: "subject" }).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(LEDGER_FILE))), (0o700, 0o600));
    drop(first);

    let second = Process::start_at(&state, START);
    let found = sessions.each_ref().map(|session| second.service.ended(session));
    assert_eq!(found, [Some(Why::Logout), Some(Why::Logout), Some(Why::Logout), None]);
    let later = second.service.login("subject", None);
    assert_eq!(second.service.ended(&later), None);
    second.end(Entry::Everything).await;
    drop(second);

    // Long after: the entries have gone from the file, and nobody has come back, whatever the clock says then.
    drop(Process::start_at(&state, START.plus(10 * LIFETIME)));
    let last = Process::start_at(&state, START);
    assert!(sessions.iter().chain([&later]).all(|session| last.service.ended(session).is_some()));
    assert_eq!(last.service.ended(&last.service.login("nobody", None)), None);
}

#[tokio::test]
async fn many_ends_at_once_are_all_written() {
    let directory = TempDir::new().unwrap();
    let first = Process::start(directory.path());
    let sessions: Vec<_> = (0..2000).map(|_| first.service.login("alice", None)).collect();
    let ends = sessions.iter().map(|session| first.end(Entry::Session(session.id)));
    futures_util::future::join_all(ends).await;
    drop(first);
    let second = Process::start_at(directory.path(), START);
    assert!(sessions.iter().all(|session| second.service.ended(session).is_some()));
}

#[tokio::test]
async fn a_locked_file_is_read_when_it_is_free() {
    let directory = TempDir::new().unwrap();
    let first = Process::start(directory.path());
    let before = first.service.login("alice", None);
    first.end(Entry::Session(before.id)).await;

    let second = Process::start(directory.path());
    assert!(matches!(second.tells(), DiskEvent::Locked { .. }));
    assert_eq!(second.service.ended(&before), None, "only in memory meanwhile");
    let during = second.service.login("bob", None);
    second.end(Entry::Session(during.id)).await;
    assert_eq!(second.service.ended(&during), Some(Why::Logout));
    let late = first.service.login("carol", None);
    first.end(Entry::Session(late.id)).await;
    drop(first);
    assert!(matches!(second.tells(), DiskEvent::Works { .. }));
    assert!([&before, &during, &late].into_iter().all(|session| second.service.ended(session).is_some()));
    drop(second);
    let third = Process::start_at(directory.path(), START);
    assert!([&before, &during, &late].into_iter().all(|session| third.service.ended(session).is_some()));
}

#[tokio::test]
async fn a_broken_file_is_set_aside_and_every_session_of_before_is_over() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(LEDGER_FILE);
    let whole = {
        let first = Process::start(directory.path());
        first.end(Entry::Everything).await;
        drop(first);
        drop(Process::start_at(directory.path(), START));
        std::fs::read(&file).unwrap()
    };
    let broken: [(&str, Vec<u8>); 4] = [
        ("text", b"not a database\n".repeat(1000)),
        ("short text", b"x".to_vec()),
        ("cut", whole[..whole.len() / 3].to_vec()),
        ("overwritten", [&whole[..512], &vec![0xa5; whole.len() - 512]].concat()),
    ];
    for (name, bytes) in broken {
        std::fs::write(&file, bytes).unwrap();
        let process = Process::start(directory.path());
        let alive = process.service.login("alice", None);
        let mut before = alive.clone();
        before.born = START.into();
        let DiskEvent::SetAside { aside, .. } = process.tells() else { panic!("{name}: told otherwise") };
        assert!(aside.is_file(), "{name}");
        assert_eq!(process.service.ended(&before), Some(Why::Older), "{name}");
        assert_eq!(process.service.ended(&alive), None, "{name}: a new login");
        drop(process);
        let next = Process::start_at(directory.path(), START);
        assert_eq!(next.service.ended(&before), Some(Why::Older), "{name}: after one more restart");
        assert_eq!(next.service.ended(&alive), None, "{name}");
        drop(next);
        std::fs::remove_file(&aside).unwrap();
    }
}

/// Damage anywhere in the file: it is found, or it has done no harm.
#[tokio::test]
async fn no_damage_revives_a_session() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(LEDGER_FILE);
    let first = Process::start(directory.path());
    let sessions: Vec<_> = (0..50).map(|_| first.service.login("alice", None)).collect();
    for session in &sessions {
        first.end(Entry::Session(session.id)).await;
    }
    drop(first);
    drop(Process::start(directory.path()));
    let whole = std::fs::read(&file).unwrap();
    let written: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut found = 0;
    for at in written.iter().step_by(written.len() / 100) {
        let mut damaged = whole.clone();
        damaged[*at] ^= 0x10;
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, damaged).unwrap();
        let process = Process::start_at(directory.path(), START.plus(MINUTE));
        let revived = sessions.iter().filter(|session| process.service.ended(session).is_none()).count();
        assert_eq!(revived, 0, "of {} by damage at {at}", sessions.len());
        found += usize::from(process.told.try_recv().is_ok());
    }
    assert!(found > 0, "no damage was found at all");
}

#[tokio::test]
async fn a_file_that_can_t_be_made_is_tried_again() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    std::fs::write(&state, "in the way").unwrap();
    let process = Process::start(&state);
    assert!(matches!(process.tells(), DiskEvent::Unusable { .. }));
    let session = process.service.login("alice", None);
    process.end(Entry::Session(session.id)).await;
    assert_eq!(process.service.ended(&session), Some(Why::Logout));
    std::fs::remove_file(&state).unwrap();
    assert!(matches!(process.tells(), DiskEvent::Works { .. }));
    drop(process);
    let next = Process::start_at(&state, START);
    assert_eq!(next.service.ended(&session), Some(Why::Logout));
}

/// What others lost can't be known any more: every session of before is over, and none of after.
#[test]
fn what_can_t_be_known_ends_every_session_so_far() {
    let service = service();
    let old = service.login("alice", None);
    service.revocations.end_all_until(START.plus(MINUTE));
    assert_eq!(service.ended(&old), Some(Why::Older));
    service.hand.set(START.plus(2 * MINUTE));
    let young = service.login("alice", None);
    assert_eq!(service.ended(&young), None);
    service.revocations.end_all_until_now();
    assert_eq!(service.ended(&young), Some(Why::Older));
    service.hand.set(START.plus(3 * MINUTE));
    assert_eq!(service.ended(&service.login("alice", None)), None);
}

/// A session of the provider that has ended takes also sessions that are still being made in it, whatever the line.
#[test]
fn the_end_of_a_provider_s_session_is_below_no_line() {
    let service = service();
    let made = |seconds| Millis::from(START.plus(Duration::from_secs(seconds)));
    let mut list = List::of_at_most(10);
    let everything = Revocation::everything(Why::Admin, made(60));
    list.put(everything, START);
    let (of_provider, of_subject) = (
        Entry::ProviderSession { issuer: ISSUER, sid: "s1" },
        Entry::Subject { issuer: ISSUER, subject: "alice" },
    );
    let (timeless, other) =
        (revocation(&service, of_provider, made(30)), revocation(&service, of_subject, made(30)));
    list.put(timeless, START);
    list.put(other, START);
    assert!(list.holds(&everything) && list.holds(&timeless) && !list.holds(&other));
    list.put(revocation(&service, of_subject, made(70)), START);
    list.put(Revocation::everything(Why::Admin, made(90)), START);
    assert!(list.holds(&timeless), "raising the line keeps it");
    assert!(
        !list.holds(&everything) && list.revocations().count() == 2,
        "and drops what it makes superfluous"
    );
    service.hand.set(START.plus(2 * MINUTE));
    assert_eq!(list.ended(&service.login("alice", Some("s1"))), Some(Why::Logout));
    assert_eq!(list.ended(&service.login("alice", Some("s2"))), None);
}
