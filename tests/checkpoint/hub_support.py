"""Repositories to serve, and machines that fetch them: a home folder, an environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_support import DATA, join, split

from hub_server import HubServer, serve_hub

OWNED = "tiny/int4"  # the repository that most tests ask for
SMALL = {
    "generation_config.json": b'{"do_sample": false}\n',
    "special_tokens_map.json": b"{}\n",
    "chat_template.jinja": b"{{ bos_token }}\n",
    "tokenizer_config.json": b'{"bos_token": "<|begin_of_text|>"}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
}
# Files of real repositories that must never be asked for.
OTHERS = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# a model\n",
    "modeling_mobilemoe.py": b"raise SystemExit('code from a file')\n",
    "pytorch_model.bin": b"\x80\x04pickle",
    "extra.safetensors": b"not in any index",
    "original/model.safetensors": b"in a folder",
}
CONFIG = json.loads((DATA / "tiny-int4" / "config.json").read_text())
WEIGHTS = (DATA / "tiny-int4" / "model.safetensors").read_bytes()


def as_json(values: object) -> bytes:
    return json.dumps(values).encode()


def single(**config: Any) -> dict[str, bytes]:
    """Return the files of a repository with one weights file, its config changed by `config`."""
    files = {"config.json": as_json({**CONFIG, **config}), "model.safetensors": WEIGHTS}
    return {**files, **SMALL, **OTHERS}


def sharded() -> dict[str, bytes]:
    """Return the files of the same model in two shards and an index."""
    header, data = split(WEIGHTS)
    names = sorted(header, key=lambda name: header[name]["data_offsets"])
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    files, weight_map = {}, {}
    for number, half in enumerate(halves, start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        weight_map |= dict.fromkeys(half, shard)
        first = header[half[0]]["data_offsets"][0]
        last = header[half[-1]]["data_offsets"][1]
        entries = {
            name: {
                **header[name],
                "data_offsets": [o - first for o in header[name]["data_offsets"]],
            }
            for name in half
        }
        files[shard] = join(entries, data[first:last])
    index = {"metadata": {"total_size": len(data)}, "weight_map": weight_map}
    files |= {"model.safetensors.index.json": as_json(index), "config.json": as_json(CONFIG)}
    return {**files, **SMALL, **OTHERS}


Popen = subprocess.Popen[str]
PROGRAM = [sys.executable, str(Path(__file__).with_name("hub_process.py"))]
# What the library reads when it is used; everything else it reads when it is imported.
LATE_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Call:
    """One call of a function of `mobilemoe.checkpoint.hub`."""

    args: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    name: str = "fetch"


def call(*args: str, **options: Any) -> Call:
    return Call(args, options)


@dataclass(frozen=True)
class Machine:
    """A home folder and the address of a hub, and the processes that wait for jobs there."""

    folder: Path
    endpoint: str
    waiting: dict[str, Popen] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.folder / "hf" / "hub"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a process: nothing of the machine that runs the tests."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **more,
        }

    def job(self, *calls: Call, **env: str) -> str:
        """Return a line for hub_process.py."""
        document = {
            "calls": [vars(one) for one in calls],
            "late_environment": {k: v for k, v in env.items() if k in LATE_VARIABLES},
            "results": str(self.folder / "results.json"),
            "streams": [str(self.folder / name) for name in ("stdout.txt", "stderr.txt")],
        }
        return json.dumps(document)

    def run(self, *calls: Call, **env: str) -> list[dict[str, str]]:
        """Make `calls` in a new process and return what each gave; stdout must stay empty."""
        (self.folder / "results.json").unlink(missing_ok=True)
        status = self.do(self.job(*calls, **env), env)
        assert status == 0, self.stderr()
        assert (self.folder / "stdout.txt").read_text() == ""
        results: list[dict[str, str]] = json.loads((self.folder / "results.json").read_text())
        assert len(results) == len(calls)
        return results

    def do(self, job: str, env: dict[str, str]) -> int:
        """Run `job` in a fork of the process that waits in this environment; return its status."""
        early = {name: value for name, value in env.items() if name not in LATE_VARIABLES}
        environment = self.environment(**early)
        key = json.dumps(environment)
        if key not in self.waiting:
            pipe = subprocess.PIPE
            self.waiting[key] = subprocess.Popen(
                PROGRAM, env=environment, stdin=pipe, stdout=pipe, text=True
            )
        waiting = self.waiting[key]
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write(f"{job}\n")
        waiting.stdin.flush()
        return int(waiting.stdout.readline())

    def at(self, endpoint: str) -> Machine:
        """Return the same machine with another HF_ENDPOINT."""
        return Machine(self.folder, endpoint, self.waiting)

    def clear(self) -> None:
        """Remove everything from the home folder."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def stderr(self) -> str:
        """Return what the last run wrote there."""
        return (self.folder / "stderr.txt").read_text()

    def start(
        self, *calls: Call, prefix: Sequence[str] = (), streams: Any = None, **env: str
    ) -> Popen:
        """Start a process of its own, for tests that kill it or wrap it in another command."""
        command = [*prefix, *PROGRAM, self.job(*calls)]
        return subprocess.Popen(
            command, env=self.environment(**env), cwd=self.folder, text=True, **(streams or {})
        )

    def folder_of(self, *args: str, weights: bool = True, **env: str) -> Path:
        """Fetch what must be there and return the folder."""
        (result,) = self.run(call(*args, weights=weights), **env)
        assert "value" in result, result
        return Path(result["value"])

    def expect_error(self, *args: str, words: Sequence[str] = (), **env: str) -> dict[str, str]:
        """Fetch what must fail and return the error, which has every one of `words`."""
        (result,) = self.run(call(*args), **env)
        return check_error(result, *words)


def check_error(result: dict[str, str], *words: str) -> dict[str, str]:
    """Expect an error with a hint and every one of `words` in message or hint; return it."""
    assert "message" in result, result
    assert result["hint"], result
    for word in words:
        assert word in f"{result['message']}\n{result['hint']}", (word, result)
    return result


@contextmanager
def hub_and_machine(folder: Path) -> Iterator[tuple[HubServer, Machine]]:
    """Run a hub, and a machine that knows its address and has its home in `folder`."""
    with serve_hub() as server:
        machine = Machine(folder, server.url)
        try:
            yield server, machine
        finally:
            for process in machine.waiting.values():
                process.communicate()  # closes its stdin, which ends it
