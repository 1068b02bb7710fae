"""What a run shares: the directory, the provider, the application, the cores, and the counter."""

import os
import secrets
import tempfile
import time
from pathlib import Path

from . import counter, install
from .load import Application
from .processes import Failed, Running, free_ports
from .subjects import CALLBACKS, SUBJECTS, World

CLIENT_ID = "portcullis-e2e"


class Bench:
    """Everything that it starts is ended by `close`."""

    def __init__(self, binary):
        if not binary.is_file():
            raise Failed(f"there is no {binary}; make it with: cargo build --release")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Failed("this needs two cores: one for the proxy, one for the load")
        # The proxy alone on the first core; load and application on the second, or on all others.
        self.proxy_cores, self.load_cores = {cores[0]}, set(cores[1:])
        os.sched_setaffinity(0, self.load_cores)
        self.counter, self.why_not_instructions = counter.best()
        self.root = install.ROOT
        self.folder = tempfile.TemporaryDirectory(prefix="portcullis-bench-")
        directory = Path(self.folder.name)
        names = [*SUBJECTS, "application", "provider"]
        extra = ["portcullis-admin", "portcullis-unlogged", "portcullis-unlogged-admin", "nginx-unlogged"]
        names += extra
        self.ports = dict(zip(names, free_ports(len(names))))
        certificate, key = install.certificate(directory)
        self.application = Application(
            install.upstream(directory), self.ports["application"], self.load_cores, directory
        )
        secret = secrets.token_urlsafe(24)
        self.world = World(
            directory=directory,
            app_port=self.ports["application"],
            issuer=f"http://localhost:{self.ports['provider']}",
            client_id=CLIENT_ID,
            client_secret=secret,
            certificate=certificate,
            key=key,
            cores=self.proxy_cores,
            ports=self.ports,
            binary=binary,
        )
        self.provider = None
        self.began = time.monotonic()

    def start_provider(self):
        """npm oidc-provider, which knows every proxy's callback."""
        callbacks = [f"https://localhost:{self.ports[name]}{path}" for name, path in CALLBACKS.items()]
        callbacks.append(f"https://localhost:{self.ports['portcullis-unlogged']}{CALLBACKS['portcullis']}")
        command = ["node", install.ROOT / "benches" / "idp.mjs", self.ports["provider"], *callbacks]
        self.provider = Running(
            command,
            self.load_cores,
            self.world.directory / "provider.out",
            env={"CLIENT_SECRET": self.world.client_secret},
        )
        self.provider.wait_for_port(self.ports["provider"])

    def say(self, text):
        """A line of progress with the time."""
        seconds = int(time.monotonic() - self.began)
        print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}", flush=True)

    def forget_logs(self):
        """Records take room; nobody reads them."""
        for path in [*self.world.directory.glob("*access.log"), *self.world.directory.glob("*.out")]:
            os.truncate(path, 0)

    def close(self):
        self.application.stop()
        if self.provider:
            self.provider.stop()
        self.folder.cleanup()
