"""The released layout in and out: the only room that knows foreign names."""

from mobilemoe.checkpoint.byte_level import TextStream
from mobilemoe.checkpoint.chat import ChatFormat
from mobilemoe.checkpoint.chat_known import builtin_render
from mobilemoe.checkpoint.convert import Conversion, TensorError, convert_checkpoint
from mobilemoe.checkpoint.folder import Checkpoint, open_checkpoint, read_weight
from mobilemoe.checkpoint.goldens import Golden, golden_check
from mobilemoe.checkpoint.layout import StoredTensor, stored_tensors
from mobilemoe.checkpoint.random_init import init_checkpoint
from mobilemoe.checkpoint.spans import TokenSpan, token_spans
from mobilemoe.checkpoint.synthetic_tokenizer import synthetic_tokenizer_json
from mobilemoe.checkpoint.tensor_file import Tensors
from mobilemoe.checkpoint.tokenizer import Tokenizer
from mobilemoe.checkpoint.write import write_checkpoint

__all__ = [
    "ChatFormat",
    "Checkpoint",
    "Conversion",
    "Golden",
    "StoredTensor",
    "TensorError",
    "Tensors",
    "TextStream",
    "TokenSpan",
    "Tokenizer",
    "builtin_render",
    "convert_checkpoint",
    "golden_check",
    "init_checkpoint",
    "open_checkpoint",
    "read_weight",
    "stored_tensors",
    "synthetic_tokenizer_json",
    "token_spans",
    "write_checkpoint",
]
