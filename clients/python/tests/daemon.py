"""A daemon of a test's own."""

import os
import signal
import subprocess
import time
from typing import Optional

import aquifer


class Daemon:
    """Runs `$AQUIFER_PROGRAM` with one pool, its files in a directory."""

    def __init__(self, directory: str, pool: str, *arguments: str) -> None:
        self.socket = os.path.join(directory, "a.sock")
        self._command = [
            os.environ["AQUIFER_PROGRAM"], "up", "--no-mdns", "--pool", pool, "--socket", self.socket,
            "--data-dir", os.path.join(directory, "data"), *arguments,
        ]  # fmt: skip
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUIFER_")}
        environment["AQUIFER_GOSSIP"] = "/ip4/127.0.0.1/tcp/0"
        self._process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(500):
            try:
                aquifer.Client(self.socket).status()
                return
            except aquifer.Unavailable:
                assert self._process.poll() is None, "it ended at its start"
                time.sleep(0.02)
        raise AssertionError("it never answered")

    def stop(self) -> None:
        """Tells it to leave, and returns when it has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=30)
            self._process = None
