"""The embedded corpus: what every Python installation carries, as deterministic batches."""

from __future__ import annotations

from mobilemoe.data.corpus import Corpus, CorpusOptions, read_corpus
from mobilemoe.data.dataset import Dataset, SideStatistics, build_dataset
from mobilemoe.data.documents import DOMAINS, Conversation, Document, is_held_out
from mobilemoe.data.mixture import Batch, Mixture
from mobilemoe.data.tokenizer import SPECIAL_TOKENS, train_tokenizer
from mobilemoe.data.tokens import ConversationSet
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
    "Dataset",
    "Document",
    "Mixture",
    "SideStatistics",
    "build_dataset",
    "is_held_out",
    "read_corpus",
    "train_tokenizer",
]
