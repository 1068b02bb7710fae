//! The imports of the crate go one way: every `crate::` path in `src/` is held to the table of the architecture.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that know nobody, but for how a file is read, which knows nobody at all.
const LEAVES: [&str; 7] = ["clock", "digits", "file", "path", "secret", "tag", "watch"];

/// The boxes: siblings that do not know each other.
const BOXES: [&str; 6] = ["oidc", "policy", "proxy", "session", "telemetry", "tls"];

/// The files that put everything together: one for each command, and the list of the fuzz targets.
const COMPOSITION: [&str; 7] = ["main", "lib", "run", "check", "explain", "trial", "fuzzing"];

/// What a module may import, by the first segment of its path in the crate.
fn may_import(module: &str) -> Option<Vec<&'static str>> {
    let leaves = LEAVES.iter().copied();
    let boxes = BOXES.iter().copied();
    Some(match module {
        _ if COMPOSITION.contains(&module) => return None,
        "cli" => Vec::new(),
        "file" => Vec::new(),
        _ if LEAVES.contains(&module) => vec!["file"],
        "web" => leaves.collect(),
        _ if BOXES.contains(&module) => leaves.chain(["web"]).collect(),
        // Below it are the boxes whose Config types it assembles.
        "config" => leaves.chain(boxes).chain(["web", "server"]).collect(),
        "gate" => {
            leaves.chain(["oidc", "session", "policy", "proxy", "telemetry", "web", "server"]).collect()
        }
        "server" => leaves.chain(["gate", "tls", "telemetry", "web"]).collect(),
        "devidp" => leaves.chain(["web"]).collect(),
        _ => panic!("src/ has a module that the table of the architecture does not: {module}"),
    })
}

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some(allowed) = may_import(&module) else { continue };
        for import in imports(&code(&fs::read_to_string(&file).unwrap())) {
            let mut segments = import.split("::");
            let target = segments.next().unwrap();
            let permit = module == "proxy" && target == "policy" && segments.next() == Some("Permit");
            // Files that no build has but those for fuzzing and for tests.
            let fuzz = relative.ends_with("fuzz.rs") && target == "fuzzing";
            if target != module && !allowed.contains(&target) && !permit && !fuzz {
                wrong.push(format!("{}: crate::{import}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the table of the architecture:\n{}", wrong.join("\n"));
}

/// The development provider is only there for `try` and `dev-idp`.
#[test]
fn the_development_provider_is_out_of_reach_of_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if relative.starts_with("devidp") || ["main.rs", "lib.rs", "trial.rs"].contains(&relative.as_str()) {
            continue;
        }
        let code = code(&fs::read_to_string(&file).unwrap());
        assert!(!imports(&code).iter().any(|import| import.starts_with("devidp")), "{relative}");
    }
}

/// `proxy` can be called only with a decision.
#[test]
fn only_policy_makes_permits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let code = code(&fs::read_to_string(&file).unwrap());
        if !relative.starts_with("policy") {
            assert!(!code.contains("Permit {") || code.contains("struct"), "{relative} makes a Permit");
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::a::B;\nuse crate::{c::{D, E}, f, g::H as I};\nfn x() { crate::j::k(); }\npub(in crate::l) mod m;";
    let found = imports(code);
    let wanted = ["a::B", "c::D", "c::E", "f", "g::H", "j::k", "l"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(wanted));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The source without comments, and without the tests at the end of a file.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap();
    source.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate::`, with groups taken apart.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        expand("", rest, &mut found);
    }
    found
}

/// Adds the paths that `text` begins with, and gives what follows them.
fn expand<'t>(prefix: &str, text: &'t str, found: &mut BTreeSet<String>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut group) = text.strip_prefix('{') {
        loop {
            group = expand(prefix, group, found).trim_start();
            match group.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => group = more,
                _ => {
                    return group
                        .trim_start_matches(|character: char| character == ',' || character.is_whitespace())
                        .strip_prefix('}')
                        .unwrap_or(group);
                }
            }
        }
    }
    let end =
        text.find(|character: char| !(character.is_alphanumeric() || character == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(deeper) = rest.strip_prefix("::") {
        return expand(&path, deeper, found);
    }
    found.insert(path);
    let renamed = rest.trim_start().strip_prefix("as ").map(str::trim_start);
    renamed.map_or(rest, |rest| {
        rest.trim_start_matches(|character: char| character.is_alphanumeric() || character == '_')
    })
}
