"""`verify`: every section in order, each as far as this machine and this checkpoint allow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mobilemoe.checkpoint import Checkpoint, open_checkpoint
from mobilemoe.engine import Activations
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.verify.columns import (
    COLUMNS,
    ENGINE_EXACT,
    ENGINE_INT8,
    FILE,
    TORCH_FAKE,
    TORCH_FP32,
    Column,
)
from mobilemoe.verify.engine_columns import EngineColumn, engine_problem
from mobilemoe.verify.files import Weights
from mobilemoe.verify.layout import (
    config_check,
    file_checks,
    index_checks,
    model_hash,
    open_weights,
    size_check,
)
from mobilemoe.verify.pairs import Comparison, Pair, Parity
from mobilemoe.verify.parity import Absent, compare_columns
from mobilemoe.verify.progress import Progress, silent
from mobilemoe.verify.prompt import prompt_ids
from mobilemoe.verify.receipt import Check, Receipt, Section
from mobilemoe.verify.source import open_source, source_checks
from mobilemoe.verify.text import text_checks
from mobilemoe.verify.torch_columns import (
    Buffers,
    TorchColumn,
    fake_quantised_reader,
    float_reader,
    torch_problem,
)
from mobilemoe.verify.values import value_checks

MAX_TOKENS = 512  # memory and time of the bounds grow with their square
LAYOUT, VALUES, TEXT = "Layout", "Values", "Tokenizer and chat"
SOURCE, PARITY = "Source", "Parity"


def verify(
    path: str | Path,
    *,
    source: str | Path | None = None,
    tokens: int = 32,
    seed: int = 0,
    quick: bool = False,
    progress: Progress = silent,
) -> Receipt:
    """Check the checkpoint `path` in every way that is possible here.

    `source` is the folder of the BF16 weights that an INT4 checkpoint was rounded from. `tokens`
    is how many tokens the columns of the parity section compute, `seed` draws them where there is
    no tokenizer, and `quick` leaves that section out. What is wrong with the checkpoint becomes
    a failed check, not an exception.

    Raises:
        CheckpointError: if there is no checkpoint at `path`, or `source` cannot be its source.
        MobileMoEError: for an argument outside its range.
    """
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError as error:
        if not Path(path).is_dir():
            raise
        failed = Check("config", "fail", error.message, {"hint": error.hint})
        skipped = [_skipped(name, "there is no model") for name in (VALUES, TEXT, PARITY)]
        return Receipt(str(path), (Section(LAYOUT, (failed,)), *skipped))
    _check_tokens(checkpoint, tokens)
    return _Verification(checkpoint, str(path), progress).run(source, tokens, seed, quick)


def _check_tokens(checkpoint: Checkpoint, tokens: int) -> None:
    most = min(MAX_TOKENS, checkpoint.config.max_position_embeddings)
    if type(tokens) is not int or not 1 <= tokens <= most:
        raise MobileMoEError(
            f"tokens is {tokens!r}; allowed: 1 to {most}",
            hint="32 are enough to meet most experts",
        )


def _skipped(name: str, reason: str) -> Section:
    return Section(name, (Check("all", "skip", reason),))


class _Verification:
    """The sections of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, path: str, progress: Progress) -> None:
        self._checkpoint = checkpoint
        self._path = path
        self._progress = progress

    def run(self, source: str | Path | None, tokens: int, seed: int, quick: bool) -> Receipt:
        floats = None if source is None else open_source(self._checkpoint, open_checkpoint(source))
        weights, layout = self._layout()
        text = Section(TEXT, tuple(text_checks(self._checkpoint)))
        if weights is None:
            before, after = (_skipped(name, "the layout is wrong") for name in (VALUES, PARITY))
            return Receipt(self._path, (layout, before, text, after))
        values = Section(VALUES, tuple(value_checks(weights, self._progress)))
        sections = [layout, values, text]
        if floats is not None:
            checks, floats = source_checks(weights, floats, self._progress)
            sections.append(Section(SOURCE, checks))
        if quick or values.failed:
            reason = "left out: quick" if quick else "the values are wrong"
            return Receipt(self._path, (*sections, _skipped(PARITY, reason)))
        parity = self._parity(weights, floats, tokens, seed)
        sections.append(Section(PARITY, tuple(map(pair_check, parity.pairs))))
        return Receipt(self._path, tuple(sections), parity)

    def _layout(self) -> tuple[Weights | None, Section]:
        weights, tensors = open_weights(self._checkpoint)
        checks = [config_check(self._checkpoint), tensors]
        if weights is not None:
            checks += [size_check(weights), *index_checks(weights, self._checkpoint.folder)]
        checks += file_checks(self._checkpoint, self._progress)
        if weights is not None:
            checks.append(model_hash(weights, self._progress))
        return weights, Section(LAYOUT, tuple(checks))

    def _parity(self, weights: Weights, floats: Weights | None, tokens: int, seed: int) -> Parity:
        ids_T, prompt = prompt_ids(self._checkpoint, tokens, seed)
        columns = torch_columns(weights, floats) | engine_columns(self._checkpoint, tokens)
        pairs = compare_columns(weights, columns, ids_T, self._progress)
        reasons: dict[str, str | None] = {
            name: column.reason if isinstance(column, Absent) else None
            for name, column in columns.items()
        }
        reasons[FILE] = None
        exact = columns[ENGINE_EXACT]
        kernels = exact.kernels if isinstance(exact, EngineColumn) else None
        ordered = {name: reasons[name] for name in COLUMNS}
        return Parity(tuple(ids_T), prompt, kernels, ordered, pairs)


def torch_columns(weights: Weights, floats: Weights | None) -> dict[str, Column | Absent]:
    """Return the torch columns; `floats` is the source of INT4 `weights`, if there is one."""
    problem = torch_problem()
    if problem is not None:
        return {TORCH_FP32: Absent(problem), TORCH_FAKE: Absent(problem)}
    buffers: Buffers = {}
    column = partial(TorchColumn, weights.config, buffers=buffers)
    if weights.weight_format == "bf16":
        floats = weights
    if floats is None:
        needed = Absent("needs --source BF16_PATH, the float weights the file was rounded from")
        return {TORCH_FP32: needed, TORCH_FAKE: column(float_reader(weights))}
    return {
        TORCH_FP32: column(float_reader(floats)),
        TORCH_FAKE: column(fake_quantised_reader(floats)),
    }


def engine_columns(checkpoint: Checkpoint, tokens: int) -> dict[str, Column | Absent]:
    """Return the engine's columns; absent where it refuses what the layout section accepted."""
    problem = engine_problem()
    if problem is not None:
        return {ENGINE_EXACT: Absent(problem), ENGINE_INT8: Absent(problem)}
    exact = engine_column(checkpoint, "fp32", tokens)
    if checkpoint.weight_format == "bf16":
        return {ENGINE_EXACT: exact, ENGINE_INT8: Absent("not for BF16 weights")}
    return {ENGINE_EXACT: exact, ENGINE_INT8: engine_column(checkpoint, "int8", tokens)}


def engine_column(
    checkpoint: Checkpoint, activations: Activations, tokens: int
) -> EngineColumn | Absent:
    """Return one of the engine's columns, or its refusal."""
    try:
        return EngineColumn(checkpoint.folder, activations, tokens)
    except MobileMoEError as error:
        return Absent(f"the engine refuses: {error.message}", refused=True)


def pair_check(pair: Pair) -> Check:
    """Judge one pair of neighbours in one line."""
    if pair.skipped is not None:
        return Check(pair.name, "fail" if pair.refused else "skip", pair.skipped)
    first, worst = pair.first_failure, pair.worst
    assert worst is not None
    if pair.informational:
        return Check(pair.name, "info", f"largest against its bound: {finding(worst)}")
    if first is not None:
        beyond = sum(not comparison.passed for comparison in pair.comparisons)
        detail = f"{finding(first)} ({beyond} of {len(pair.comparisons)} tensors beyond)"
        return Check(pair.name, "fail", detail)
    if pair.parted and pair.end_to_end is not None:
        cosine = pair.end_to_end.median_cosine
        return Check(pair.name, "fail", f"end to end the median cosine of logits is {cosine:.6f}")
    return Check(pair.name, "pass", f"largest against its bound: {finding(worst)}")


def finding(comparison: Comparison) -> str:
    """Return a comparison in words."""
    return f"{comparison.where} {comparison.measured:.2e}, allowed {comparison.allowed:.2e}"
