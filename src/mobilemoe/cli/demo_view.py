"""What `mobilemoe demo` shows: bars on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mobilemoe.demo.events import Advanced, Event, Finished, Scheduled, Started

LINE_EVERY_SECONDS = 10.0
SMOOTHING = 0.9


class DemoView:
    """Shows events on stderr and the closing table on stdout."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task("", note="")
        self._tokens: Mapping[str, int] = {}
        self._tokens_done: dict[str, int] = {}
        self._tok_s = 0.0
        self._last_line = 0.0

    def __enter__(self) -> DemoView:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Scheduled(tokens):
                self._tokens = tokens
            case Started(part, detail):
                self._tok_s = 0.0
                self._progress.reset(self._task, description=part, total=None, note=detail)
            case Advanced():
                self._advance(event)
            case Finished(part, summary, resumed):
                self._tokens_done[part] = self._tokens.get(part, 0)
                text = summary + (" (done earlier)" if resumed else "")
                line = f"[green]✓[/] {part:<11} {escape(text)}"
                self.console.print(line, highlight=False, soft_wrap=True)

    def _advance(self, event: Advanced) -> None:
        note = self._note(event)
        self._progress.update(self._task, completed=event.done, total=event.total, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line > LINE_EVERY_SECONDS:
            self._last_line = now
            self.console.print(f"  {event.part} {event.done}/{event.total} {note}", markup=False)

    def _note(self, event: Advanced) -> str:
        if event.metrics is None or event.tok_s is None:
            return ""
        old = self._tok_s or event.tok_s
        self._tok_s = SMOOTHING * old + (1 - SMOOTHING) * event.tok_s
        self._tokens_done[event.part] = event.metrics.tokens_seen
        left = sum(self._tokens.values()) - sum(self._tokens_done.values())
        minutes, seconds = divmod(round(max(0, left) / self._tok_s), 60)
        return (
            f"loss {event.metrics.loss:.3f}  {self._tok_s:,.0f} tok/s  "
            f"training left {minutes}:{seconds:02d}"
        )

    def stopped(self, folder: Path) -> None:
        """Say that the run was stopped and how to go on."""
        self.console.print(f"stopped; everything is saved in {folder}. Run it again to go on.")

    def summary(self, report: Mapping[str, Any], folder: Path) -> None:
        """Print the closing table and the path of the report."""
        console = Console(soft_wrap=True)
        table = Table(title=None, show_header=True, header_style="bold")
        table.add_column("")
        table.add_column("MoE", justify="right")
        table.add_column("dense twin", justify="right")
        for row in speed_rows(report):
            table.add_row(*row)
        console.print(table)
        for line in quality_lines(report):
            console.print(line, highlight=False)
        for warning in report["warnings"]:
            console.print(f"note: {warning}", markup=False)
        console.print(f"report: {folder / 'report.html'}", highlight=False)
        console.print(f"talk to it: mobilemoe chat {folder / 'model'}", highlight=False)


def speed_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the table's rows: what both models cost on this machine."""
    models = report["speed"]["models"]
    formats: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
        ("INT4 weights, MB", lambda m: f"{m['weight_bytes_int4'] / 1e6:.2f}"),
        ("parameters per token", lambda m: f"{m['active_params'] / 1e6:.2f}M"),
        ("time to first token, ms", lambda m: f"{median(m['ttft_ms']):.1f}"),
        ("prefill, tok/s", lambda m: f"{median(m['prefill_tok_s']):,.0f}"),
        ("decode, tok/s", lambda m: f"{median(m['decode_tok_s']):,.0f}"),
        ("peak RSS, MiB", lambda m: f"{m['peak_rss_mib']:.1f}"),
    )
    return [(title, render(models[0]), render(models[1])) for title, render in formats]


def quality_lines(report: Mapping[str, Any]) -> list[str]:
    """Return held-out perplexities and the total time, a line each."""
    rows = report["quantization"]["rows"]
    values = " · ".join(f"{row['name']} {row['perplexity']['mean']:.2f}" for row in rows)
    minutes = report["seconds"]["total"] / 60
    return [f"held-out perplexity: {values}", f"total time: {minutes:.1f} minutes"]
