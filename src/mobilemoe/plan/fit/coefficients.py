"""Which coefficients a fit may move: free, fixed, or shared by groups of runs.

Inside a fit a coefficient table K_GC has one row per group of runs and one column per name of
`NAMES`; a, b and c are there as logarithms, which keeps them positive. A fit moves a shorter
vector q_P: K = base + basis q. Legend: G groups, C coefficients, P free parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilemoe.errors import MobileMoEError

Array = NDArray[np.float64]
Form = Literal["joint", "dense"]

NAMES = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c")
LINEAR = ("a", "b", "c")
EXPERT_TERMS = ("delta", "gamma", "omega", "zeta")
INDEX: Mapping[str, int] = {name: index for index, name in enumerate(NAMES)}
# In units at the centre of the data the coefficient on the left takes up what the ones on the
# right move: N^alpha about N0 is a factor N0^alpha of a.
COMPANIONS: Mapping[str, tuple[str, str]] = {
    "alpha": ("a", "active"),
    "gamma": ("delta", "active"),
    "beta": ("b", "tokens"),
    "zeta": ("omega", "tokens"),
}


def names_of(form: Form) -> tuple[str, ...]:
    """Return the coefficients that a form of the law has."""
    return NAMES if form == "joint" else tuple(n for n in NAMES if n not in EXPERT_TERMS)


@dataclass(frozen=True)
class Layout:
    """The map from the free parameters to the coefficients of every group.

    `base_GC` holds the fixed values (logarithms for a, b, c), `basis_GCP` what each free
    parameter moves; `names_P` and `groups_P` say whose it is (group None: shared by all).
    """

    base_GC: Array
    basis_GCP: Array
    names_P: tuple[str, ...]
    groups_P: tuple[int | None, ...]

    @property
    def linear_P(self) -> list[int]:
        """The free parameters in which the loss is linear, but for their logarithm."""
        return [p for p, name in enumerate(self.names_P) if name in LINEAR]

    def coefficients(self, q_SP: Array) -> Array:
        """Return K_SGC for a batch of parameter vectors."""
        moved_SGC: Array = np.einsum("gcp,sp->sgc", self.basis_GCP, q_SP)
        return self.base_GC + moved_SGC

    def parameters(self, K_SGC: Array) -> Array:
        """Return the q_SP whose coefficients are nearest to K (equal where all are free)."""
        free_GC = np.abs(self.basis_GCP).sum(axis=2) > 0
        basis_FP = self.basis_GCP[free_GC]
        target_SF = (K_SGC - np.where(free_GC, self.base_GC, 0.0))[:, free_GC]
        solution: Array = np.linalg.lstsq(basis_FP, target_SF.T, rcond=None)[0].T
        return solution

    def plain(self, K_SGC: Array) -> Array:
        """Return the coefficients as the law states them, without logarithms."""
        values = K_SGC.copy()
        for name in LINEAR:
            values[..., INDEX[name]] = np.exp(values[..., INDEX[name]])
        return values


def make_layout(
    form: Form,
    groups: int,
    fixed: Mapping[str, float],
    shared: Sequence[str],
    centre: Mapping[str, float],
) -> Layout:
    """Return the layout of a fit; `centre` holds ln N0 and ln D0 in the law's units.

    Raises:
        MobileMoEError: if a name is not a coefficient of `form`, is both fixed and shared, or
            has a value that it cannot have.
    """
    _check_names(form, fixed, shared)
    own = {name: groups > 1 and name not in shared for name in names_of(form)}
    base_GC = np.zeros((groups, len(NAMES)))
    for name, value in fixed.items():
        with np.errstate(divide="ignore"):  # c = 0: ln c is -inf, and exp takes it back
            base_GC[:, INDEX[name]] = np.log(value) if name in LINEAR else value
    free = [name for name in names_of(form) if name not in fixed]
    if not free:
        raise MobileMoEError("every coefficient is fixed", hint="leave at least one free")
    members = [(name, g) for name in free for g in (range(groups) if own[name] else (None,))]
    basis_GCP = np.zeros((groups, len(NAMES), len(members)))
    for p, (name, group) in enumerate(members):
        rows: Any = slice(None) if group is None else group
        basis_GCP[rows, INDEX[name], p] = 1.0
        companion, axis = COMPANIONS.get(name, ("", ""))
        # Only a change of basis: what is fixed, or shared where this is not, must not move.
        if companion in free and (group is None or own[companion]):
            basis_GCP[rows, INDEX[companion], p] = -centre[axis]
    return Layout(base_GC, basis_GCP, tuple(n for n, _ in members), tuple(g for _, g in members))


def _check_names(form: Form, fixed: Mapping[str, float], shared: Sequence[str]) -> None:
    allowed = names_of(form)
    unknown = sorted((set(fixed) | set(shared)) - set(allowed))
    if unknown:
        raise MobileMoEError(
            f"{', '.join(unknown)}: no coefficient of the {form} form",
            hint=f"its coefficients are {', '.join(allowed)}",
        )
    both = sorted(set(fixed) & set(shared))
    if both:
        raise MobileMoEError(
            f"{', '.join(both)}: both fixed and shared", hint="a fixed one is shared as it is"
        )
    for name, value in fixed.items():
        low_enough = value > 0 or (name == "c" and value == 0) or name not in LINEAR
        if not (np.isfinite(value) and low_enough):
            kind = "a positive number" if name in LINEAR else "a finite number"
            raise MobileMoEError(
                f"fixed {name} is {value!r}; allowed: {kind}", hint=f"correct {name}"
            )
