"""The whole data set: tokenizer, token streams, conversations, statistics; built or cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mobilemoe.data.cache import cache_key, read_cache, write_cache
from mobilemoe.data.corpus import Corpus, CorpusOptions, read_corpus
from mobilemoe.data.documents import DOMAINS, Conversation, is_held_out
from mobilemoe.data.mixture import Batch, Mixture, make_windows, stack
from mobilemoe.data.tokenizer import sample_texts, train_tokenizer
from mobilemoe.data.tokens import (
    ConversationSet,
    TokenArray,
    encode_conversations,
    encode_documents,
)
from mobilemoe.errors import MobileMoEError

INSTRUCT = "instruct"
TOKENIZER_CHARS = 1_200_000  # per domain: balanced, and a few seconds of training

Progress = Callable[[str, int, int], None]
Stream = TokenArray | ConversationSet


@dataclass(frozen=True)
class SideStatistics:
    """What one domain has on one side. Bytes are UTF-8 bytes of the texts."""

    documents: int
    bytes: int
    tokens: int
    conversations: int

    @property
    def bytes_per_token(self) -> float:
        """Mean bytes that one token stands for, special tokens included."""
        return self.bytes / max(1, self.tokens)


@dataclass(frozen=True)
class Dataset:
    """Everything training and evaluation read.

    `train` and `heldout` hold a token stream per domain and a `ConversationSet` under
    "instruct". `statistics` is keyed by side ("train", "heldout") and domain.
    """

    tokenizer: Tokenizer
    train: Mapping[str, Stream]
    heldout: Mapping[str, Stream]
    statistics: Mapping[str, Mapping[str, SideStatistics]]
    sha256: str
    from_cache: bool = False

    def mixture(
        self, weights: Mapping[str, float], context: int, batch_size: int, seed: int
    ) -> Mixture:
        """Return the training batches of a weighted mixture; see `Mixture`."""
        return Mixture(self.train, weights, context, batch_size, seed)

    def heldout_batches(
        self, domain: str, context: int, batch_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield held-out rows in order without overlap, at most `max_tokens` positions.

        The last batch may have fewer rows.

        Raises:
            MobileMoEError: on an unknown domain, or sizes that leave no row.
        """
        rows = heldout_limit(self.heldout, domain, context, batch_size, max_tokens)
        windows = make_windows(self.heldout[domain], context)
        total = len(windows) if rows is None else min(rows, len(windows))

        def batches() -> Iterator[Batch]:
            for start in range(0, total, batch_size):
                part = range(start, min(start + batch_size, total))
                yield stack([windows.row(i) for i in part], (domain,) * len(part))

        return batches()


def heldout_limit(
    heldout: Mapping[str, object],
    domain: str,
    context: int,
    batch_size: int,
    max_tokens: int | None,
) -> int | None:
    """Check the arguments of `heldout_batches`; return the limit in rows."""
    if domain not in heldout:
        raise MobileMoEError(f"domain is {domain!r}; allowed: {', '.join(heldout)}")
    for field, value in (("context", context), ("batch_size", batch_size)):
        if value < 1:
            raise MobileMoEError(f"{field} is {value}; allowed: 1 and more")
    if max_tokens is not None and max_tokens < context:
        raise MobileMoEError(f"max_tokens is {max_tokens}; allowed: {context} (context) and more")
    return None if max_tokens is None else max_tokens // context


def build_dataset(
    folder: Path | None,
    seed: int = 0,
    math_documents: int = CorpusOptions.math_documents,
    *,
    math_conversations: int = CorpusOptions.math_conversations,
    max_modules: int | None = None,
    vocab_size: int = 4096,
    progress: Progress | None = None,
) -> Dataset:
    """Return the data set, from the cache in `folder` if it holds exactly this one.

    `folder` None builds in memory. Of `math_documents` problems those with equal text are
    kept once. A cache that is damaged, or that was made with other
    arguments, another Python or another version of this code, is rebuilt and replaced.
    `progress(stage, done, total)` is called before each stage of a build.

    Raises:
        MobileMoEError: on counts out of range, or an installation without sources.
    """
    options = CorpusOptions(seed, math_documents, math_conversations, max_modules)
    key = cache_key({**asdict(options), "vocab_size": vocab_size})
    cached = read_cache(folder, key) if folder else None
    if cached is not None:
        return _from_cache(*cached)
    dataset = _build(options, vocab_size, progress or (lambda stage, done, total: None))
    if folder:
        write_cache(folder, key, _prefixed(dataset), _description(dataset))
    return dataset


def _build(options: CorpusOptions, vocab_size: int, progress: Progress) -> Dataset:
    progress("read the standard library", 0, 3)
    corpus = read_corpus(options)
    progress("train the tokenizer", 1, 3)
    tokenizer = train_tokenizer(_tokenizer_texts(corpus), vocab_size)
    progress("tokenise", 2, 3)
    streams: dict[str, dict[str, Stream]] = {}
    statistics: dict[str, dict[str, SideStatistics]] = {}
    for side, held in (("train", False), ("heldout", True)):
        streams[side], statistics[side] = _side(corpus, tokenizer, held)
    progress("done", 3, 3)
    return Dataset(tokenizer, streams["train"], streams["heldout"], statistics, corpus.sha256)


def _tokenizer_texts(corpus: Corpus) -> list[str]:
    """Return training texts, about as many characters from each domain."""
    texts = []
    for domain in DOMAINS:
        own = [d.text for d in corpus.documents if d.domain == domain and not is_held_out(d.unit)]
        texts += sample_texts(own, TOKENIZER_CHARS)
    return texts


def _side(
    corpus: Corpus, tokenizer: Tokenizer, held: bool
) -> tuple[dict[str, Stream], dict[str, SideStatistics]]:
    """Tokenise one side of the split."""
    talks = [talk for talk in corpus.conversations if is_held_out(talk.unit) == held]
    streams: dict[str, Stream] = {}
    statistics: dict[str, SideStatistics] = {}
    for domain in DOMAINS:
        own = (d for d in corpus.documents if d.domain == domain)
        texts = [d.text for d in own if is_held_out(d.unit) == held]
        stream = encode_documents(tokenizer, texts)
        streams[domain] = stream
        size = sum(len(text.encode()) for text in texts)
        kind = sum(talk.domain == domain for talk in talks)
        statistics[domain] = SideStatistics(len(texts), size, len(stream), kind)
    streams[INSTRUCT] = encode_conversations(tokenizer, _mixed(talks))
    return streams, statistics


def _mixed(talks: list[Conversation]) -> list[Conversation]:
    """Spread the kinds evenly, so that every packed row and every prefix holds all of them."""
    kinds = [[talk for talk in talks if talk.domain == domain] for domain in DOMAINS]
    placed = [((i + 0.5) / len(kind), talk) for kind in kinds for i, talk in enumerate(kind)]
    return [talk for _, talk in sorted(placed, key=lambda pair: pair[0])]


def _prefixed(dataset: Dataset) -> dict[str, Stream]:
    sides = (("train", dataset.train), ("heldout", dataset.heldout))
    return {f"{side}.{name}": stream for side, own in sides for name, stream in own.items()}


def _description(dataset: Dataset) -> dict[str, object]:
    statistics = {
        side: {domain: asdict(own) for domain, own in domains.items()}
        for side, domains in dataset.statistics.items()
    }
    return {
        "tokenizer": dataset.tokenizer.to_str(),
        "statistics": statistics,
        "sha256": dataset.sha256,
    }


def _from_cache(streams: Mapping[str, Stream], description: Mapping[str, object]) -> Dataset:
    sides: dict[str, dict[str, Stream]] = {"train": {}, "heldout": {}}
    for full_name, stream in streams.items():
        side, _, name = full_name.partition(".")
        sides[side][name] = stream
    statistics = description["statistics"]
    assert isinstance(statistics, dict)
    return Dataset(
        Tokenizer.from_str(str(description["tokenizer"])),
        sides["train"],
        sides["heldout"],
        {
            side: {domain: SideStatistics(**own) for domain, own in domains.items()}
            for side, domains in statistics.items()
        },
        str(description["sha256"]),
        from_cache=True,
    )
