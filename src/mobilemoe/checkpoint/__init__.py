"""The released layout in and out: the only room that knows foreign names."""

from mobilemoe.checkpoint.chat import ChatFormat
from mobilemoe.checkpoint.folder import Checkpoint, open_checkpoint, write_checkpoint
from mobilemoe.checkpoint.layout import StoredTensor, stored_tensors
from mobilemoe.checkpoint.tensor_file import TensorFile
from mobilemoe.checkpoint.tokenizer import TextStream, Tokenizer

__all__ = [
    "ChatFormat",
    "Checkpoint",
    "StoredTensor",
    "TensorFile",
    "TextStream",
    "Tokenizer",
    "open_checkpoint",
    "stored_tensors",
    "write_checkpoint",
]
