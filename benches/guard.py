#!/usr/bin/env python3
"""The guard of the hot path: an authorised request must not become dearer unnoticed.

Builds the proxy as it is here and as it was at a base, runs both under valgrind's callgrind with the same requests of
a session that has really logged in (at `portcullis dev-idp`), over HTTP/1.1 and over HTTP/2, and compares the
user-mode instructions of one request. More than 5 % more is a failure, unless a commit since the base says why in a
line of its message:

    Instructions: <the reason>

The base is the merge base with origin/main; on main itself the commit that the last change of the code was made to or
merged into; or the commit that GUARD_BASE names. Without a difference in the code there is nothing to do.

The build is optimised less than a release, to be quick: the figures are comparable with each other only.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import callgrind, install  # noqa: E402
from harness.browser import Browser  # noqa: E402
from harness.load import Application  # noqa: E402
from harness.processes import Failed, Running, free_ports  # noqa: E402
from harness.subjects import fill  # noqa: E402

ROOT = install.ROOT
#: What the binary is made of.
CODE = ["src", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "askama.toml", "config"]
MOST_RISE = 0.05
# A start costs as much as thousands of requests and differs by some millions (the system's randomness is tested), so
# there must be many of them.
FEW, MANY = 200, 4200
PROFILE = {"inherits": '"release"', "opt-level": "2", "lto": "false", "codegen-units": "16", "strip": '"none"'}
DEBIAN = {program: install.DEBIAN[program] for program in ("cc", "h2load", "valgrind", "openssl")}
REASON = re.compile(r"^Instructions: \S.*$", re.MULTILINE)
SHAPES = {"HTTP/1.1": {"connections": 4}, "HTTP/2": {"connections": 1, "streams": 4}}
CLIENT_ID, CLIENT_SECRET = "guard", "guard-of-the-hot-path"


def git(*arguments):
    """What git prints, or nothing where it fails."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def find_base():
    """The commit to compare with, if there is one."""
    if named := os.environ.get("GUARD_BASE"):
        return git("rev-parse", "--verify", f"{named}^{{commit}}") or sys.exit(f"guard: there is no commit {named}")
    head = git("rev-parse", "HEAD")
    base = git("merge-base", "HEAD", "origin/main")
    if base and base != head:
        return base
    last = git("rev-list", "-1", "--first-parent", "HEAD", "--", *CODE)
    return git("rev-parse", "--verify", "--quiet", f"{last}^1") if last else ""


def build(source, target):
    """The binary of a source tree, copied to `target`. Both trees share the compiled dependencies."""
    options = [each for name, value in PROFILE.items() for each in ("--config", f"profile.guard.{name}={value}")]
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    command = ["cargo", "build", "--quiet", "--profile", "guard", "--bin", "portcullis", *options]
    install.run(*command, cwd=source, env={"CARGO_TARGET_DIR": str(folder)})
    shutil.copy2(folder / "guard" / "portcullis", target)


def extract(commit, folder):
    """The tree of a commit, without a worktree that git would have to know about."""
    archive = folder.with_suffix(".tar")
    install.run("git", "archive", "-o", archive, commit, cwd=ROOT)
    folder.mkdir()
    install.run("tar", "-xf", archive, "-C", folder)
    archive.unlink()


class Stage:
    """An application and a provider, with the binary `provider` has, for the proxy to stand between."""

    def __init__(self, directory, provider):
        directory.mkdir()
        self.directory = directory
        names = ("application", "provider", "proxy", "admin")
        self.ports = dict(zip(names, free_ports(len(names))))
        self.cores = os.sched_getaffinity(0)
        self.certificate, self.key = install.certificate(directory)
        self.application = Application(
            install.upstream(directory), self.ports["application"], self.cores, directory
        )
        command = [provider, "dev-idp", "--port", self.ports["provider"], "--client-id", CLIENT_ID]
        command += ["--redirect-uri", f"https://localhost:{self.ports['proxy']}/aporeto/oidc/callback"]
        self.provider = Running(
            command, self.cores, directory / "provider.out", env={"DEV_IDP_CLIENT_SECRET": CLIENT_SECRET}
        )
        self.provider.wait_for_port(self.ports["provider"])

    def close(self):
        self.application.stop()
        self.provider.stop()

    def start(self, binary, wrapper=()):
        """The proxy with a state directory of its own."""
        directory = self.directory / f"state-{binary.name}"
        directory.mkdir(exist_ok=True)
        config = directory / "portcullis.yaml"
        values = {
            "DIRECTORY": directory, "ADMIN_PORT": self.ports["admin"], "WORKERS": 1, "PORT": self.ports["proxy"],
            "ISSUER": f"http://127.0.0.1:{self.ports['provider']}", "CLIENT_ID": CLIENT_ID,
            "CLIENT_SECRET": CLIENT_SECRET, "APP_PORT": self.ports["application"],
            "CERTIFICATE": self.certificate, "KEY": self.key,
        }
        config.write_text(fill("portcullis.yaml", values))
        command = [*wrapper, binary, "run", "-c", config]
        proxy = Running(command, self.cores, directory / "portcullis.out")
        proxy.wait_for_port(self.ports["proxy"])
        return proxy

    def log_in(self, binary):
        """A Cookie header that `binary` accepts, also after a restart."""
        proxy = self.start(binary)
        try:
            browser, origin = Browser(), f"https://localhost:{self.ports['proxy']}"
            browser.log_in(f"{origin}/", "bob")
            return browser.cookie_header(origin)
        finally:
            proxy.stop()

    def count(self, binary, cookie, requests):
        """Instructions of a whole run with so many requests of each protocol."""
        wrapper, read = callgrind.callgrind(self.directory / f"{binary.name}.callgrind")
        proxy = self.start(binary, wrapper)
        try:
            for protocol, shape in SHAPES.items():
                callgrind.drive(callgrind.generator(
                    self.ports["proxy"], requests[protocol], headers=[f"cookie: {cookie}"], **shape
                ))
        finally:
            proxy.stop()
        return read()

    def measure(self, binary):
        """Instructions of one request by each protocol: of a longer run, less a shorter one."""
        cookie = self.log_in(binary)
        few = {protocol: FEW for protocol in SHAPES}
        base = self.count(binary, cookie, few)
        found = {}
        for protocol in SHAPES:
            found[protocol] = (self.count(binary, cookie, few | {protocol: MANY}) - base) / (MANY - FEW)
        return found


def count(directory, side, binaries):
    """The figures of one binary, on a stage of its own."""
    stage = Stage(directory / f"stage-{side}", binaries["here"])
    try:
        return stage.measure(binaries[side])
    finally:
        stage.close()


def compare(base, head, reason):
    """Prints both; gives whether the rise is too much."""
    worst = 0.0
    print(f"{'user instructions of an authorised request':<44}{'base':>10}{'here':>10}{'change':>9}")
    for protocol in SHAPES:
        change = head[protocol] / base[protocol] - 1
        worst = max(worst, change)
        print(f"{protocol:<44}{base[protocol]:>10.0f}{head[protocol]:>10.0f}{100 * change:>+8.1f}%")
    if worst <= MOST_RISE:
        return 0
    if reason:
        print(f"more than {100 * MOST_RISE:.0f} % more, with a reason: {reason}")
        return 0
    print(
        f"FAILED: more than {100 * MOST_RISE:.0f} % more. Make it cheaper, or say why it is worth it in a line of the "
        "commit message: Instructions: <the reason>"
    )
    return 1


def main():
    base = find_base()
    if not base:
        print("guard: no earlier commit to compare with")
        return 0
    if subprocess.run(["git", "diff", "--quiet", base, "--", *CODE], cwd=ROOT, check=False).returncode == 0:
        print(f"guard: the code is that of {base[:12]}; nothing to compare")
        return 0
    began = time.monotonic()
    install.debian(DEBIAN)
    with tempfile.TemporaryDirectory(prefix="portcullis-guard-") as name:
        directory = Path(name)
        binaries = {side: directory / side for side in ("base", "here")}
        print(f"guard: building here and {base[:12]}", flush=True)
        build(ROOT, binaries["here"])
        # Always at the same place, so that a second run finds it compiled.
        tree = ROOT / ".tools" / "guard" / base[:12]
        if not tree.exists():
            shutil.rmtree(tree.parent, ignore_errors=True)
            tree.parent.mkdir(parents=True)
            extract(base, tree)
        build(tree, binaries["base"])
        built = time.monotonic()
        # Both at once: what is counted does not depend on how busy the machine is.
        with ThreadPoolExecutor() as pool:
            waiting = {side: pool.submit(count, directory, side, binaries) for side in binaries}
            figures = {side: result.result() for side, result in waiting.items()}
    print(f"guard: {built - began:.0f} s of building, {time.monotonic() - built:.0f} s of counting")
    found = REASON.search(git("log", "--format=%B", f"{base}..HEAD"))
    return compare(figures["base"], figures["here"], found[0].partition(":")[2].strip() if found else "")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"guard: {error}")
