"""A small corpus, built once: some modules, few problems, a small vocabulary."""

from __future__ import annotations

import pytest

from mobilemoe.data import Corpus, CorpusOptions, Dataset, build_dataset, read_corpus

SMALL = {"math_documents": 600, "math_conversations": 300, "max_modules": 60}


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Return the texts of the small corpus."""
    return read_corpus(CorpusOptions(seed=3, **SMALL))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return the data set made of the small corpus, written to a cache on the way."""
    return build_dataset(tmp_path_factory.mktemp("data"), 3, vocab_size=1024, **SMALL)
