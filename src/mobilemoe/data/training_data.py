"""One door for the trainer: a recipe's sources as batches, held-out batches and accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tokenizers import Tokenizer

from mobilemoe.data.account import DataSummary, SourceAccount, StageUse
from mobilemoe.data.chat import ChatFormat, largest_id
from mobilemoe.data.corpus import CorpusOptions
from mobilemoe.data.dataset import INSTRUCT, Dataset, Progress, build_dataset, heldout_limit
from mobilemoe.data.mixture import Batch, Mixture, Stream, make_windows, stack
from mobilemoe.data.schedule import Schedule
from mobilemoe.data.shards import PrepareOptions, ShardSet, prepare_source
from mobilemoe.data.windows import Conversations, Windows
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Recipe, Source, Stage

EMBEDDED = "embedded"


@dataclass(frozen=True)
class OpenSource:
    """One source, ready to be read."""

    source: Source
    train: Stream
    heldout: Stream
    account: SourceAccount
    sha256: str


class TrainingData:
    """Everything a run reads. Batches are pure functions of their arguments."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, sources: Mapping[str, OpenSource]):
        self.tokenizer = tokenizer
        self._recipe = recipe
        self._sources = dict(sources)
        self._pad_id = ChatFormat.of(tokenizer).end
        self._made: dict[tuple[str, int], Windows] = {}

    @property
    def domains(self) -> tuple[str, ...]:
        """The names under which losses are reported, in the recipe's order."""
        return tuple(dict.fromkeys(own.source.domain for own in self._sources.values()))

    @property
    def sha256(self) -> str:
        """The hash of tokenizer and tokens: equal data, equal value."""
        hashes = sorted(f"{name} {own.sha256}" for name, own in self._sources.items())
        parts = [self.tokenizer.to_str(), *hashes]
        return sha256("\n".join(parts).encode()).hexdigest()

    def batches(self, stage: Stage, seed: int) -> Mixture:
        """Return the training batches of a stage; rows carry their source's domain.

        Raises:
            MobileMoEError: if a source has no row of the stage's context.
        """
        names = [name for name, weight in stage.mixture.items() if weight > 0]
        return Mixture(
            {name: self._windows(name, stage.context) for name in names},
            {name: stage.mixture[name] for name in names},
            stage.context,
            stage.batch_size,
            seed,
            labels={name: self._sources[name].source.domain for name in names},
            pad_id=self._pad_id,
        )

    def heldout_batches(
        self, domain: str, context: int, batch_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield held-out rows of a domain's sources in order, at most `max_tokens` positions.

        Sources share `max_tokens` evenly. The last batch may have fewer rows.

        Raises:
            MobileMoEError: on an unknown domain, or if nothing held out fills a row.
        """
        domains = dict.fromkeys(self.domains)
        limit = heldout_limit(domains, domain, context, batch_size, max_tokens)
        windows = self._heldout_windows(domain, context)
        if not windows:
            raise MobileMoEError(
                f"domain {domain!r} has no held-out row of context {context}",
                hint="about 5 % of the texts are held out: use more texts or a smaller context",
            )
        each = None if limit is None else max(1, limit // len(windows))
        rows = [(own, i) for own in windows for i in range(len(own))[:each]][:limit]

        def batches() -> Iterator[Batch]:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                yield stack([own.row(i) for own, i in part], (domain,) * len(part))

        return batches()

    def has_heldout(self, domain: str, context: int) -> bool:
        """Whether a domain has any held-out row."""
        return bool(self._heldout_windows(domain, context))

    def summary(self) -> DataSummary:
        """Return where the tokens of every source go, and how often each stage sees them."""
        uses = []
        for stage in self._recipe.stages:
            mixture = self.batches(stage, self._recipe.seed)
            drawn, epochs = mixture.rows_drawn(stage.steps), mixture.epochs(stage.steps)
            for name, count in mixture.counts.items():
                domain = self._sources[name].source.domain
                uses.append(StageUse(stage.name, name, domain, drawn[name], epochs[name], count))
        accounts = tuple(own.account for own in self._sources.values())
        return DataSummary(accounts, tuple(uses))

    def _windows(self, name: str, context: int) -> Windows:
        """Return a source's rows; packing is done once per context."""
        key = (name, context)
        if key not in self._made:
            try:
                self._made[key] = make_windows(self._sources[name].train, context, self._pad_id)
            except MobileMoEError as error:
                raise MobileMoEError(f"source {name}: {error.message}", error.hint) from error
        return self._made[key]

    def _heldout_windows(self, domain: str, context: int) -> list[Windows]:
        found = []
        for own in self._sources.values():
            if own.source.domain == domain:
                try:
                    found.append(make_windows(own.heldout, context, self._pad_id))
                except MobileMoEError:  # too short for a single row
                    continue
        return found


def open_data(
    recipe: Recipe,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    options: PrepareOptions | None = None,
) -> TrainingData:
    """Prepare what a recipe's stages use, as far as they use it, in `folder`, and open it.

    Sources lie in folders of their names, and the embedded corpus in one file. What is there
    already is used, and what was interrupted goes on; ranks that share the folder may all call
    this. `tokenizer` is needed unless the recipe's is "embedded". `workers` None takes the
    recipe's; 0 tokenises in this process.

    Raises:
        MobileMoEError: if a source cannot be read, the tokenizer does not fit the model or the
            sources, or a folder holds another source's shards.
    """
    needed = needed_tokens(recipe)
    dataset = _embedded(recipe, needed, folder, tokenizer, progress)
    if tokenizer is None:
        if dataset is None:
            raise MobileMoEError(
                f"recipe {recipe.name}: the tokenizer {recipe.tokenizer!r} was not loaded",
                hint='give it to open_data, or use the tokenizer "embedded"',
            )
        tokenizer = dataset.tokenizer
    _check_vocabulary(recipe, tokenizer)
    text = tokenizer.to_str()
    workers = recipe.run.tokenizer_workers if workers is None else workers
    opened: dict[str, OpenSource] = {}
    for name, tokens in needed.items():
        source = recipe.sources[name]
        if source.kind == EMBEDDED:
            assert dataset is not None
            opened[name] = from_dataset(source, dataset)
        else:
            shards = prepare_source(source, text, folder / name, tokens, workers, progress, options)
            opened[name] = _from_shards(source, shards)
    return TrainingData(recipe, tokenizer, opened)


def needed_tokens(recipe: Recipe) -> dict[str, int]:
    """Return how many training tokens each source must give, in the recipe's order.

    It is what the hungriest stage draws, one window more, and at most the source's
    `max_tokens`. Sources that no stage uses are left out.
    """
    most: dict[str, int] = {}
    for stage in recipe.stages:
        drawn = Schedule(stage.mixture).drawn(stage.steps * stage.batch_size)
        for name, rows in drawn.items():
            most[name] = max(most.get(name, 0), (rows + 1) * stage.context + 1)
    limits = {name: recipe.sources[name].max_tokens for name in most}
    return {
        name: min(most[name], limits[name] or most[name]) for name in recipe.sources if name in most
    }


def _embedded(
    recipe: Recipe,
    needed: Mapping[str, int],
    folder: Path,
    tokenizer: Tokenizer | None,
    progress: Progress | None,
) -> Dataset | None:
    """Return the embedded corpus if the recipe uses it or its tokenizer."""
    sources = [name for name in needed if recipe.sources[name].kind == EMBEDDED]
    if not sources and (recipe.tokenizer != EMBEDDED or tokenizer is not None):
        return None
    dataset = build_dataset(
        folder,
        math_documents=_generated(recipe, "math", CorpusOptions.math_documents),
        math_conversations=_generated(recipe, INSTRUCT, CorpusOptions.math_conversations),
        vocab_size=recipe.model.vocab_size,
        progress=progress,
    )
    if tokenizer is not None and sources and not _equal(tokenizer, dataset.tokenizer):
        raise MobileMoEError(
            f"source {sources[0]}: the embedded corpus is tokenised with its own tokenizer, not "
            f"with {recipe.tokenizer!r}",
            hint='use tokenizer = "embedded", or sources of other kinds',
        )
    return dataset


def _generated(recipe: Recipe, path: str, default: int) -> int:
    """Return how many texts the embedded corpus makes up for `path`."""
    sources = [s for s in recipe.sources.values() if s.kind == EMBEDDED and s.path == path]
    return max((s.generate for s in sources if s.generate is not None), default=default)


def _equal(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have the same entries and merges."""
    first, second = (json.loads(t.to_str())["model"] for t in (one, other))
    return bool(first == second)


def _check_vocabulary(recipe: Recipe, tokenizer: Tokenizer) -> None:
    largest = largest_id(tokenizer)
    if largest >= recipe.model.vocab_size:
        raise MobileMoEError(
            f"recipe {recipe.name}: vocab_size is {recipe.model.vocab_size}; the tokenizer needs "
            f"{largest + 1} and more"
        )


def from_dataset(source: Source, dataset: Dataset) -> OpenSource:
    """Return the part of the embedded corpus that a source names."""
    path = source.path
    train, heldout = dataset.train[path], dataset.heldout[path]
    tokens = {side: _size(stream) for side, stream in (("train", train), ("heldout", heldout))}
    kind = "conversations" if path == INSTRUCT else "documents"
    documents = sum(
        getattr(own, kind)
        for side in dataset.statistics.values()
        for domain, own in side.items()
        if path in (domain, INSTRUCT)
    )
    account = SourceAccount(
        name=source.name,
        domain=source.domain,
        licence=source.licence,
        records=documents,
        documents=documents,
        tokens=sum(tokens.values()),
        train_tokens=tokens["train"],
        heldout_tokens=tokens["heldout"],
        repeated_tokens=0,
        bad={},
        bad_shown=(),
    )
    return OpenSource(source, train, heldout, account, dataset.sha256)


def _size(stream: Stream) -> int:
    return int(stream.lengths.sum()) if isinstance(stream, Conversations) else len(stream)


def _from_shards(source: Source, shards: ShardSet) -> OpenSource:
    parts = shards.index.shards
    account = SourceAccount(
        name=source.name,
        domain=source.domain,
        licence=source.licence,
        records=shards.index.records,
        documents=sum(p.train.documents + p.heldout.documents + p.repeats for p in parts),
        tokens=sum(p.train.tokens + p.heldout.tokens + p.repeated_tokens for p in parts),
        train_tokens=shards.index.train_tokens,
        heldout_tokens=sum(p.heldout.tokens for p in parts),
        repeated_tokens=sum(p.repeated_tokens for p in parts),
        bad=shards.index.bad,
        bad_shown=tuple(map(str, shards.bad_shown)),
    )
    train, heldout = shards.stream("train"), shards.stream("heldout")
    return OpenSource(source, train, heldout, account, shards.sha256)
