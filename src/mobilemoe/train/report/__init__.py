"""The report of a training run: one page and its figures, drawn from the run's folder."""

from __future__ import annotations

from mobilemoe.train.report.page import write_train_report

__all__ = ["write_train_report"]
