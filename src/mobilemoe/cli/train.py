"""`mobilemoe train`: a recipe from its data to its INT4 file, on this machine or on many."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.demo import interrupt_flag
from mobilemoe.cli.options import unfolded
from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.units import count
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.cli.train_view import TrainView
    from mobilemoe.pipeline import RunEvent, RunResult
    from mobilemoe.recipe import Recipe

GPUS_PER_NODE = 8

TRAIN_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe train recipes/nano.toml\n"
    "  mobilemoe train recipes/nano.toml --set pretrain.lr=2e-3 --set seed=1 --out runs/seed1\n"
    "  mobilemoe train recipes/nano.toml --resume\n"
    "  mobilemoe train --report runs/nano\n"
    "  mobilemoe train recipes/s.toml --dry-run --gpus 256 --gpu h100\n"
    "  torchrun --nproc-per-node 8 -m mobilemoe train recipes/s.toml --resume"
)


@dataclass(frozen=True)
class PlanOptions:
    """The cluster of a dry run."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run would take on --gpus.")
    ] = False
    gpus: Annotated[int | None, typer.Option(min=1, help="With --dry-run: how many GPUs.")] = None
    gpu: Annotated[
        str | None, typer.Option(help="With --dry-run: h100, ... or a TOML file of your own.")
    ] = None
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: 8, if not given.")
    ] = None
    price: Annotated[
        float | None, typer.Option(min=0.0, help="With --dry-run: dollars per GPU hour.")
    ] = None
    mfu: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="With --dry-run: share of peak FLOPs.")
    ] = None

    def given(self) -> dict[str, object]:
        """Return the values that were given, by option."""
        return {
            "--dry-run": self.dry_run,
            "--gpus": self.gpus,
            "--gpu": self.gpu,
            "--gpus-per-node": self.gpus_per_node,
            "--price": self.price,
            "--mfu": self.mfu,
        }


@unfolded
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A TOML file, or nano, micro, s, m, l.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on if a run is there.")] = False,
    out: Annotated[Path | None, typer.Option(help="The run's folder: runs/NAME.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Draw the curves of a run, and stop.")
    ] = None,
    *,
    plan: PlanOptions,
    as_json: JsonOption = False,
) -> None:
    """Train a model in four stages; Ctrl-C saves, --resume goes on exactly there."""
    runs = {"--stage": stage, "--resume": resume, "--out": out}
    if report is not None:
        _refuse({"RECIPE": recipe, "--set": set_, **runs, **plan.given()}, "--report")
        _report(report, as_json)
        return
    if recipe is None:
        raise typer.BadParameter("give a RECIPE, or --report RUN")
    if plan.dry_run:
        _refuse({"--resume": resume, "--out": out}, "--dry-run")
    else:
        _refuse(plan.given(), "a run without --dry-run")
    from mobilemoe.recipe import load_recipe

    chosen = load_recipe(recipe, set_ or ())
    if plan.dry_run:
        _dry_run(chosen, plan, stage, as_json)
    else:
        _train(chosen, out or Path("runs") / chosen.name, stage, resume, as_json)


def _refuse(options: dict[str, object], where: str) -> None:
    """Refuse what would be ignored."""
    given = [name for name, value in options.items() if value]
    if given:
        raise typer.BadParameter(f"{', '.join(given)} cannot go with {where}")


def _report(run: Path, as_json: bool) -> None:
    from mobilemoe.train.report import write_train_report

    path = write_train_report(run)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)


def _dry_run(recipe: Recipe, plan: PlanOptions, stage: str | None, as_json: bool) -> None:
    from mobilemoe.cli.train_plan import show_plan

    if plan.gpus is None or plan.gpu is None:
        raise typer.BadParameter("--dry-run needs --gpus and --gpu")
    show_plan(
        recipe,
        gpus=plan.gpus,
        gpu=plan.gpu,
        gpus_per_node=plan.gpus_per_node or GPUS_PER_NODE,
        stage=stage,
        price=plan.price,
        mfu=plan.mfu,
        as_json=as_json,
    )


def _train(recipe: Recipe, out: Path, stage: str | None, resume: bool, as_json: bool) -> None:
    require_torch()
    from mobilemoe.cli.train_view import TrainView
    from mobilemoe.pipeline import Stopped, carry_out

    view = TrainView(recipe.name, recipe.stages)
    speaks = os.environ.get("RANK", "0") == "0"  # one of the processes that torchrun started
    with view if speaks else nullcontext(), interrupt_flag() as flag:
        try:
            result = carry_out(
                recipe,
                out,
                lambda event: show(view, event) if speaks else None,
                lambda: flag["stop"],
                stage,
                resume,
            )
        except Stopped:
            if speaks:
                view.say(f"stopped; everything is saved in {out}. --resume goes on from there.")
            raise typer.Exit(130) from None
    if speaks and as_json:
        print_json(document(result))
    elif speaks:
        summary(result)


def require_torch() -> None:
    """Check that torch is installed.

    Raises:
        MobileMoEError: saying how to get it.
    """
    if find_spec("torch") is None:
        raise MobileMoEError(
            "`mobilemoe train` needs torch, which is not installed",
            hint='pip install "mobilemoe[train]", or use `make demo`',
        )


def show(view: TrainView, event: RunEvent) -> None:
    """Show one event of a run."""
    from mobilemoe.pipeline import DataReady, Finished, Prepared, Saved, StageStarted, Warned

    match event:
        case Prepared(what, done, total):
            view.preparing(what, done, total)
        case DataReady(lines):
            for line in lines:
                view.say(line)
        case Warned(message):
            view.say(f"warning: {message}")
        case StageStarted(stage, step):
            view.started(stage, step)
        case Saved(_, step, _):
            view.saved(step)
        case Finished(stage, _, _, resumed):
            view.finished(stage, resumed)
        case _:
            view.show(event)


def summary(result: RunResult) -> None:
    """Print held-out losses of every stage and where the checkpoints are."""
    domains = list(dict.fromkeys(domain for stage in result.stages for domain in stage.after))
    rows = [
        (
            stage.stage,
            count(stage.tokens),
            *(f"{stage.before[d]:.3f} -> {stage.after[d]:.3f}" for d in domains),
        )
        for stage in result.stages
    ]
    print_table("Held-out loss, nats per token", ("stage", "tokens", *domains), rows)
    for name, path in result.checkpoints.items():
        print(f"{name}: {path}")
    print(f"curves: mobilemoe train --report {result.folder}")


def document(result: RunResult) -> dict[str, Any]:
    """Return the JSON document of a finished run."""
    stages = [
        {
            "stage": stage.stage,
            "tokens": stage.tokens,
            "heldout_before": dict(stage.before),
            "heldout_after": dict(stage.after),
        }
        for stage in result.stages
    ]
    checkpoints = {name: str(path) for name, path in result.checkpoints.items()}
    return {"run": str(result.folder), "stages": stages, "checkpoints": checkpoints}
