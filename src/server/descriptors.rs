//! How many connections the file descriptors of the process are good for.

/// `wanted`, or as many as leave descriptors for everything else: a connection may need a second one to the
/// application. Running out in the middle of requests would fail those; waiting in the backlog fails nobody.
pub(super) fn affordable_connections(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    most_files(&limits).map_or(wanted, |most| wanted.min(affordable(most)))
}

fn affordable(most_files: usize) -> usize {
    (most_files.saturating_sub(RESERVED) / 2).max(1)
}

/// The soft limit of open files in the text of `/proc/<pid>/limits`; `None` where there is none.
fn most_files(limits: &str) -> Option<usize> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Listeners, runtimes, files, the log, the provider and the admin endpoints.
const RESERVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             5                    6                    processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(most_files(text), Some(1024));
        assert_eq!(most_files(&text.replace("1024", "unlimited")), None);
        assert_eq!(most_files(""), None);
    }

    #[test]
    fn there_is_room_for_the_rest() {
        assert_eq!(affordable(1024), 480);
        assert_eq!(affordable(256), 96);
        assert_eq!(affordable(10), 1);
    }
}
