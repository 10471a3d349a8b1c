"""`mobilemoe plan`: from a device's budget to an architecture, one rule after another."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.info import Subject, describe_config, table
from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.units import parse_bytes, parse_flops

if TYPE_CHECKING:
    from mobilemoe.plan import Budget, Design

PLAN_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe plan --memory 4.75MB --context 1024 --flops 3.2MFLOP\n"
    "  mobilemoe plan --memory 800MB --context 8192 --flops 0.55G --vocab 128256 --json"
)


class KvCache(StrEnum):
    """Number formats of the KV cache."""

    int8 = "int8"
    fp16 = "fp16"
    fp32 = "fp32"


def plan(
    verb: typer.Context,
    memory: Annotated[
        int,
        typer.Option(parser=parse_bytes, metavar="BYTES", help="For INT4 weights and KV cache."),
    ] = "4.75MB",  # type: ignore[assignment]  # typer parses the default like an argument
    context: Annotated[int, typer.Option(min=1, help="Tokens that the KV cache holds.")] = 1024,
    flops: Annotated[
        int,
        typer.Option(parser=parse_flops, metavar="FLOPS", help="Forward pass of one token."),
    ] = "3.2MFLOP",  # type: ignore[assignment]
    vocab: Annotated[int, typer.Option(min=256, help="Vocabulary size.")] = 4096,
    kv: Annotated[KvCache, typer.Option(help="Number format of the KV cache.")] = KvCache.int8,
    as_json: JsonOption = False,
) -> None:
    """Choose an architecture for a memory and compute budget, and say why."""
    if verb.invoked_subcommand is not None:
        return
    from mobilemoe.plan import Budget, design

    budget = Budget(
        memory_bytes=memory,
        context=context,
        flops_per_token=flops,
        vocab_size=vocab,
        kv_format=kv.value,
    )
    result = design(budget)
    if as_json:
        print_json(document(budget, result))
    else:
        _print_design(result)


def document(budget: Budget, result: Design) -> dict[str, Any]:
    """Return the JSON document of a design; `config` is a valid config.json."""
    from dataclasses import asdict

    return {
        "budget": asdict(budget),
        "expert_equivalents": result.expert_equivalents,
        "config": result.config.to_dict(),
        "design": describe_config(result.config),
        "dense_twin": describe_config(result.twin),
        "funnel": [asdict(step) for step in result.funnel],
        "notes": list(result.notes),
    }


def _print_design(result: Design) -> None:
    steps = [(step.step, step.rule, f"{step.left:,}") for step in result.funnel]
    print_table("From the budget to one shape", ("step", "rule", "left"), steps)
    header, rows = table(Subject("the design", result.config))
    print_table("The design", header, rows)
    for note in result.notes:
        print(f"- {note}")
