"""The released layout in and out: the only room that knows foreign names."""

from mobilemoe.checkpoint.chat import ChatFormat
from mobilemoe.checkpoint.convert import Conversion, TensorError, convert_checkpoint
from mobilemoe.checkpoint.folder import Checkpoint, open_checkpoint, read_weight
from mobilemoe.checkpoint.layout import StoredTensor, stored_tensors
from mobilemoe.checkpoint.random_init import init_checkpoint
from mobilemoe.checkpoint.tensor_file import Tensors
from mobilemoe.checkpoint.tokenizer import TextStream, Tokenizer
from mobilemoe.checkpoint.write import write_checkpoint

__all__ = [
    "ChatFormat",
    "Checkpoint",
    "Conversion",
    "StoredTensor",
    "TensorError",
    "Tensors",
    "TextStream",
    "Tokenizer",
    "convert_checkpoint",
    "init_checkpoint",
    "open_checkpoint",
    "read_weight",
    "stored_tensors",
    "write_checkpoint",
]
