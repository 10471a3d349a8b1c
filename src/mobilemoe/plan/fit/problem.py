"""The objective of a fit and its derivatives, for many parameter vectors at once.

Legend: S parameter vectors (starts or bootstrap draws), R runs, P free parameters, G groups of
runs, C coefficients. The objective is Chinchilla's (arXiv 2203.15556, appendix D.3): the Huber
loss of ln(predicted) - ln(measured), here with weights of the runs and an optional pull on c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilemoe.plan.fit.coefficients import INDEX, LINEAR, Array, Layout

LARGEST_LOG = 60.0  # of a term: far from any loss on both sides, and its square is a number


@dataclass(frozen=True)
class Pull:
    """A preference for a value of c: `strength` runs that say so, in the same logarithms."""

    value: float
    strength: float


@dataclass(frozen=True)
class Problem:
    """The runs as arrays: ln N and ln D in the law's units, ln Ê, the loss, each run's group."""

    layout: Layout
    active_R: Array
    tokens_R: Array
    experts_R: Array
    loss_R: Array
    group_R: np.ndarray[tuple[int], np.dtype[np.intp]]
    huber: float
    pull: Pull | None = None

    def predict(self, q_SP: Array) -> Array:
        """Return the predicted loss pred_SR."""
        total_SR: Array = self._terms(q_SP).sum(axis=0)
        return total_SR

    def jacobian(self, q_SP: Array) -> tuple[Array, Array]:
        """Return pred_SR and J_SRP, the derivatives of ln(pred)."""
        capacity_SR, data_SR, floor_SR = self._terms(q_SP)
        pred_SR = capacity_SR + data_SR + floor_SR
        x_R, n_R, d_R = self.experts_R, self.active_R, self.tokens_R
        slopes_RSC = np.stack(
            [
                *(capacity_SR * factor for factor in (1.0, x_R, n_R, x_R * n_R)),
                *(data_SR * factor for factor in (1.0, x_R, d_R, x_R * d_R)),
                floor_SR,
            ],
            axis=-1,
        ).transpose(1, 0, 2)
        basis_RCP = self.layout.basis_GCP[self.group_R]
        J_SRP: Array = (slopes_RSC @ basis_RCP).transpose(1, 0, 2) / pred_SR[..., None]
        return pred_SR, J_SRP

    def _terms(self, q_SP: Array) -> Array:
        """Return the three terms of the law, [3, S, R]."""
        K_SRC = self.layout.coefficients(q_SP)[:, self.group_R, :]
        a, delta, alpha, gamma, b, omega, beta, zeta, c = np.moveaxis(K_SRC, -1, 0)
        x_R = self.experts_R
        capacity_SR = a + delta * x_R + (alpha + gamma * x_R) * self.active_R
        data_SR = b + omega * x_R + (beta + zeta * x_R) * self.tokens_R
        logs = np.clip(np.stack([capacity_SR, data_SR, c]), -LARGEST_LOG, LARGEST_LOG)
        terms: Array = np.exp(logs)
        return terms

    def residuals(self, pred_SR: Array) -> Array:
        """Return ln(predicted) - ln(measured)."""
        logs: Array = np.log(pred_SR)
        return logs - np.log(self.loss_R)

    def objective(self, q_SP: Array, weights_SR: Array) -> Array:
        """Return the weighted Huber loss of each parameter vector, pull included."""
        r_SR = np.abs(self.residuals(self.predict(q_SP)))
        huber_SR = np.where(r_SR <= self.huber, r_SR**2 / 2, self.huber * (r_SR - self.huber / 2))
        total_S: Array = (weights_SR * huber_SR).sum(axis=1)
        if self.pull is not None:
            away_SG = self.away_from_pull(q_SP)
            total_S = total_S + self.pull.strength * (away_SG**2).sum(axis=1) / 2
        return total_S

    def away_from_pull(self, q_SP: Array) -> Array:
        """Return ln c - ln(the preferred c) of each group, or of all where they share it."""
        assert self.pull is not None
        log_c_SG = self.layout.coefficients(q_SP)[:, self.pulled_groups(), INDEX["c"]]
        away_SG: Array = log_c_SG - np.log(self.pull.value)
        return away_SG

    def pulled_groups(self) -> list[int]:
        """Return one group for each free c."""
        return [
            group or 0
            for name, group in zip(self.layout.names_P, self.layout.groups_P, strict=True)
            if name == "c"
        ]

    def pulled_parameters(self) -> list[int]:
        """Return the free parameters that are a c, in the order of `pulled_groups`."""
        return [p for p, name in enumerate(self.layout.names_P) if name == "c"]

    def robust_weights(self, r_SR: Array) -> Array:
        """Return the weights that make squares of the Huber loss: 1 near 0, then 1/|r|."""
        weights: Array = self.huber / np.maximum(np.abs(r_SR), self.huber)
        return weights

    @property
    def free_linear(self) -> list[int]:
        """The parameters that variable projection solves for."""
        return [p for p, name in enumerate(self.layout.names_P) if name in LINEAR]
