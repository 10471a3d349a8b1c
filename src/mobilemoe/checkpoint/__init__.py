"""The released layout in and out: the only room that knows foreign names."""

from mobilemoe.checkpoint.byte_level import TextStream
from mobilemoe.checkpoint.chat import ChatFormat
from mobilemoe.checkpoint.chat_known import builtin_render
from mobilemoe.checkpoint.folder import Checkpoint, open_checkpoint, write_checkpoint
from mobilemoe.checkpoint.goldens import Golden, golden_check
from mobilemoe.checkpoint.layout import StoredTensor, stored_tensors
from mobilemoe.checkpoint.spans import TokenSpan, token_spans
from mobilemoe.checkpoint.synthetic_tokenizer import synthetic_tokenizer_json
from mobilemoe.checkpoint.tensor_file import TensorFile
from mobilemoe.checkpoint.tokenizer import Tokenizer

__all__ = [
    "ChatFormat",
    "Checkpoint",
    "Golden",
    "StoredTensor",
    "TensorFile",
    "TextStream",
    "TokenSpan",
    "Tokenizer",
    "builtin_render",
    "golden_check",
    "open_checkpoint",
    "stored_tensors",
    "synthetic_tokenizer_json",
    "token_spans",
    "write_checkpoint",
]
