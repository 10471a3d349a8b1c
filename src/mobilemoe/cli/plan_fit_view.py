"""Fits of the scaling law on the screen and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mobilemoe.cli.output import print_table
from mobilemoe.cli.units import count
from mobilemoe.plan.fit import Coefficient, FitPer, HeldOut, LawFit
from mobilemoe.plan.law import DenseLaw, MoELaw
from mobilemoe.plan.law.files import law_document

Fit = LawFit[MoELaw | DenseLaw]
HELD_OUT_HEADER = ("left out", "runs", "error", "bias", "")


def fit_document(fit: Fit) -> dict[str, Any]:
    """Return the JSON document of one fit; `law` is what --out writes."""
    return {
        "law": law_document(fit.law),
        "coefficients": {c.name: _coefficient_document(c) for c in fit.coefficients},
        "confidence": fit.confidence,
        "runs": len(fit.residuals),
        "rmse": fit.law.rmse,
        "seed_noise": fit.seed_noise,
        "objective": fit.objective,
        "held_out": [asdict(error) for error in fit.held_out],
        "warnings": list(fit.warnings),
    }


def _coefficient_document(coefficient: Coefficient) -> dict[str, Any]:
    interval = coefficient.interval
    return {
        "value": coefficient.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "fixed": coefficient.fixed,
    }


def per_document(per: FitPer) -> dict[str, Any]:
    """Return the JSON document of several fits."""
    fits = [
        {per.by: value, **fit_document(fit)}
        for value, fit in zip(per.values, per.fits, strict=True)
    ]
    return {"by": per.by, "shared": list(per.shared), "fits": fits}


def print_fit(fit: Fit, title: str) -> None:
    """Print coefficients, errors and warnings."""
    law = fit.law
    header = ("coefficient", "value", f"{fit.confidence:.0%} interval")
    values = [(c.name, f"{c.value:.4f}", _interval(c)) for c in fit.coefficients]
    print_table(f"{title}: N in {law.unit_active:g}, D in {law.unit_tokens:g}", header, values)
    noise = "" if fit.seed_noise is None else f"; between seeds {fit.seed_noise:.4f}"
    print(f"{len(fit.residuals)} runs, error of the fit {law.rmse:.4f} nats{noise}")
    if fit.held_out:
        print()
        rows = [_held_out(error) for error in fit.held_out]
        print_table("Errors on what was left out", HELD_OUT_HEADER, rows)
    for warning in fit.warnings:
        print(f"- {warning}")


def _interval(coefficient: Coefficient) -> str:
    if coefficient.fixed:
        return "fixed"
    interval = coefficient.interval
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def _held_out(error: HeldOut) -> tuple[str, ...]:
    what = f"{count(error.value)} {error.axis.replace('_', ' ')}"
    return (
        f"E = {error.value:g}" if error.axis == "expert_equivalents" else what,
        str(error.runs),
        f"{error.rmse:.4f}",
        f"{error.bias:+.4f}",
        "beyond the rest" if error.at_edge else "",
    )


def print_per(per: FitPer) -> None:
    """Print each fit, and how the coefficients that differ compare with the first one's."""
    for value, fit in zip(per.values, per.fits, strict=True):
        print_fit(fit, f"{per.by} {_value(per, value)}")
        print()
    header = (
        "coefficient",
        "of",
        "over that of",
        "ratio",
        f"{per.fits[0].confidence:.0%} interval",
    )
    rows = [
        _ratio(per, c.name, value)
        for c in per.fits[0].coefficients
        if c.name not in per.shared and not c.fixed
        for value in per.values[1:]
    ]
    print_table(f"What differs by {per.by}", header, rows)


def _ratio(per: FitPer, name: str, value: int) -> tuple[str, ...]:
    ratio, interval = per.ratio(name, value, to=per.values[0])
    shown = "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
    return name, _value(per, value), _value(per, per.values[0]), f"{ratio:.4f}", shown


def _value(per: FitPer, value: int) -> str:
    return str(value) if per.by == "granularity" else ("yes" if value else "no")
