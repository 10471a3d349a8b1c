"""Nothing in a checkpoint folder is ever run, and nothing that opens one touches the network."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CANARY = "canary.txt"


class Bomb:
    """Unpickling it writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture(params=["tiny-int4", "tiny-bf16"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with good weights and every kind of file that others have executed."""
    folder = tmp_path / "model"
    shutil.copytree(DATA / request.param, folder)
    canary = tmp_path / CANARY
    code = f"import pathlib\npathlib.Path({str(canary)!r}).write_text('ran')\n"
    for name in ("modeling_mobilemoe.py", "configuration_mobilemoe.py", "__init__.py", "setup.py"):
        (folder / name).write_text(code)
    for name in ("pytorch_model.bin", "model.pt", "optimizer.pkl", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    (folder / "evil.pth").write_text(f"import os; os.system('touch {canary}')\n")
    attack = f"{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}"
    (folder / "chat_template.jinja").write_text(attack)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "chat_template": attack,
                "auto_map": {"AutoTokenizer": ["modeling_mobilemoe.T", None]},
                "tokenizer_class": "modeling_mobilemoe.T",
                "tokenizer_file": "/etc/passwd",
            }
        )
    )
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["auto_map"] = {"AutoModelForCausalLM": "modeling_mobilemoe.MobileMoEForCausalLM"}
    path.write_text(json.dumps(values))
    return folder


# Audit events that running foreign code or talking to anybody would raise.
WATCHED = """
import sys
from pathlib import Path

events = []
forbidden = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork",
             "subprocess.Popen", "socket.", "webbrowser.", "urllib.")
folder = Path(sys.argv[1])

def watch(event, arguments):
    if event.startswith(forbidden):
        events.append((event, str(arguments)))
    if event == "exec" and str(folder) in getattr(arguments[0], "co_filename", ""):
        events.append((event, arguments[0].co_filename))

sys.addaudithook(watch)
"""
USES = """
import mobilemoe
from mobilemoe.checkpoint import ChatFormat, convert_checkpoint, open_checkpoint

model = mobilemoe.load(folder, threads=1, context=64)
print(model.logits([1, 2, 3]).shape, len(list(model.generate([1, 2], max_new_tokens=3))))
convert_checkpoint(open_checkpoint(folder), folder.parent / "converted", "int4")
try:
    print(ChatFormat.from_folder(folder).render([{"role": "user", "content": "x"}]))
except mobilemoe.MobileMoEError as error:
    print("refused:", error.message[:60])
assert "transformers" not in sys.modules and "torch" not in sys.modules
print(events)
"""


def test_opening_running_and_converting_runs_nothing_from_the_folder(hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + USES, str(hostile)],
        cwd=hostile,  # a folder on sys.path, as a careless user has it
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "refused:" in done.stdout
    assert not (hostile.parent / CANARY).exists()
    copied = {path.name for path in (hostile.parent / "converted").iterdir()}
    assert not any(name.endswith((".py", ".bin", ".pt", ".pkl", ".pth")) for name in copied)


def test_torch_loads_the_same_folder_without_running_anything(hostile: Path) -> None:
    from mobilemoe.model import MobileMoE

    MobileMoE.from_pretrained(hostile)
    assert not (hostile.parent / CANARY).exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_system_sees_no_connection_and_no_other_program(tmp_path: Path) -> None:
    """The same from outside: what the native module does is seen, too."""
    code = (
        "import mobilemoe; from mobilemoe.checkpoint import open_checkpoint\n"
        f"model = mobilemoe.load({str(DATA / 'tiny-int4')!r}, threads=2, context=64)\n"
        "print(len(list(model.generate([1, 2], max_new_tokens=3))))\n"
    )
    log = tmp_path / "strace.txt"
    command = ["strace", "-f", "-e", "trace=socket,connect,sendto,execve,fork,vfork", "-o", log]
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr and not log.exists():
        pytest.skip("strace may not trace here")
    assert done.stdout == "3\n", done.stderr
    calls = [line for line in log.read_text().splitlines() if "(" in line]
    started = [line for line in calls if "execve(" in line and "= 0" in line]
    assert len(started) == 1, started  # the interpreter itself
    assert [line for line in calls if "execve(" not in line] == []


def imported_names() -> set[str]:
    names = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_no_source_imports_what_could_run_a_file() -> None:
    banned = {"transformers", "pickle", "shelve", "marshal", "dill", "joblib", "runpy", "imp"}
    assert imported_names() & banned == set()


def test_no_source_evaluates_text_or_loads_pickles() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and called(node) in {"eval", "exec", "torch.load", "np.load"}
    ]
    assert wrong == []


def called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return ""


@pytest.mark.skipif(
    os.environ.get("MOBILEMOE_UNPLUGGED") != "1", reason="`make test` unplugs the network"
)
def test_the_network_is_unplugged() -> None:
    """The suite ran until here, and goes on, without one."""
    with socket.socket() as probe, pytest.raises(OSError, match="unreachable"):
        probe.connect(("192.0.2.1", 80))  # an address that documentation may use, nobody's
