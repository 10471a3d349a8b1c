"""What a comparison with llama.cpp needs: its Python package, and the model as a GGUF file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.errors import MobileMoEError
from mobilemoe.export.gguf import export_gguf, read_fingerprint
from mobilemoe.profile.measure import Progress


def require_llama_cpp() -> None:
    """Check that llama-cpp-python and gguf are installed.

    Raises:
        MobileMoEError: naming the one that is missing.
    """
    for module, package in (("llama_cpp", "llama-cpp-python"), ("gguf", "gguf")):
        if find_spec(module) is None:
            raise MobileMoEError(
                f"--vs llama.cpp needs {package}, which is not installed",
                hint='pip install "mobilemoe[bench]"',
            )


def gguf_for(checkpoint: Checkpoint, path: Path, progress: Progress) -> Path:
    """Return `path` with `checkpoint` as GGUF in it; written unless it is there already.

    Raises:
        MobileMoEError: as `export_gguf`, and if a file of something else is at `path`.
    """
    if path.exists():
        if read_fingerprint(path) != fingerprint(checkpoint):
            raise MobileMoEError(
                f"{path} was not made of {checkpoint.folder}",
                hint="give another path to --gguf, or remove the file",
            )
        return path
    progress(f"writing {path.name} for llama.cpp")
    export = export_gguf(checkpoint, path)
    if export.expert_rms_error is not None:
        progress(f"rounding the experts to Q4_0 changed them by {export.expert_rms_error:.1%} RMS")
    return path
