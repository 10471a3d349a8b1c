"""The command line put together: every verb, guarded, with its worked examples."""

from __future__ import annotations

from typing import Annotated

import typer

from mobilemoe import __version__
from mobilemoe.cli.bench import BENCH_EXAMPLES, bench
from mobilemoe.cli.chat import CHAT_EXAMPLES, chat
from mobilemoe.cli.convert import CONVERT_EXAMPLES, convert
from mobilemoe.cli.demo import DEMO_EXAMPLES, demo
from mobilemoe.cli.doctor import DOCTOR_EXAMPLES, doctor
from mobilemoe.cli.generate import GENERATE_EXAMPLES, generate
from mobilemoe.cli.guard import guarded
from mobilemoe.cli.info import INFO_EXAMPLES, info
from mobilemoe.cli.init import INIT_EXAMPLES, init
from mobilemoe.cli.plan_verbs import plan_app
from mobilemoe.cli.tokenize import TOKENIZE_EXAMPLES, tokenize
from mobilemoe.cli.train import TRAIN_EXAMPLES, train
from mobilemoe.cli.verify import VERIFY_EXAMPLES, verify

app = typer.Typer(
    name="mobilemoe",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "\b\nExamples:\n"
        "  mobilemoe plan --memory 4.75MB --context 1024\n"
        "  mobilemoe info S\n"
        "  mobilemoe VERB --help"
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mobilemoe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Sparse language models for small devices: design, train, quantise to INT4, run."""


app.command(epilog=DEMO_EXAMPLES)(guarded(demo))
app.command(epilog=INFO_EXAMPLES)(guarded(info))
app.add_typer(plan_app, name="plan")
app.command(epilog=TRAIN_EXAMPLES)(guarded(train))
app.command(epilog=INIT_EXAMPLES)(guarded(init))
app.command(epilog=CONVERT_EXAMPLES)(guarded(convert))
app.command(epilog=VERIFY_EXAMPLES)(guarded(verify))
app.command(epilog=GENERATE_EXAMPLES)(guarded(generate))
app.command(epilog=CHAT_EXAMPLES)(guarded(chat))
app.command(epilog=TOKENIZE_EXAMPLES)(guarded(tokenize))
app.command(epilog=BENCH_EXAMPLES)(guarded(bench))
app.command(epilog=DOCTOR_EXAMPLES)(guarded(doctor))


def main() -> None:
    """Run the command line; the entry point of the installed `mobilemoe`."""
    app()
