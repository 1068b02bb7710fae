//! The seeds of every target, and a fixed number of changes to each, under the stable toolchain.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::TARGETS;

/// Changed copies of each seed. The same in every run: what fails once can be looked at.
const CHANGES: u64 = 64;
/// What the seeds of all targets may take in the repository, and how many of one there may be.
const MAX_BYTES: u64 = 200 * 1024;
const MAX_SEEDS: usize = 40;

#[test]
fn seeds_and_what_is_near_them_hold() {
    let (mut bytes, mut failed) = (0, Vec::new());
    for (name, target) in TARGETS {
        let seeds = files(&directory("seeds").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds in fuzz/seeds/{name}");
        assert!(seeds.len() <= MAX_SEEDS, "{name} has more than {MAX_SEEDS} seeds");
        for path in seeds {
            let seed = fs::read(&path).unwrap();
            bytes += seed.len() as u64;
            let mut random = Random::new(&seed);
            let inputs = (0..CHANGES).map(|_| changed(&seed, &mut random));
            let bad = std::iter::once(seed.clone()).chain(inputs).find(|input| {
                // Everything that went wrong is told at once.
                catch_unwind(AssertUnwindSafe(|| target(input))).is_err()
            });
            failed.extend(bad.map(|input| format!("{}: {}", path.display(), input.escape_ascii())));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(bytes <= MAX_BYTES, "the seeds have {bytes} bytes");
}

#[test]
fn every_target_is_in_all_lists() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |paths: Vec<PathBuf>| -> BTreeSet<String> {
        paths.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(files(&directory("fuzz_targets"))), listed);
    assert_eq!(names(entries(&directory("seeds"))), listed);
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    for name in &listed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let source = fs::read_to_string(directory("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("portcullis::fuzzing::{name}(bytes)")), "{name}");
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn files(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| path.is_file()).collect()
}

/// Up to four changes: a bit, a byte, a piece lost, a piece doubled, a piece of something that means much.
fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    const TELLING: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"%2e",
        b"/../",
        b"\0",
        b";",
        b"=",
        b"\"",
        b"<",
        b"\xff",
        b"18446744073709551616",
        b"__Host-portcullis=",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(4) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(7)),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => drop(bytes.splice(at..at, TELLING[random.below(TELLING.len() - 1)].iter().copied())),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next().to_le_bytes()[0]),
        }
    }
    bytes
}

/// Marsaglia's xorshift: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn new(seed: &[u8]) -> Self {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(seed.iter().fold(0xcbf2_9ce4_8422_2325, fold) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between 0 and `most`, both included.
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % (most as u64 + 1)).unwrap_or_default()
    }
}
