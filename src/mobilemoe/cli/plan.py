"""`mobilemoe plan`: from the limits of a device and a training budget to the model to train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.plan_options import (
    Asked,
    ContextOption,
    DecodeOption,
    DepthOption,
    DeviceOption,
    ExtrapolateOption,
    FlopsOption,
    GranularityOption,
    KvCache,
    KvOption,
    LawOption,
    MemoryOption,
    Prefer,
    PreferOption,
    PromptOption,
    SharedOption,
    ThreadsOption,
    TokensOption,
    TrainFlopsOption,
    TtftOption,
    VocabOption,
    refuse_unused,
)
from mobilemoe.cli.plan_pictures import HtmlOption, PicturesOption, write_pictures
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.plan import MoELaw, Plan

PLAN_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe plan --memory 3GB --device galaxy-s25 --decode-tok-s 50 --train-flops 1e22\n"
    "  mobilemoe plan --memory 5GB --flops 1.1G --tokens 300B --recipe my.toml\n"
    "  mobilemoe plan --memory 1GB --train-flops 1e21 --html plan.html --pictures figures\n"
    "  mobilemoe plan --memory 4.75MB --context 1024 --flops 3.2MFLOP --json"
)


def plan(
    verb: typer.Context,
    memory: MemoryOption = None,
    context: ContextOption = None,
    flops: FlopsOption = None,
    vocab: VocabOption = None,
    kv: KvOption = KvCache.int8,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    decode_tok_s: DecodeOption = None,
    decode_depth: DepthOption = None,
    ttft: TtftOption = None,
    prompt: PromptOption = None,
    train_flops: TrainFlopsOption = None,
    tokens: TokensOption = None,
    granularity: GranularityOption = None,
    no_shared_expert: SharedOption = False,
    extrapolate: ExtrapolateOption = False,
    prefer: PreferOption = Prefer.loss,
    law: LawOption = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a recipe that trains the model.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model's config.json.")
    ] = None,
    html: HtmlOption = None,
    pictures: PicturesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the model to train for a device and a training budget, and say why."""
    refuse_unused(verb, ttft, prompt)
    if verb.invoked_subcommand is not None:
        return
    from mobilemoe.plan import plan as make_plan

    others = {
        "kv_format": kv.value,
        "threads": threads,
        "decode_tok_s": decode_tok_s,
        "decode_depth": decode_depth,
        "ttft_s": ttft,
        "prompt_tokens": prompt or 1024,
        "train_flops": train_flops,
        "tokens": tokens,
        "extrapolate": extrapolate,
        "prefer": prefer.value,
    }
    asked = Asked(memory, context, flops, vocab, device, granularity, no_shared_expert, others)
    its_law = _law(law)
    result = make_plan(asked.constraints(), its_law)
    _write(result, recipe, config)
    write_pictures(result, its_law, html, pictures)
    _show(result, as_json)


def _law(path: Path | None) -> MoELaw | None:
    """Return the user's joint law, None for the published one."""
    if path is None:
        return None
    from mobilemoe.plan.law import MoELaw, load_law

    law = load_law(path)
    if not isinstance(law, MoELaw):
        raise MobileMoEError(
            f"{path} is the law of one number of experts; a plan compares several",
            hint="fit a joint law: `mobilemoe plan fit` without a fixed E",
        )
    return law


def _write(result: Plan, recipe: Path | None, config: Path | None) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from mobilemoe.atomic import atomic_write
    from mobilemoe.plan.search.recipe import recipe_text

    if recipe is not None:
        atomic_write(recipe, recipe_text(result, recipe.stem))
    if config is not None:
        atomic_write(config, json.dumps(result.chosen.config.to_dict(), indent=2) + "\n")


def _show(result: Plan, as_json: bool) -> None:
    from mobilemoe.cli.plan_view import document, print_plan

    if as_json:
        print_json(document(result))
    else:
        print_plan(result)
