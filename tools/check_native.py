"""Check kernels and teams of threads where the tests of the package cannot.

    python tools/check_native.py sanitizers   # addresses, undefined behaviour, threads
    python tools/check_native.py arm          # 64-bit ARM: CPUs with and without each instruction,
                                              # then addresses and undefined behaviour there

Builds native/check and runs it: every function of every table that the CPU runs, over odd sizes
and numbers that are none, against the portable one; then feed-forward and attention of small
models, whose bits must not depend on the number of threads. The exit status is 1 for a mismatch
or a report of a sanitizer, 2 when something is missing here. Needs only the standard library,
CMake and a C++20 compiler; CXX, when set, is the only one tried for this machine.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz_native import cmake

ROOT = Path(__file__).resolve().parents[1]
CROSS_COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"
ARM_LIBRARIES = "/usr/aarch64-linux-gnu"  # where the packages of the cross-compiler put them
SANITIZERS = ("address,undefined,float-cast-overflow", "thread")
THREADS = 3
ARM_SYSTEM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
# CPUs of the emulator and the tables that they run, best first; only the best one is checked.
ARM_CPUS = {
    "cortex-a72": ["portable"],
    "neoverse-n1": ["neon-dotprod", "portable"],
    "max": ["neon-i8mm", "neon-dotprod", "portable"],
}


class MissingToolError(Exception):
    """Something that a check needs is not installed; the message says what and how to get it."""


@dataclass(frozen=True)
class Run:
    """One run of the program: its command, and what it printed."""

    command: list[str]
    output: str
    good: bool


def main() -> int:
    """Build and run what was asked for; print every line of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["sanitizers", "arm"])
    try:
        if parser.parse_args().what == "sanitizers":
            runs = check_sanitizers()
        else:
            runs = check_arm() + check_arm_sanitized()
    except MissingToolError as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    for run in runs:
        print(f"== {' '.join(run.command)}\n{run.output}")
    return 0 if all(run.good for run in runs) else 1


def check_sanitizers(*options: str) -> list[Run]:
    """Run every table under the sanitizers of addresses and undefined behaviour, and of threads.

    Teams of threads run the best table under both. `options` go to the program: `--few` for
    fewer sizes.

    Raises:
        MissingToolError: if no compiler here has them.
    """
    compiler = sanitizing_compiler()
    programs = [
        build(kind.partition(",")[0], compiler, f"-DMOBILEMOE_SANITIZERS={kind}")
        for kind in SANITIZERS
    ]
    tables = execute([str(programs[0]), "--list"]).output.split()
    commands = [[str(programs[0]), *options, table] for table in tables]
    commands += [[str(program), "--team", *options, tables[0]] for program in programs]
    commands.append([str(programs[1]), "--threads", str(THREADS)])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(execute, commands))


def check_arm() -> list[Run]:
    """Run the best table of each of `ARM_CPUS` in an emulator, and see that it is the best.

    Raises:
        MissingToolError: without the cross-compiler or the emulator.
    """
    compiler, emulator = arm_tools()
    program = build("arm", compiler, *ARM_SYSTEM)
    runs = []
    for cpu, tables in ARM_CPUS.items():
        command = [emulator, "-cpu", cpu, str(program)]
        listed = execute([*command, "--list"])
        runs.append(Run(listed.command, listed.output, listed.output.split() == tables))
        if tables[0] != "portable":
            runs.append(execute([*command, "--few", tables[0]]))
    runs.append(execute([*command, "--team", "--few", tables[0]]))
    return runs


def check_arm_sanitized() -> list[Run]:
    """Run both ARM tables under the sanitizers of addresses and undefined behaviour.

    Raises:
        MissingToolError: without the cross-compiler or the emulator.
    """
    compiler, emulator = arm_tools()
    program = build("arm-address", compiler, *ARM_SYSTEM, f"-DMOBILEMOE_SANITIZERS={SANITIZERS[0]}")
    # The search for leaks needs a way to trace processes that the emulator lacks.
    options = {"ASAN_OPTIONS": "detect_leaks=0"}
    command = [emulator, "-L", ARM_LIBRARIES, "-cpu", "max", str(program), "--few"]
    return [execute([*command, table], options) for table in ARM_CPUS["max"][:2]]


@functools.cache
def sanitizing_compiler() -> str:
    """Return a compiler whose programs run under every sanitizer that is used here.

    Raises:
        MissingToolError: if there is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["c++", "g++", "clang++"]:
        compiler = shutil.which(name)
        if compiler and all(runs_sanitized(compiler, kind) for kind in SANITIZERS):
            return compiler
    raise MissingToolError(
        "no C++ compiler here runs programs under the address, undefined and thread sanitizers\n"
        "hint: install g++ with libasan, libubsan and libtsan, or clang with libclang-rt-dev"
    )


def runs_sanitized(compiler: str, kind: str) -> bool:
    """Whether `compiler` makes a program with this sanitizer that runs."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "probe")
        command = [compiler, f"-fsanitize={kind}", "-x", "c++", "-", "-o", program]
        made = subprocess.run(command, input=b"int main() {}", capture_output=True)
        if made.returncode != 0:
            return False
        return subprocess.run([program], capture_output=True).returncode == 0


def arm_tools() -> tuple[str, str]:
    """Return the cross-compiler and the emulator.

    Raises:
        MissingToolError: naming the Debian packages of what is not there.
    """
    packages = {CROSS_COMPILER: "g++-aarch64-linux-gnu", EMULATOR: "qemu-user"}
    absent = [name for name in packages if shutil.which(name) is None]
    if absent:
        raise MissingToolError(
            f"{' and '.join(absent)} missing\n"
            f"hint: apt-get install {' '.join(packages[name] for name in absent)}"
        )
    return CROSS_COMPILER, EMULATOR


def build(name: str, compiler: str, *options: str) -> Path:
    """Compile the program into build/check/`name` and return its path.

    Raises:
        SystemExit: with the compiler's own words if that fails.
    """
    folder = ROOT / "build" / "check" / name
    configured = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DMOBILEMOE_CHECK=ON", *options]
    for step in (
        [cmake(), "-S", str(ROOT), "-B", str(folder), "-G", "Unix Makefiles", *configured],
        [cmake(), "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(step)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return folder / "native" / "check" / "kernel_check"


def execute(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Run the program and return all that it printed, without the folders of this machine."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    )
    shown = [part.replace(f"{ROOT}/", "") for part in command]
    return Run(shown, (done.stdout + done.stderr).rstrip(), done.returncode == 0)


if __name__ == "__main__":
    sys.exit(main())
