"""Section 1: what the files hold, against what the config asks for, to the byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from mobilemoe.checkpoint import Checkpoint
from mobilemoe.checkpoint.hub import cached_sha256
from mobilemoe.checkpoint.shards import INDEX_FILE, SINGLE_FILE
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.verify.files import Weights, row_chunks, rows_of, weight_paths
from mobilemoe.verify.progress import Progress
from mobilemoe.verify.receipt import Check

READ_BYTES = 1 << 24


def config_check(checkpoint: Checkpoint) -> Check:
    """Sum the config up: it has been understood, or there would be no checkpoint."""
    config = checkpoint.config
    detail = f"{summary(config)}; {checkpoint.weight_format.upper()} weights"
    data = {"weight_format": checkpoint.weight_format, "config": config.to_dict()}
    return Check("config", "pass", detail, data)


def summary(config: ModelConfig) -> str:
    """Return the shape of a model in one line."""
    routed = "dense"
    if config.is_moe:
        experts, chosen = config.num_local_experts, config.num_experts_per_tok
        routed = f"{experts} experts of width {config.intermediate_size}, top {chosen}"
    return (
        f"{config.num_hidden_layers} layers of width {config.hidden_size}, {routed}, "
        f"vocabulary {config.vocab_size:,}"
    )


def open_weights(checkpoint: Checkpoint) -> tuple[Weights | None, Check]:
    """Open the weights, comparing every name, dtype and shape with the config."""
    try:
        weights = Weights(checkpoint)
    except MobileMoEError as error:
        return None, Check("tensors", "fail", error.message, {"hint": error.hint})
    count = len(weights.tensors.homes)
    detail = f"{count} tensors, each with the name, dtype and shape that the config asks for"
    return weights, Check("tensors", "pass", detail, {"tensors": count})


def size_check(weights: Weights) -> Check:
    """Compare the bytes of all tensors with what the planner predicts; they must be equal."""
    actual, header = weights.tensors.tensor_bytes, weights.tensors.header_bytes
    planned = weights.config.weight_bytes(weights.weight_format)
    # A BF16 file may keep its routers in float32, which the planner cannot know beforehand.
    wide = sum(2 * weight.size for weight in weights if _wider_than_planned(weights, weight.name))
    note = f" and {wide:,} of float32 routers" if wide else ""
    data = {
        "tensor_bytes": actual,
        "planned_bytes": planned,
        "float32_router_bytes": wide,
        "header_bytes": header,
        "file_bytes": weights.tensors.file_bytes,
    }
    if actual != planned + wide:
        text = f"{actual:,} bytes of tensors; the plan is {planned:,}{note}"
        return Check("bytes", "fail", text, data)
    detail = f"{actual:,} bytes of tensors, as planned{note}; {header:,} of headers"
    return Check("bytes", "pass", detail, data)


def index_checks(weights: Weights, folder: Path) -> list[Check]:
    """Tell of a shard index that states another size: a fact, other writers count differently."""
    if all(file.path.name == SINGLE_FILE for file in weights.tensors.files):
        return []
    metadata = read_json_object(folder / INDEX_FILE).get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = weights.tensors.tensor_bytes
    if type(stated) is not int or stated == actual:
        return []
    detail = f"metadata.total_size is {stated:,}; the tensors have {actual:,} bytes"
    return [Check(INDEX_FILE, "info", detail, {"total_size": stated, "tensor_bytes": actual})]


def _wider_than_planned(weights: Weights, name: str) -> bool:
    router = name.endswith(".router.weight")
    return router and weights.weight_format == "bf16" and weights.tensors.dtype(name) == "F32"


def file_checks(checkpoint: Checkpoint, progress: Progress) -> list[Check]:
    """Hash each weights file, and compare with the hub's hash where it is known."""
    paths = weight_paths(checkpoint)
    total = sum(path.stat().st_size for path in paths)
    checks, before = [], 0
    for path in paths:

        def report(done: int, before: int = before) -> None:
            progress("hashing files", before + done, total)

        size, digest = sha256_of_file(path, report)
        before += size
        checks.append(_file_check(path, size, digest))
    return checks


def sha256_of_file(path: Path, report: Callable[[int], None]) -> tuple[int, str]:
    """Return size and SHA-256 of a file, telling `report` how many bytes are done."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return done, digest.hexdigest()


def _file_check(path: Path, size: int, digest: str) -> Check:
    known = cached_sha256(path)
    data = {"bytes": size, "sha256": digest, "hub_sha256": known}
    detail = f"{size:,} bytes; sha256 {digest}"
    if known is None:
        return Check(path.name, "info", detail, data)
    if known.lower() != digest:
        return Check(path.name, "fail", f"{detail}; the hub has {known}", data)
    return Check(path.name, "pass", f"{detail}, as the hub has it", data)


def model_hash(weights: Weights, progress: Progress) -> Check:
    """Hash the config and every tensor in the config's order.

    It is the same for the same model however its files are cut, padded or ordered.
    """
    head = {"config": weights.config.to_dict(), "format": weights.weight_format}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    entries, done = weights.tensors.entries, 0
    for weight in weights:
        for name in weights.names(weight):
            entry = entries[name]
            digest.update(json.dumps([name, entry.dtype, entry.shape]).encode())
            for start, stop in row_chunks(rows_of(weight), entry.shape[-1]):
                rows = weights.tensors.rows(name, start, stop)
                digest.update(rows.data)
                done += rows.nbytes
                progress("hashing the model", done, weights.tensors.tensor_bytes)
    value = digest.hexdigest()
    return Check("model", "info", f"sha256 {value} of config and tensors", {"sha256": value})
