//! The log: a bounded queue and one thread that writes, so that a full disk or a reader that stands still
//! costs lines, which are counted, and never a request.

use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::{AccessRecord, Event};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Readable text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// One readable text a line.
    Text,
}

/// Takes records and events. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writing thread on `output`.
    pub fn start(format: Format, output: impl Write + Send + 'static) -> (Log, LogWriter) {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let (stop, stopped) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        let text = format == Format::Text;
        // Without a thread there is no log; every line is then counted as dropped.
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_lines(&lines, text, output, &counter);
            drop(stop);
        });
        drop(thread);
        (Log { queue: queue.clone(), dropped }, LogWriter { queue, stopped })
    }

    /// Starts the log on standard output; [`Format::Auto`] looks whether that is a terminal.
    pub fn to_stdout(format: Format) -> (Log, LogWriter) {
        let format = match format {
            Format::Auto if std::io::stdout().is_terminal() => Format::Text,
            Format::Auto => Format::Json,
            given => given,
        };
        Self::start(format, std::io::stdout())
    }

    /// Writes the record of a request.
    pub fn access(&self, record: AccessRecord) {
        self.push(Line::Access(Box::new(record)));
    }

    /// Writes an event.
    pub fn event(&self, event: Event) {
        self.push(Line::Event(Box::new(event)));
    }

    /// Lines that were lost because the reader of the log was too slow or gone.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, line: Line) {
        match self.queue.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The writing thread's end, for the end of the process.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<Line>,
    stopped: Receiver<()>,
}

impl LogWriter {
    /// Writes what is queued, waiting at most 2 s for a slow reader.
    pub fn finish(self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while let Err(TrySendError::Full(_)) = self.queue.try_send(Line::End) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(FLUSH_STEP);
        }
        // Whatever this says, there is no more to wait for.
        let _ = self.stopped.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[derive(Debug)]
enum Line {
    Access(Box<AccessRecord>),
    Event(Box<Event>),
    End,
}

fn write_lines(lines: &Receiver<Line>, text: bool, mut output: impl Write, dropped: &AtomicU64) {
    let mut batch = String::new();
    while let Ok(first) = lines.recv() {
        let mut count = 0;
        let mut end = !push_line(&mut batch, &first, text, &mut count);
        while !end && batch.len() < BATCH_BYTES {
            let Ok(line) = lines.try_recv() else { break };
            end = !push_line(&mut batch, &line, text, &mut count);
        }
        if output.write_all(batch.as_bytes()).and_then(|()| output.flush()).is_err() {
            dropped.fetch_add(count, Ordering::Relaxed);
        }
        batch.clear();
        if end {
            return;
        }
    }
}

/// Appends one line; false when it is the last.
fn push_line(batch: &mut String, line: &Line, text: bool, count: &mut u64) -> bool {
    let json = match line {
        Line::End => return false,
        Line::Access(record) if text => {
            record.write_text(batch);
            None
        }
        Line::Event(event) if text => {
            event.write_text(batch);
            None
        }
        Line::Access(record) => Some(serde_json::to_string(record)),
        Line::Event(event) => Some(serde_json::to_string(event)),
    };
    if let Some(Ok(json)) = json {
        batch.push_str(&json);
    }
    batch.push('\n');
    *count += 1;
    true
}

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 8192;
/// Most bytes written in one go, plus one line.
const BATCH_BYTES: usize = 64 * 1024;
/// Longest wait for a slow reader at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two tries to reach a writer whose queue is full.
const FLUSH_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::super::Level;
    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_end() {
        let memory = Memory::default();
        let (log, writer) = Log::start(Format::Json, memory.clone());
        for _ in 0..1000 {
            log.event(Event::new("login", Level::Info).message("a\nb"));
        }
        writer.finish();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!(log.dropped(), 0);
    }

    /// Stands still until it is let go.
    struct Blocked(Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// REL-13: a log that nobody reads is counted, and nobody waits for it.
    #[test]
    fn a_blocked_reader_costs_lines_and_not_time() {
        let (release, blocked) = mpsc::channel();
        let (log, writer) = Log::start(Format::Json, Blocked(blocked));
        for _ in 0..3 * QUEUE_LINES {
            log.event(Event::new("login", Level::Info));
        }
        assert!(log.dropped() > 0);
        drop(release);
        writer.finish();
    }
}
