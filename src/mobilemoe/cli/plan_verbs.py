"""`mobilemoe plan` and the verbs below it."""

from __future__ import annotations

import typer

from mobilemoe.cli.guard import guarded
from mobilemoe.cli.plan import PLAN_EXAMPLES, plan
from mobilemoe.cli.plan_calibrate import PLAN_CALIBRATE_EXAMPLES, calibrate
from mobilemoe.cli.plan_device import PLAN_DEVICE_EXAMPLES, device
from mobilemoe.cli.plan_fit import FIT_EXAMPLES, fit
from mobilemoe.cli.plan_sweep import SWEEP_EXAMPLES, sweep

plan_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
plan_app.callback(epilog=PLAN_EXAMPLES)(guarded(plan))
plan_app.command("fit", epilog=FIT_EXAMPLES)(guarded(fit))
plan_app.command("sweep", epilog=SWEEP_EXAMPLES)(guarded(sweep))
plan_app.command("device", epilog=PLAN_DEVICE_EXAMPLES)(guarded(device))
plan_app.command("calibrate", epilog=PLAN_CALIBRATE_EXAMPLES)(guarded(calibrate))
