"""Small model files as bytes, and the native reader on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from mobilemoe.checkpoint.header import encode_header
from mobilemoe.checkpoint.layout import file_layout
from mobilemoe.config import ModelConfig
from mobilemoe.engine._native import ModelFileError, testing
from mobilemoe.weights import WeightFormat

TINY = ModelConfig(
    vocab_size=4,
    hidden_size=32,
    intermediate_size=32,
    intermediate_size_mlp=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_local_experts=2,
    num_experts_per_tok=1,
    interleave_moe_layer_step=2,
    max_position_embeddings=64,
)
FORMATS: tuple[WeightFormat, ...] = ("int4", "bf16")


def model_file(config: ModelConfig = TINY, weight_format: WeightFormat = "int4") -> bytes:
    """A valid file whose tensors are bytes 0, 1, 2 and so on."""
    layout = file_layout(config, weight_format)
    size = sum(tensor.nbytes for tensor in layout)
    return encode_header(layout) + bytes(i % 256 for i in range(size))


def read(
    *contents: bytes, config: ModelConfig = TINY, weight_format: WeightFormat = "int4"
) -> None:
    """Run the native reader; `_native.ModelFileError` if it refuses."""
    testing.read_model(contents, asdict(config), weight_format)


def refusal(*contents: bytes, **options: object) -> str | None:
    """What the native reader says, None if it accepts; anything but ModelFileError passes."""
    try:
        read(*contents, **options)
    except ModelFileError as error:
        return str(error)
    return None


def with_length(text: bytes, data: bytes = b"") -> bytes:
    """A file of the header `text`."""
    return len(text).to_bytes(8, "little") + text + data


def halves(raw: bytes) -> Sequence[bytes]:
    """Header text and data of a file."""
    length = int.from_bytes(raw[:8], "little")
    return raw[8 : 8 + length], raw[8 + length :]
