"""A receipt where a part of the installation is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from verify_support import DATA

CODE = """
import json, sys
sys.modules[{missing!r}] = None
from mobilemoe.verify import verify
print(json.dumps(verify({path!r}, tokens=8).to_dict()))
"""


def receipt_without(missing: str) -> dict:
    code = CODE.format(missing=missing, path=str(DATA / "tiny-int4"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def skipped_pairs(document: dict) -> list[bool]:
    return [pair["skipped"] is not None for pair in document["parity"]["pairs"]]


def test_without_torch_the_rest_is_compared():
    document = receipt_without("torch")
    assert document["passed"] is True
    reason = "torch is not installed: pip install 'mobilemoe[train]'"
    assert document["parity"]["columns"] == {
        "torch fp32": reason,
        "torch fake-quantised": reason,
        "file": None,
        "engine exact": None,
        "engine int8": None,
    }
    assert skipped_pairs(document) == [True, True, False, False]


def test_without_the_native_engine_the_rest_is_compared():
    document = receipt_without("mobilemoe.engine._native")
    assert document["passed"] is True
    assert document["parity"]["columns"]["engine exact"].startswith("the native engine cannot be")
    assert document["parity"]["kernels"] is None
    assert skipped_pairs(document) == [True, False, True, True]


@pytest.mark.parametrize("missing", ["torch", "mobilemoe.engine._native"])
def test_quick_needs_neither(missing):
    code = CODE.format(missing=missing, path=str(DATA / "tiny-int4"))
    quick = code.replace("tokens=8", "quick=True")
    done = subprocess.run([sys.executable, "-c", quick], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["passed"] is True
