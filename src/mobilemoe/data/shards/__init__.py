"""Tokenised sources on disk: mapped shards with an index, prepared by worker processes."""

from __future__ import annotations

from mobilemoe.data.shards.filling import PrepareOptions
from mobilemoe.data.shards.prepare import prepare_source
from mobilemoe.data.shards.reader import ShardSet, open_shards
from mobilemoe.data.shards.views import ShardConversations, ShardTokens

__all__ = [
    "PrepareOptions",
    "ShardConversations",
    "ShardSet",
    "ShardTokens",
    "open_shards",
    "prepare_source",
]
