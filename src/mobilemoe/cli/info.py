"""`mobilemoe info`: what a model is, in plain words or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.units import amount, count
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError

INFO_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe info nano\n"
    "  mobilemoe info S --json\n"
    "  mobilemoe info path/to/checkpoint\n"
    "  mobilemoe info path/to/config.json"
)
SHAPE_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "intermediate_size_mlp",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_local_experts",
    "num_experts_per_tok",
    "interleave_moe_layer_step",
    "max_position_embeddings",
)
CONTEXTS = (256, 1024, 4096, 8192)


@dataclass(frozen=True)
class Subject:
    """What is described: a checkpoint on disk (format and size known) or a preset."""

    name: str
    config: ModelConfig
    weight_format: str | None = None
    file_bytes: int | None = None


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PATH|PRESET",
            help="A checkpoint folder, a config.json, a hub id, or a preset's name.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Explain a model: what is routed, what is always on, what memory it takes."""
    subject = find_subject(model)
    if as_json:
        print_json(describe(subject))
    else:
        kind = "mixture of experts" if subject.config.is_moe else "dense model"
        header, rows = table(subject)
        print_table(f"{subject.name}: {kind}", header, rows)


def find_subject(name: str) -> Subject:
    """Return the checkpoint at `name`, a folder, a config.json or a hub id, or that preset.

    Of a model of the hub only its small files are fetched.

    Raises:
        MobileMoEError: if there is neither, or the checkpoint is not one of ours.
    """
    from mobilemoe.checkpoint import open_checkpoint
    from mobilemoe.checkpoint.config_file import CONFIG_FILE, read_config
    from mobilemoe.checkpoint.hub import fetch, is_hub_id
    from mobilemoe.checkpoint.shipped import is_shipped

    if is_hub_id(name):
        config, weight_format = read_config(fetch(name, weights=False) / CONFIG_FILE)
        return Subject(name, config, weight_format)
    if Path(name).suffix == ".json" and Path(name).is_file():
        return Subject(name, read_config(Path(name))[0])
    if not Path(name).exists() and not is_shipped(name):
        return Subject(name, _preset(name))
    checkpoint = open_checkpoint(name)
    try:
        size = sum(path.stat().st_size for path in checkpoint.shards)
    except OSError as error:
        raise MobileMoEError(
            f"{name} has a config.json but no readable model.safetensors",
            hint="is the download complete?",
        ) from error
    return Subject(
        checkpoint.folder.resolve().name, checkpoint.config, checkpoint.weight_format, size
    )


def _preset(name: str) -> ModelConfig:
    from mobilemoe.checkpoint.place import hint_for
    from mobilemoe.presets import PRESETS

    try:
        return ModelConfig.preset(name)
    except MobileMoEError as error:
        raise MobileMoEError(
            f"{name!r} is neither a checkpoint folder nor a preset",
            hint=hint_for(name, f"presets are {', '.join(PRESETS)}"),
        ) from error


def describe(subject: Subject) -> dict[str, Any]:
    """Return the JSON document of `subject`."""
    config = subject.config
    return {
        "name": subject.name,
        "weight_format": subject.weight_format,
        "file_bytes": subject.file_bytes,
        **describe_config(config),
        "dense_twin": describe_config(config.dense_twin()) if config.is_moe else None,
    }


def describe_config(config: ModelConfig) -> dict[str, Any]:
    """Return sizes, costs and shape of `config`."""
    return {
        "total_params": config.total_params,
        "active_params": config.active_params,
        "weight_bytes": {name: config.weight_bytes(name) for name in ("bf16", "int4")},
        "kv_bytes_per_token": {
            name: config.kv_bytes_per_token(name) for name in ("int8", "fp16", "fp32")
        },
        "flops_per_token": config.flops_per_token,
        "shape": {key: getattr(config, key) for key in SHAPE_KEYS},
    }


def table(subject: Subject) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of the text form; a mixture has its dense twin beside it."""
    configs = [subject.config]
    header = ["", subject.name]
    if subject.config.is_moe:
        configs.append(subject.config.dense_twin())
        header.append("dense twin of equal INT4 size")
    columns = [_column(config) for config in configs]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    if subject.file_bytes is not None:
        file = f"{amount(subject.file_bytes, 'B')} ({subject.weight_format})"
        rows.append(("file on disk", file, *[""] * (len(configs) - 1)))
    return tuple(header), rows


def _column(config: ModelConfig) -> dict[str, str]:
    """Return what the table says about one model, by row."""
    share = config.active_params / config.total_params
    heads = f"{config.num_attention_heads} heads of {config.head_dim}"
    kv = config.kv_bytes_per_token("int8")
    column = {
        "parameters": count(config.total_params),
        "used per token": f"{count(config.active_params)} ({share:.0%})",
        "compute per token": amount(config.flops_per_token, "FLOP"),
        "layers": f"{config.num_hidden_layers} of width {config.hidden_size}",
        "attention": f"{heads}, {config.num_key_value_heads} for keys and values",
        "routed": _routed(config),
        "always on": _always_on(config),
        "weights in INT4": amount(config.weight_bytes("int4"), "B"),
        "weights in BF16": amount(config.weight_bytes("bf16"), "B"),
        "INT8 KV cache per token": amount(kv, "B"),
    }
    for context in _contexts(config):
        memory = config.weight_bytes("int4") + context * kv
        column[f"memory at {context:,} tokens"] = amount(memory, "B")
    return column


def _routed(config: ModelConfig) -> str:
    if not config.is_moe:
        return "nothing"
    layers = sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))
    return (
        f"{config.num_local_experts} experts of width {config.intermediate_size} in each of "
        f"{layers} layers; a token uses the best {config.num_experts_per_tok}"
    )


def _always_on(config: ModelConfig) -> str:
    width = config.intermediate_size_mlp
    if not config.is_moe:
        return f"everything: a feed-forward of width {width} in each layer"
    shared = f"a shared expert of width {width} in each layer, " if width else ""
    return f"{shared}attention, the router, the embedding of {config.vocab_size:,} tokens"


def _contexts(config: ModelConfig) -> list[int]:
    limit = config.max_position_embeddings
    return sorted({*(context for context in CONTEXTS if context < limit), limit})
