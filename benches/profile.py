#!/usr/bin/env python3
"""What release builds are optimised for: writes `.cargo/release.profdata` and `.cargo/release.order`, which
`.cargo/rustc.sh` gives the compiler and the linker.

    benches/profile.py

Builds the proxy with counters in it, has somebody log in, and sends it what proxies are sent: pages and programs, over
HTTP/1.1 and HTTP/2, kept and new connections, small and large bodies in both directions, strangers. The compiler then
knows which way branches go and inlines what is called often; the linker puts the functions that were called beside each
other, so that what is not called is not read into memory. docs/benchmarks/decisions.md says what that is worth. Run it
again after the way of a request has changed much; an old profile costs speed, never correctness, because functions that
no longer match are compiled without it, and those that are no longer there are not looked for.

Wants `rustup component add llvm-tools`, for the version of rust-toolchain.toml.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from guard import DEBIAN, Stage  # noqa: E402
from harness import callgrind, install  # noqa: E402
from harness.processes import Failed  # noqa: E402

ROOT = install.ROOT
PROFILE = ROOT / ".cargo" / "release.profdata"
ORDER = ROOT / ".cargo" / "release.order"
MIB = 1024 * 1024
#: Read by the binary with counters, in place of where it was built to write them.
COUNTS_GO_TO = "LLVM_PROFILE_FILE"
BROWSER = [
    "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language: en-US,en;q=0.5",
    "accept-encoding: gzip, deflate, br, zstd",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "sec-fetch-site: same-origin",
    "priority: u=0, i",
]
PROGRAM = ["user-agent: curl/8.14.1", "accept: application/json"]
HTTP1 = {"connections": 64}
HTTP2 = {"connections": 8, "streams": 32}


def build(raw):
    """The binary with counters."""
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "profile"
    flags = f"-Cprofile-generate={raw} -Cstrip=none"
    environment = {"CARGO_TARGET_DIR": str(folder), "PORTCULLIS_PROFILE": flags}
    install.run("cargo", "build", "--release", "--bin", "portcullis", cwd=ROOT, env=environment)
    # What the compiler itself has done meanwhile, in macros, is of no interest.
    shutil.rmtree(raw, ignore_errors=True)
    return folder / "release" / "portcullis"


def llvm(name):
    """A tool that belongs to the compiler."""
    library = install.run("rustc", "--print", "target-libdir", cwd=ROOT).strip()
    tool = Path(library).parent / "bin" / name
    if not tool.exists():
        raise Failed(f"{tool} is missing: rustup component add llvm-tools")
    return tool


def train(stage, binary):
    """Uses the proxy as it is used. What is counted is the process that carries the requests: the way of a login is not
    made faster at the price of memory that every idle process would need."""
    os.environ[COUNTS_GO_TO] = os.devnull
    cookie = f"cookie: theme=dark; {stage.log_in(binary)}; _ga=GA1.1.1234567890.1700000000"
    del os.environ[COUNTS_GO_TO]
    body = stage.directory / "body"
    large = stage.directory / "large"
    body.write_bytes(b"name=value&" * 20)
    large.write_bytes(bytes(MIB))
    proxy = stage.start(binary)
    port = stage.ports["proxy"]

    def drive(requests, headers=(), path="/", body=None, **shape):
        command = callgrind.generator(port, requests, path, headers, **shape)
        if body:
            command[1:1] = ["-d", str(body)]
        callgrind.drive(command)

    try:
        for shape in (HTTP1, HTTP2):
            drive(40_000, [cookie, *PROGRAM], **shape)
            drive(20_000, [cookie, *BROWSER], "/some/longer/path?with=a&query", **shape)
            drive(4_000, PROGRAM, "/public/page", **shape)
            drive(4_000, [cookie, *PROGRAM], body=body, **shape)
            drive(100, [cookie, *PROGRAM], f"/bytes/{MIB}", **shape)
            drive(100, [cookie, *PROGRAM], "/upload", body=large, **shape)
        drive(3_000, [cookie, *BROWSER, "connection: close"], connections=16)
        # Strangers are refused, so these requests don't succeed.
        for headers in (PROGRAM, BROWSER):
            command = callgrind.generator(port, 2_000, "/", headers, **HTTP1)
            subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=False, timeout=60)
    finally:
        proxy.stop()


def counted_functions(profile):
    """The functions that were called, those with the highest counts first."""
    shown = install.run(llvm("llvm-profdata"), "show", "--all-functions", "--counts", profile)
    counts, name = {}, None
    for line in shown.splitlines():
        if found := re.fullmatch(r"  (\S.*):", line):
            # Before the name of a function that is local to a file stands the file.
            name = found[1].rpartition(";")[2]
        elif found := re.fullmatch(r"    (?:Function count: |Block counts: \[)([\d, ]+)]?", line):
            counts[name] = max(counts.get(name, 0), *map(int, found[1].split(",")))
    return [name for name in sorted(counts, key=counts.get, reverse=True) if counts[name]]


def called_functions(stage, binary, names, directory, requests):
    """The functions that a start calls, and that some requests call: in any language, also where no counters are."""
    output = directory / f"callgrind.{requests}"
    wrapper, _ = callgrind.callgrind(output)
    proxy = stage.start(binary, [*wrapper, "--demangle=no"])
    try:
        for shape in ({"connections": 8}, {"connections": 2, "streams": 8}) if requests else ():
            callgrind.drive(callgrind.generator(stage.ports["proxy"], requests, "/public/page", **shape))
    finally:
        proxy.stop()
    return sorted(names & set(re.findall(r"^c?fn=\(\d+\) ([\w.$]+)", output.read_text(errors="replace"), re.MULTILINE)))


def in_order(stage, binary, directory):
    """What a start calls, for an idle process needs no more; then what requests call, the most called first."""
    listed = install.run(llvm("llvm-nm"), "--defined-only", binary)
    names = {line.split()[-1] for line in listed.splitlines() if line.strip()}
    started, served = (called_functions(stage, binary, names, directory, requests) for requests in (0, 100))
    return dict.fromkeys([*started, *counted_functions(PROFILE), *served])


def main():
    tool = llvm("llvm-profdata")
    install.debian(DEBIAN)
    with tempfile.TemporaryDirectory(prefix="portcullis-profile-") as name:
        directory = Path(name)
        raw = directory / "raw"
        print("building with counters", flush=True)
        built = build(raw)
        binary = directory / "portcullis"
        shutil.copy2(built, binary)
        os.environ[COUNTS_GO_TO] = os.devnull
        stage = Stage(directory / "stage", binary)
        try:
            print("using it", flush=True)
            train(stage, binary)
            install.run(tool, "merge", "--sparse", "-o", PROFILE, *raw.glob("*.profraw"))
            os.environ[COUNTS_GO_TO] = os.devnull
            ORDER.write_text("".join(f"{name}\n" for name in in_order(stage, binary, directory)))
        finally:
            stage.close()
    for file in (PROFILE, ORDER):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / MIB:.1f} MiB")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"profile: {error}")
