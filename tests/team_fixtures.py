"""The machine of docs/team.md on loopback: its commands and files as printed, with folders and ports of a test."""

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from test_registry_servers import DEBIANS, postgresql_server

PAGE = ROOT / "docs/team.md"
BIN = Path(sys.executable).parent
PATH = os.pathsep.join([str(BIN), *map(str, DEBIANS), os.environ["PATH"]])
NOT_RUN = "<!-- not run by a test: "
# What stands in place of systemd and of other users: PostgreSQL knows a user by a variable.
SUDO = '#!/bin/sh\nexport PGUSER="$2"\nshift 2\nexec "$@"\n'
NOTHING = "#!/bin/sh\n"
# An authority of its own, which no other program is to trust, and loopback alone.
CADDY = """{{
	admin off
	skip_install_trust
	auto_https disable_redirects
	default_bind 127.0.0.1
	storage file_system {}
}}
"""
# Where SeaweedFS listens besides, each with one for gRPC at 10,000 more.
WEED = ("master", "volume", "filer", "s3")


def section(title: str) -> list[tuple[str, str]]:
    """The blocks of a section of the page that a test runs: language and text."""
    [text] = re.findall(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text())
    blocks = re.findall(r"(?ms)^(<!--[^\n]*\n)?```(\w+)\n(.*?)^```", text)
    return [(language, block) for said, language, block in blocks if not said.startswith(NOT_RUN)]


def require_programs() -> None:
    """Skip the test where something is not installed."""
    programs = [name for name in ("caddy", "rclone", "initdb", "pg_dump", "weed") if not shutil.which(name, path=PATH)]
    packages = [name for name in ("boto3", "dvc_s3", "flask_wtf", "psycopg") if find_spec(name) is None]
    if missing := programs + packages:
        pytest.skip(
            f"not installed: {', '.join(missing)} (Debian's caddy, rclone and postgresql; the extra team; "
            "weed is of requirements-s3.lock)"
        )


@functools.cache
def ports() -> dict[str, int]:
    """A free port for each server, the same for every machine of a test, below those that the system gives away."""
    found = iter(port for port in range(21_000, 22_000) if _is_free(port) and _is_free(port + 10_000))
    return {name: next(found) for name in ("mlflow", "mlflow tls", "s3 tls", *WEED)}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Machine:
    """A machine that the page is followed on, in the new folder `root`, with a PostgreSQL at `postgresql`."""

    def __init__(self, root: Path, postgresql: int) -> None:
        self.root = root
        self._started: dict[str, subprocess.Popen] = {}
        for folder in ("etc/caddy", "etc/mlflow", "etc/systemd/system", "srv/seaweedfs", "srv/catdog", "shims"):
            (root / folder).mkdir(parents=True)
        (root / "srv/catdog/.venv").symlink_to(BIN.parent)
        for name, text in (("sudo", SUDO), ("chown", NOTHING)):
            shim = root / "shims" / name
            shim.write_text(text)
            shim.chmod(0o755)
        self.authority = root / "caddy/pki/authorities/local/root.crt"
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_", "PG"))}
        self.env = mine | {
            "PATH": f"{root}/shims{os.pathsep}{PATH}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgresql),
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.authority),
            "HOME": str(root),
        }

    def here(self, text: str) -> str:
        """What stands on the page, with the folders, names and ports of this machine."""
        text = re.sub(r"(?<![\w/.~])/(?=(etc|srv|backup)\b)", f"{self.root}/", text)
        known = ports()
        for name in ("mlflow", "s3"):
            text = text.replace(f"{name}.example.org", f"localhost:{known[f'{name} tls']}")
        text = text.replace("127.0.0.1:8333", f"127.0.0.1:{known['s3']}")
        return re.sub(r"127\.0\.0\.1:5000|--port 5000", lambda it: it[0].replace("5000", str(known["mlflow"])), text)

    def follow(self, title: str) -> str:
        """Do what a section says, and give what its commands print."""
        said = ""
        for language, block in section(title):
            text = self.here(block)
            if language == "bash":
                # A heredoc has no such line.
                parts = re.split(r"(?m)^(systemctl .*)\n", text)
                exports = "\n".join(line for line in text.splitlines() if line.startswith("export RCLONE_CONFIG"))
                for part in parts:
                    said += self._systemctl(part) if part.startswith("systemctl ") else self._run(f"{exports}\n{part}")
            elif language in ("ini", "text"):
                path, _, rest = text.partition("\n")
                Path(path.removeprefix("# ")).write_text(rest)
        return said

    def end(self) -> None:
        for name in list(self._started):
            self._stop(name)

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.root, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _systemctl(self, command: str) -> str:
        match command.split()[1:]:
            case ["enable", "--now", name] | ["start", name]:
                self._start(name, *self._service(name))
            case ["reload", "caddy"]:
                file = self.root / "etc/caddy/Caddyfile"
                file.write_text(CADDY.format(self.root / "caddy") + file.read_text())
                self._start("caddy", ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)], {})
            case ["stop", name]:
                self._stop(name)
            case _:
                pytest.fail(f"the page says: {command}")
        return ""

    def _service(self, name: str) -> tuple[list[str], dict[str, str]]:
        """The command of a unit, and the variables that it sets."""
        lines = (self.root / f"etc/systemd/system/{name}.service").read_text().splitlines()
        said = [tuple(line.split("=", 1)) for line in lines if "=" in line]
        variables = [value for key, value in said if key == "Environment"]
        for file in [Path(value) for key, value in said if key == "EnvironmentFile"]:
            variables += file.read_text().splitlines()
        [command] = [shlex.split(value) for key, value in said if key == "ExecStart"]
        if name == "seaweedfs":
            command += [f"-{each}.port={ports()[each]}" for each in WEED]
        return command, dict(line.split("=", 1) for line in variables) | {"PGUSER": "mlflow"}

    def _start(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        log = self.root / f"{name}.log"
        with log.open("a") as said:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.env | variables, stdout=said, stderr=said, start_new_session=True
            )
        self._started[name] = process
        waited = {"seaweedfs": ["s3"], "mlflow": ["mlflow"], "caddy": ["mlflow tls", "s3 tls"]}[name]
        end = time.monotonic() + 120
        while any(_is_free(ports()[each]) for each in waited):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)

    def _stop(self, name: str) -> None:
        process = self._started.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def machine(root: Path) -> Iterator[Machine]:
    """A machine on which nothing of the page is done yet."""
    folder = Path("/tmp") / f"catdog-{root.name}-{os.getpid()}"
    root.mkdir()
    with postgresql_server(folder, root / "postgresql.log") as port:
        made = Machine(root, port)
        try:
            yield made
        finally:
            made.end()
