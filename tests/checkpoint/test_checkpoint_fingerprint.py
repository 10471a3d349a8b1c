"""Equal content, equal digits, wherever it lies; other weights, other digits."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mobilemoe import MobileMoEError, ModelConfig
from mobilemoe.checkpoint import init_checkpoint, open_checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint

DATA = Path(__file__).parents[1] / "data"


def test_a_copy_has_the_same_digits(tmp_path):
    shutil.copytree(DATA / "tiny-int4", tmp_path / "copy")
    digits = fingerprint(open_checkpoint(DATA / "tiny-int4"))
    assert re.fullmatch("[0-9a-f]{12}", digits)
    assert fingerprint(open_checkpoint(tmp_path / "copy")) == digits


def test_other_weights_and_other_configs_have_others(tmp_path):
    nano = ModelConfig.preset("nano")
    seen = {fingerprint(init_checkpoint(tmp_path / f"{i}", nano, "int4", i)) for i in range(2)}
    for name in ("tiny-int4", "tiny-int4-hd64", "tiny-bf16"):
        seen.add(fingerprint(open_checkpoint(DATA / name)))
    assert len(seen) == 5
    config = tmp_path / "0" / "config.json"
    config.write_text(config.read_text().replace("1e-05", "2e-05"))
    seen.add(fingerprint(open_checkpoint(tmp_path / "0")))
    assert len(seen) == 6


@pytest.mark.parametrize("where", [0, -1])
def test_both_ends_of_a_file_count(tmp_path, where):
    checkpoint = init_checkpoint(tmp_path / "m", ModelConfig.preset("nano"), "int4", 0)
    before = fingerprint(checkpoint)
    path = tmp_path / "m" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert fingerprint(checkpoint) != before


def test_a_missing_file_is_an_error(tmp_path):
    shutil.copytree(DATA / "tiny-int4", tmp_path / "copy")
    checkpoint = open_checkpoint(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(MobileMoEError, match="cannot read"):
        fingerprint(checkpoint)
