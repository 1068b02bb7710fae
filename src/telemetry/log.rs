//! The log: a bounded queue and one thread that writes, so that a full disk or a reader that stands still
//! costs lines, which are counted, and never a request.

use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::Event;

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

/// Takes events, and the batches of the workers' [`Journal`](super::Journal)s. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Chunk>,
    text: bool,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writing thread on `output`.
    pub fn start(format: Format, output: impl Write + Send + 'static) -> (Log, LogWriter) {
        let (queue, chunks) = sync_channel(QUEUE_CHUNKS);
        let (stop, stopped) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        // Without a thread there is no log; every line is then counted as dropped.
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_chunks(&chunks, output, &counter);
            drop(stop);
        });
        drop(thread);
        let log = Log { queue: queue.clone(), text: format == Format::Text, dropped };
        (log, LogWriter { queue, stopped })
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

    /// Writes an event.
    pub fn event(&self, event: Event) {
        let mut text = String::new();
        if self.text {
            event.write_text(&mut text);
        } else {
            // Nothing in an event can fail to serialise.
            text = serde_json::to_string(&event).unwrap_or_default();
        }
        text.push('\n');
        self.push(Lines { text, count: 1 });
    }

    /// Lines that were lost because the reader of the log was too slow or gone.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether lines are for people.
    pub(super) fn is_text(&self) -> bool {
        self.text
    }

    /// Hands whole lines to the writer.
    pub(super) fn push(&self, lines: Lines) {
        let count = lines.count;
        match self.queue.try_send(Chunk::Lines(lines)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// Whole lines, each with its end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) count: u64,
}

/// The writing thread's end, for the end of the process.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<Chunk>,
    stopped: Receiver<()>,
}

impl LogWriter {
    /// Writes what is queued, waiting at most 2 s for a slow reader.
    pub fn finish(self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while let Err(TrySendError::Full(_)) = self.queue.try_send(Chunk::End) {
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
enum Chunk {
    Lines(Lines),
    End,
}

fn write_chunks(chunks: &Receiver<Chunk>, mut output: impl Write, dropped: &AtomicU64) {
    while let Ok(Chunk::Lines(lines)) = chunks.recv() {
        if output.write_all(lines.text.as_bytes()).and_then(|()| output.flush()).is_err() {
            dropped.fetch_add(lines.count, Ordering::Relaxed);
        }
    }
}

/// Chunks that may wait for the writer; a chunk of records has at most
/// [`BATCH_BYTES`](super::journal::BATCH_BYTES) and a few lines.
const QUEUE_CHUNKS: usize = 1024;
/// Longest wait for a slow reader at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two tries to reach a writer whose queue is full.
const FLUSH_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::super::Level;
    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

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
        let text = memory.text();
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
        for _ in 0..3 * QUEUE_CHUNKS {
            log.event(Event::new("login", Level::Info));
        }
        assert!(log.dropped() > 0);
        drop(release);
        writer.finish();
    }
}
