//! One worker's end of the log. A record becomes a line where its request ends, in a batch of the worker's own,
//! and batches go to the writing thread a few times a second: no request waits for another thread or wakes one.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::log::{Lines, Log};
use super::record::AccessRecord;
use super::written::Stamp;

/// Takes the records of one worker.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    batch: RefCell<Batch>,
    begun: Rc<Notify>,
    full: Rc<Notify>,
}

#[derive(Debug, Default)]
struct Batch {
    lines: Lines,
    stamp: Stamp,
}

impl Journal {
    /// A journal on this worker's `LocalSet`, which must be running or about to.
    pub fn open(log: &Log) -> Rc<Self> {
        let journal = Rc::new(Self {
            log: log.clone(),
            batch: RefCell::default(),
            begun: Rc::default(),
            full: Rc::default(),
        });
        let (begun, full) = (journal.begun.clone(), journal.full.clone());
        tokio::task::spawn_local(hand_over(Rc::downgrade(&journal), begun, full));
        journal
    }

    /// Where events go.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Writes the record of a request.
    pub fn access(&self, record: &AccessRecord<'_>) {
        let mut batch = self.batch.borrow_mut();
        let Batch { lines, stamp } = &mut *batch;
        let was_empty = lines.text.is_empty();
        if self.log.is_text() {
            record.write_text(stamp, &mut lines.text);
        } else {
            record.write_json(stamp, &mut lines.text);
        }
        lines.text.push('\n');
        lines.count += 1;
        let bytes = lines.text.len();
        drop(batch);
        if was_empty {
            self.begun.notify_one();
        }
        if bytes >= MOST_BATCH_BYTES {
            self.flush();
        } else if bytes >= BATCH_BYTES {
            self.full.notify_one();
        }
    }

    fn flush(&self) {
        let lines = std::mem::take(&mut self.batch.borrow_mut().lines);
        if lines.count > 0 {
            self.log.push(lines);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Hands a batch over some time after its first line, or when there is enough of it. Ends with the worker.
async fn hand_over(journal: Weak<Journal>, begun: Rc<Notify>, full: Rc<Notify>) {
    loop {
        begun.notified().await;
        // Full or not, it goes.
        let _ = tokio::time::timeout(DELAY, full.notified()).await;
        let Some(journal) = journal.upgrade() else { return };
        journal.flush();
    }
}

/// How long a line may wait for others.
const DELAY: Duration = Duration::from_millis(50);
/// A batch of this size goes as soon as the worker has a moment.
pub(super) const BATCH_BYTES: usize = 16 * 1024;
/// A batch of this size goes at once, whoever waits.
const MOST_BATCH_BYTES: usize = 2 * BATCH_BYTES;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::task::LocalSet;

    use super::super::log::tests::Memory;
    use super::super::{Action, Format, Grounds, RequestIds};
    use super::*;

    fn record(path: &str) -> AccessRecord<'_> {
        AccessRecord {
            time: SystemTime::now(),
            request_id: RequestIds::new().next_id(),
            service: None,
            client: [127, 0, 0, 1].into(),
            method: "GET",
            path,
            status: 200,
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            action: Action::Accept,
            drop_reason: None,
            grounds: Grounds::Loose { rule: None, subject: None, tags: None },
            detail: None,
        }
    }

    #[tokio::test]
    async fn a_line_waits_only_a_moment_and_the_last_ones_are_not_lost() {
        let memory = Memory::default();
        let (log, writer) = Log::start(Format::Json, memory.clone());
        LocalSet::new()
            .run_until(async {
                let journal = Journal::open(&log);
                journal.access(&record("/one"));
                journal.access(&record("/two"));
                assert_eq!(journal.batch.borrow().lines.count, 2);
                while memory.text().lines().count() < 2 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                journal.access(&record("/three"));
            })
            .await;
        writer.finish();
        let text = memory.text();
        let paths: Vec<_> = ["/one", "/two", "/three"].iter().filter(|path| text.contains(**path)).collect();
        assert_eq!((paths.len(), text.lines().count()), (3, 3), "{text}");
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let (log, _writer) = Log::start(Format::Json, std::io::sink());
        LocalSet::new()
            .run_until(async {
                let journal = Journal::open(&log);
                for _ in 0..1000 {
                    journal.access(&record("/"));
                    assert!(journal.batch.borrow().lines.text.len() < MOST_BATCH_BYTES);
                }
            })
            .await;
    }
}
