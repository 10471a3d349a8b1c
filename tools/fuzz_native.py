"""Fuzz the native reader of model files: build it under sanitizers, run it, report one JSON line.

    python tools/fuzz_native.py --seconds 60
    python tools/fuzz_native.py --inputs 5000000 --output benchmarks/results/fuzz_native.json

With a clang that has libFuzzer, that is the engine, guided by coverage; with any other compiler
it is the loop in native/fuzz/driver.cc, guided by the messages. Both use the same mutator and
the same target. A finding is a crash, a report of a sanitizer, an input of more than 10 seconds,
one allocation above 40 MB, a leak, or an acceptance in which the tensors do not share the bytes
of the files exactly: the exit status is 1 then, and the input is kept. Needs only the standard
library, CMake and a C++20 compiler; CXX, when set, is the only compiler tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MB = 40  # of one allocation
# A short quarantine and no stacks of allocations: twice as fast, and a rerun of the input that
# was kept, without these options, tells the rest.
ASAN_OPTIONS = f"max_allocation_size_mb={LIMIT_MB}:malloc_context_size=0:quarantine_size_mb=8"
LIBFUZZER_OPTIONS = (
    "-max_len=65536",
    "-len_control=0",
    "-timeout=10",
    "-rss_limit_mb=2048",
    f"-malloc_limit_mb={LIMIT_MB}",
    "-print_final_stats=1",
)


@dataclass(frozen=True)
class Build:
    """A fuzzer that is ready to run."""

    program: Path
    engine: str
    compiler: str
    sanitizers: list[str]


def main() -> int:
    """Build, run, report; the status is 1 for a finding."""
    arguments = parse_arguments()
    build = build_fuzzer(arguments.build)
    started = time.monotonic()
    done = run_fuzzer(build, arguments)
    seconds = time.monotonic() - started
    result = summary(build, done, seconds)
    if done.returncode != 0:
        print(*done.stderr.splitlines()[-60:], sep="\n", file=sys.stderr)
    if arguments.output:
        record = {**machine(), **result, "log": notable_lines(done.stderr)}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(result))
    return min(done.returncode, 1) if done.returncode >= 0 else 1


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="run this long (default 60)")
    parser.add_argument("--inputs", type=int, help="run this many inputs, however long it takes")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same inputs")
    parser.add_argument("--output", type=Path, help="also record the run in this file")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz", help="build folder")
    return parser.parse_args()


def build_fuzzer(folder: Path) -> Build:
    """Configure and compile with the first compiler that can.

    Raises:
        SystemExit: with the compiler's own words if none can.
    """
    problems = []
    for compiler in compilers():
        target = folder / Path(compiler).name
        options = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DMOBILEMOE_FUZZ=ON"]
        steps = (
            [cmake(), "-S", str(ROOT), "-B", str(target), "-G", "Unix Makefiles", *options],
            [cmake(), "--build", str(target), "--parallel", "2"],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode != 0:
                problems.append(f"{' '.join(step)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
                break
        else:
            return described(target, compiler)
    sys.exit("\n".join(problems) + "\nerror: no compiler here can build the fuzzer")


def compilers() -> Iterator[str]:
    """Yield the compilers to try, those with libFuzzer before others."""
    chosen = os.environ.get("CXX")
    names = [chosen] if chosen else ["clang++", *sorted_clangs(), "c++", "g++"]
    found = [path for path in map(shutil.which, names) if path]
    yield from sorted(dict.fromkeys(found), key=lambda path: not has_libfuzzer(path))


def sorted_clangs() -> list[str]:
    """Return the names of versioned clangs, newest first."""
    return [f"clang++-{version}" for version in range(24, 13, -1)]


def has_libfuzzer(compiler: str) -> bool:
    """Whether `compiler` links a libFuzzer under both sanitizers."""
    code = 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
    options = ["-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", os.devnull]
    return (
        subprocess.run([compiler, *options], input=code.encode(), capture_output=True).returncode
        == 0
    )


def cmake() -> str:
    """Return the CMake to use: of this Python's environment, or of the system."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("cmake", path=places)
    return found or sys.exit("error: cmake is missing\nhint: pip install cmake")


def described(folder: Path, compiler: str) -> Build:
    """Return what CMake decided."""
    cache = (folder / "CMakeCache.txt").read_text()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    return Build(
        folder / "native" / "fuzz" / "fuzz_model_file",
        "libFuzzer" if "HAS_LIBFUZZER:INTERNAL=1" in cache else "native/fuzz/driver.cc",
        version.partition("\n")[0],
        ["address", "undefined"] if "HAS_SANITIZERS:INTERNAL=1" in cache else [],
    )


def run_fuzzer(build: Build, arguments: argparse.Namespace) -> subprocess.CompletedProcess[str]:
    """Run until the time or the inputs are used up, or something is found."""
    limit = (
        f"-runs={arguments.inputs}" if arguments.inputs else f"-max_total_time={arguments.seconds}"
    )
    kept = f"-artifact_prefix={build.program.parent}/"
    command = [str(build.program), limit, f"-seed={arguments.seed}", kept]
    if build.engine == "libFuzzer":
        command += LIBFUZZER_OPTIONS
    environment = {**os.environ, "ASAN_OPTIONS": ASAN_OPTIONS}
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment
    )


def summary(build: Build, done: subprocess.CompletedProcess[str], seconds: float) -> dict[str, Any]:
    """Return the run in numbers."""
    log = done.stderr
    counts = [
        int(n) for n in re.findall(r"^#(\d+)\s|executed_units: (\d+)", log, re.M) for n in n if n
    ]
    inputs = max(counts, default=0)
    result: dict[str, Any] = {
        "inputs": inputs,
        "seconds": round(seconds, 1),
        "inputs_per_second": round(inputs / seconds),
        "engine": build.engine,
        "compiler": build.compiler,
        "sanitizers": build.sanitizers,
        "findings": int(done.returncode != 0),
    }
    for name in ("accepted", "distinct_outcomes"):
        if found := re.search(rf"stat::{name}: (\d+)", log):
            result[name] = int(found[1])
    if found := re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", log):
        result |= dict(zip(("edges", "features", "corpus"), map(int, found[-1]), strict=True))
    return result


def notable_lines(log: str) -> list[str]:
    """Return the first and last lines of the log and its statistics, without the long middle.

    Paths are those in the repository, wherever it lies.
    """
    log = log.replace(f"{ROOT}/", "")
    lines = [line for line in log.splitlines() if not re.match(r"#\d+\s+(REDUCE|NEW|RELOAD)", line)]
    return lines if len(lines) <= 60 else [*lines[:10], "...", *lines[-49:]]


def machine() -> dict[str, Any]:
    """Return when and where this ran."""
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.*)", cpu.read_text()) if cpu.exists() else []
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{models[0] if models else platform.processor()}, {platform.system()}",
    }


if __name__ == "__main__":
    sys.exit(main())
