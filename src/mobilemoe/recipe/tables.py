"""The tables of a recipe file: which keys there are, and how they become a `Recipe`.

A key is a word of the file ("dispatch"); a field is what it becomes (`capacity_factor` None).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe.checks import check_name, field_types, nearest, require, show
from mobilemoe.recipe.recipe import Recipe
from mobilemoe.recipe.schema import Guard, Optimizer, Parallel, RoutingLosses, Run, Source
from mobilemoe.recipe.stage import STAGE_NAMES, Stage

Table = Mapping[str, Any]

# Tables that are one dataclass each. The first two decide what is trained and are written out
# in full; of the others a key, or all, may be left out.
TRAINED: Mapping[str, type] = {"optimizer": Optimizer, "routing": RoutingLosses}
RUNNING: Mapping[str, type] = {"run": Run, "guard": Guard, "parallel": Parallel}
TOP_KEYS = ("name", "model", "seed", "tokenizer", *TRAINED, "sources", *STAGE_NAMES, *RUNNING)

DISPATCHES = ("drop-and-pad", "dropless")
QUANTIZATIONS = {"none": False, "int4": True}
ACTIVATIONS = {"float": False, "int8": True}
STAGE_KEYS = (
    *("purpose", "for_domains", "tokens", "context", "batch_tokens", "mixture"),
    *("lr", "schedule", "warmup_steps", "final_lr"),
    *("dispatch", "capacity_factor", "quantization", "activations"),
)


def keys_of(part: type) -> tuple[str, ...]:
    """Return the keys of a table that becomes the dataclass `part`; its name is the table's."""
    named_by_table = ("name",) if part is Source else ()
    return tuple(field.name for field in fields(part) if field.name not in named_by_table)


def required_keys(part: type) -> tuple[str, ...]:
    """Return the keys of `part` that have no default."""
    return tuple(field.name for field in fields(part) if field.default is MISSING)


def recipe_from(content: Table) -> Recipe:
    """Return the recipe of a file's content.

    Raises:
        MobileMoEError: naming the key, its value, what is allowed and a hint.
    """
    check_keys("", content, TOP_KEYS, [key for key in TOP_KEYS if key not in RUNNING])
    parts = {
        name: _part(name, content[name], part, keys_of(part)) for name, part in TRAINED.items()
    }
    parts |= {name: _part(name, content.get(name, {}), part, ()) for name, part in RUNNING.items()}
    return Recipe(
        name=content["name"],
        model=model_from(content["model"]),
        seed=content["seed"],
        tokenizer=content["tokenizer"],
        sources=_sources(content["sources"]),
        stages=tuple(_stage(name, content[name]) for name in STAGE_NAMES),
        **parts,
    )


def check_keys(table: str, value: object, known: Sequence[str], required: Sequence[str]) -> None:
    """Refuse what is not a table, an unknown key, and a table that lacks a required one.

    Raises:
        MobileMoEError: with the nearest known spelling as its hint.
    """
    where = f"[{table}]" if table else "the recipe"
    if not isinstance(value, Mapping):
        raise MobileMoEError(f"{table} is {show(value)}; allowed: a table, [{table}]")
    for key in value:
        if key not in known:
            kind = "table" if isinstance(value[key], Mapping) else "key"
            raise MobileMoEError(f"unknown {kind} {key!r} in {where}", hint=nearest(key, known))
    missing = [key for key in required if key not in value]
    if missing:
        raise MobileMoEError(
            f"{where} lacks {', '.join(missing)}",
            hint="what decides the weights has no default: write it out",
        )


def model_from(value: object) -> ModelConfig:
    """Return the shape of a preset's name or of a [model] table with every field.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """
    if isinstance(value, str):
        return ModelConfig.preset(value)
    if not isinstance(value, Mapping):
        raise MobileMoEError(
            f"model is {show(value)}; allowed: a preset's name or a table, [model]"
        )
    keys = keys_of(ModelConfig)
    check_keys("model", value, keys, keys)
    try:
        return ModelConfig(**_arguments(ModelConfig, value))
    except MobileMoEError as error:  # its words are config.json's
        message = error.message.replace("config: ", "model.", 1)
        raise MobileMoEError(message, hint="correct it in [model]") from error


def _part(table: str, value: Any, part: type, required: tuple[str, ...]) -> Any:
    check_keys(table, value, keys_of(part), required)
    return part(**_arguments(part, value))


def _sources(value: object) -> dict[str, Source]:
    if not isinstance(value, Mapping):
        raise MobileMoEError(f"sources is {show(value)}; allowed: a table, [sources.NAME] each")
    found = {}
    for name, table in value.items():
        check_name("a source's name", name)
        required = [key for key in required_keys(Source) if key != "name"]
        path = f"sources.{name}"
        check_keys(path, table, keys_of(Source), required)
        _check_split(path, table)
        found[name] = Source(name=name, **_arguments(Source, table))
    return found


def _check_split(path: str, table: Table) -> None:
    """Refuse a data set of the hub without a split, and any other source with one."""
    is_hub = table["kind"] == "hf"
    if is_hub and "split" not in table:
        raise MobileMoEError(f"[{path}] lacks split", hint='most data sets have split = "train"')
    allowed = f"left out with kind {show(table['kind'])}; it belongs to 'hf'"
    require(is_hub or "split" not in table, f"{path}.split", table.get("split"), allowed)


def _stage(name: str, value: Any) -> Stage:
    required = tuple(key for key in STAGE_KEYS if key != "capacity_factor")
    check_keys(name, value, STAGE_KEYS, required)
    translated = {
        "name": name,
        "capacity_factor": _capacity(name, value),
        "fake_quant": _choice(f"{name}.quantization", value["quantization"], QUANTIZATIONS),
        "int8_activations": _choice(f"{name}.activations", value["activations"], ACTIVATIONS),
    }
    same = {key: value[key] for key in STAGE_KEYS if key in keys_of(Stage) and key in value}
    return Stage(**(_arguments(Stage, same) | translated))


def _capacity(name: str, table: Table) -> Any:
    """Return the capacity factor of drop-and-pad, None for dropless."""
    path, dispatch = f"{name}.capacity_factor", table["dispatch"]
    is_padded = dispatch == "drop-and-pad"
    allowed = " or ".join(map(repr, DISPATCHES))
    require(dispatch in DISPATCHES, f"{name}.dispatch", dispatch, allowed)
    if is_padded and "capacity_factor" not in table:
        raise MobileMoEError(
            f"[{name}] lacks capacity_factor", hint="drop-and-pad needs one; published: 1.5"
        )
    hint = f"remove it (in an override: {path}=); dropless has no capacity"
    is_used = is_padded or "capacity_factor" not in table
    require(is_used, path, table.get("capacity_factor"), "left out with dropless", hint)
    return table.get("capacity_factor")


def _choice(path: str, value: object, choices: Mapping[str, bool]) -> bool:
    known = isinstance(value, str) and value in choices
    require(known, path, value, " or ".join(map(repr, choices)))
    return choices[str(value)]


def _arguments(part: type, table: Table) -> dict[str, Any]:
    """Return the values of `table` as `part` holds them: a tuple for a list."""
    lists = {key for key, hint in field_types(part).items() if str(hint).startswith("tuple")}
    return {
        key: tuple(value) if key in lists and isinstance(value, list) else value
        for key, value in table.items()
    }
