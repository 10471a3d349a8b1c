"""Texts and conversations as deterministic batches: the embedded corpus, files, data sets."""

from __future__ import annotations

from mobilemoe.data.account import DataSummary, SourceAccount, StageUse
from mobilemoe.data.corpus import Corpus, CorpusOptions, read_corpus
from mobilemoe.data.dataset import Dataset, SideStatistics, build_dataset
from mobilemoe.data.documents import DOMAINS, Conversation, Document, is_held_out
from mobilemoe.data.mixture import Batch, Mixture
from mobilemoe.data.prefetch import Prefetcher
from mobilemoe.data.shards import PrepareOptions, ShardSet, open_shards, prepare_source
from mobilemoe.data.sources import read_samples
from mobilemoe.data.tokenizer import SPECIAL_TOKENS, train_tokenizer
from mobilemoe.data.tokens import ConversationSet
from mobilemoe.data.training_data import TrainingData, open_data
from mobilemoe.data.windows import IGNORED, Count

__all__ = [
    "DOMAINS",
    "IGNORED",
    "SPECIAL_TOKENS",
    "Batch",
    "Conversation",
    "ConversationSet",
    "Corpus",
    "CorpusOptions",
    "Count",
    "DataSummary",
    "Dataset",
    "Document",
    "Mixture",
    "Prefetcher",
    "PrepareOptions",
    "ShardSet",
    "SideStatistics",
    "SourceAccount",
    "StageUse",
    "TrainingData",
    "build_dataset",
    "is_held_out",
    "open_data",
    "open_shards",
    "prepare_source",
    "read_corpus",
    "read_samples",
    "train_tokenizer",
]
