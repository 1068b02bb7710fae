"""One copy of the sources that has all mutants in it, of which the environment switches one on (mutation schemata).

A function that has mutants becomes a `match` over the number of the mutant that is on: one arm for each mutant, with
the whole body as cargo-mutants would have changed it, and the body as it is. So that the library is compiled once, and
not once for each mutant. What the compiler refuses is taken out, mutant by mutant, until it refuses nothing.
"""

import hashlib
import json
import re
import shutil
import subprocess

# Which mutant is on, read once. With a file to write to: which functions were entered.
SWITCH = """
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

static ON: OnceLock<u32> = OnceLock::new();
static TRACE: OnceLock<Option<String>> = OnceLock::new();
static ENTERED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

pub fn at(function: u32) -> u32 {
    if let Some(path) = TRACE.get_or_init(|| std::env::var("MUTANT_TRACE").ok()) {
        if ENTERED.lock().unwrap_or_else(PoisonError::into_inner).insert(function) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(format!("{function}\\n").as_bytes()));
        }
    }
    *ON.get_or_init(|| std::env::var("MUTANT").ok().and_then(|on| on.parse().ok()).unwrap_or(0))
}
"""

# Comments, strings, characters, lifetimes and brackets: enough to find where the body of a function begins.
TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]+?|[^'\\\n])'|'\w+|[(){}\[\]]""", re.DOTALL
)


class Mutant:
    """One change, as cargo-mutants lists it."""

    def __init__(self, number, group, listed, text):
        self.number, self.group = number, group
        self.file, self.name, self.genre = listed["file"], listed["name"], listed["genre"]
        self.replacement = listed["replacement"]
        offset = offsets(text)
        self.start, self.end = (offset(listed["span"][edge]) for edge in ("start", "end"))
        self.function = self.body = None
        within = ""
        if listed["function"]:
            self.function = tuple(offset(listed["function"]["span"][edge]) for edge in ("start", "end"))
            self.body = body(text, *self.function)
            within = text[slice(*self.function)]
            self.returns = listed["function"]["return_type"]
            self.is_const = bool(re.search(r"\bconst\s+fn\b", text[self.function[0] : self.body[0]]))
        # The same as long as the function is the same, wherever in the file it is.
        place = self.start - self.function[0] if self.function else self.name
        parts = [self.file, within, str(place), self.genre, self.replacement]
        self.key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    def is_switchable(self):
        """In no constant, and in no function whose type is that of its body."""
        return bool(self.body) and not self.is_const and not re.search(r"\bimpl\b", self.returns)

    def changed(self, text):
        start, end = self.body
        return f"{text[start : self.start]}{self.replacement} {text[self.end : end]}"


def offsets(text):
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return lambda place: starts[place["line"] - 1] + place["column"] - 1


def body(text, start, end):
    """What is between the braces of a function: they are the first ones outside of other brackets."""
    depth = 0
    for token in TOKEN.finditer(text, re.compile(r"\bfn\b").search(text, start).end(), end):
        if token[0] in ("(", "["):
            depth += 1
        elif token[0] in (")", "]"):
            depth -= 1
        elif token[0] == "{" and depth == 0:
            return token.end(), end - 1
    return None


def render(text, mutants):
    """The text with all its mutants, and where each has its arm."""
    functions = {}
    for mutant in mutants:
        functions.setdefault(mutant.body, []).append(mutant)
    parts, arms, length = [], [], 0

    def put(part):
        nonlocal length
        parts.append(part)
        length += len(part.encode())

    def copy(start, end, inner):
        """The text from `start` to `end`, with the arms of the functions in it, of which some are in others."""
        at = start
        for place in inner:
            if place[0] < at:
                continue
            put(text[at : place[0]])
            put(f" match crate::mutant::at({functions[place][0].number}) {{ ")
            for mutant in functions[place]:
                put(f"{mutant.number} => {{")
                begun = length
                put(mutant.changed(text))
                arms.append((begun, length, mutant))
                put("\n} ")
            put("_ => {")
            copy(*place, [other for other in inner if other != place and place[0] <= other[0] < place[1]])
            put("} } ")
            at = place[1]
        put(text[at:end])

    copy(0, len(text), sorted(functions))
    return "".join(parts), arms


def write(root, tree, mutants):
    """Writes the copy, of which what is as it was keeps its time. Gives the arms of each file."""
    by_file, arms = {}, {}
    for mutant in mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    library = "src/lib.rs"
    wanted = {"src/mutant.rs": SWITCH.encode()}
    for name in tracked(root):
        wanted[name] = (root / name).read_bytes()
        if name in by_file:
            text, arms[name] = render(wanted[name].decode(), by_file[name])
            wanted[name] = text.encode()
    declared = b"\n#[doc(hidden)]\npub mod mutant;\n"
    wanted[library] = b"#![allow(warnings)]\n" + wanted[library] + declared
    for path in [path for path in tree.rglob("*") if path.is_file()]:
        if str(path.relative_to(tree)) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = tree / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            shutil.copymode(root / name, path) if (root / name).exists() else None
    return arms


def tracked(root):
    """What git knows or would know: no results of builds."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (root / name).is_file()]


def compile_tests(cargo, tree, environment):
    """The test program, or what the compiler said."""
    command = [cargo, "test", "--lib", "--no-run", "--locked", "--profile", "mutants", "--message-format", "json"]
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    program, errors = None, []
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            errors.append(message["message"])
        elif message["reason"] == "compiler-artifact" and message["profile"]["test"] and message.get("executable"):
            program = message["executable"]
    return (program if done.returncode == 0 else None), errors


def blamed(error, arms):
    """The mutants that an error is in: where the compiler points first, or else anywhere that it points."""
    for primary in (True, False):
        found = set()
        for span in error["spans"]:
            while span and not span["file_name"].startswith("src/"):
                span = (span["expansion"] or {}).get("span")
            if not span or (primary and not span["is_primary"]):
                continue
            for start, end, mutant in arms.get(span["file_name"], []):
                if start <= span["byte_start"] and span["byte_end"] <= end:
                    found.add(mutant)
        if found:
            return found
    return set()


def build(cargo, root, tree, environment, mutants, refused):
    """The test program with all mutants that compile. The keys of the others are added to `refused`."""
    while True:
        arms = write(root, tree, [mutant for mutant in mutants if mutant.key not in refused])
        program, errors = compile_tests(cargo, tree, environment)
        if program:
            return program
        found = set().union(*(blamed(error, arms) for error in errors))
        if not found:
            said = "".join(error["rendered"] for error in errors)
            raise SystemExit(f"{said}\nmutants: the copy does not compile, and no mutant is to blame")
        refused |= {mutant.key for mutant in found}
        print(f"      {len(found)} more that do not compile", flush=True)
