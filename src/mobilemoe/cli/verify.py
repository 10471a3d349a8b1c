"""`mobilemoe verify`: one receipt for a checkpoint, from its bytes to the engine's logits."""

from __future__ import annotations

from typing import Annotated

import typer

from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.stages import stage_progress
from mobilemoe.cli.verify_view import print_receipt

VERIFY_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe verify path/to/checkpoint\n"
    "  mobilemoe verify path/to/int4 --source path/to/bf16 --tokens 64\n"
    "  mobilemoe verify path/to/checkpoint --quick --json"
)
FAILED = 1
MAX_TOKENS = 512  # as the verify room allows; it is not imported for a help text


def verify(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A checkpoint folder or a hub id.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="BF16_PATH",
            help="The float weights that an INT4 file was rounded from: a folder or a hub id.",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, max=MAX_TOKENS, help="Tokens that all columns compute.")
    ] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of random ids, without a tokenizer.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the parity section out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a checkpoint: layout, values, text, and parity from torch to the int8 engine.

    Exit status 0 if nothing failed, 1 if anything did; what cannot be checked here is skipped,
    with the reason.
    """
    from mobilemoe.verify import verify as verify_checkpoint

    with stage_progress() as progress:
        receipt = verify_checkpoint(
            path, source=source, tokens=tokens, seed=seed, quick=quick, progress=progress
        )
    if as_json:
        print_json(receipt.to_dict())
    else:
        print_receipt(receipt)
    if not receipt.passed:
        raise typer.Exit(FAILED)
