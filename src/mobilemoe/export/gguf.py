"""A checkpoint as a GGUF file that an unmodified llama.cpp runs.

llama.cpp has no graph of this name; its `exaone-moe` graph computes the same function when the
file is written as here (rows of q and k reordered for its RoPE, unit weights for its head norms,
a window as wide as the context, for it rotates in windowed layers only). A dense model is the
same graph with every block "leading dense".

2-D INT4 tensors become Q4_0 without loss. Routed experts are grouped along the output axis, which
no GGUF type can say: they are rounded again, and the loss is measured.

D hidden, F routed expert width, E experts, d head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobilemoe.atomic import atomic_file
from mobilemoe.checkpoint import Checkpoint
from mobilemoe.checkpoint.fingerprint import fingerprint
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.export.gguf_tensors import GgufTensor, TensorSource, gguf_tensors
from mobilemoe.export.q4_0 import Requantizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURE = "exaone-moe"
FINGERPRINT_KEY = "mobilemoe.checkpoint"
SMALLEST_WINDOW = 16_384
MOSTLY_F32, MOSTLY_Q4_0 = 0, 2  # GGUF's general.file_type

WeightType = Literal["q4_0", "f32"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GgufExport:
    """What was written: `expert_rms_error` is relative, None where no expert was rounded."""

    path: Path
    architecture: str
    weight_type: WeightType
    tensors: int
    file_bytes: int
    expert_rms_error: float | None


def export_gguf(
    checkpoint: Checkpoint,
    path: Path,
    weight_type: WeightType = "q4_0",
    progress: Progress = lambda done, total: None,
) -> GgufExport:
    """Write `checkpoint`, an INT4 one, to `path`, one tensor in memory at a time.

    "f32" keeps every value exactly and is eight times as large: for comparing logits. The file
    has no tokenizer: it is for token ids.

    Raises:
        MobileMoEError: if gguf is not installed, the checkpoint is BF16, has dense layers among
            its mixtures or no shared expert, or the disk refuses; what was at `path` stays.
        CheckpointError: if a weight file is missing or damaged.
    """
    _check(checkpoint, weight_type)
    writer = _new_writer()
    _add_keys(writer, checkpoint, weight_type)
    tensors = gguf_tensors(checkpoint.config, weight_type)
    for tensor in tensors:
        _add_info(writer, tensor)
    requantizer = Requantizer()
    source = TensorSource(checkpoint, requantizer)
    total = sum(tensor.nbytes for tensor in tensors)
    done = 0
    with atomic_file(path) as file:
        _write_head(writer, file)
        for tensor in tensors:
            writer.write_tensor_data(source.read(tensor))
            done += tensor.nbytes
            progress(done, total)
        file_bytes = file.tell()
    rounded = weight_type == "q4_0" and checkpoint.config.is_moe
    error = requantizer.relative_rms_error if rounded else None
    return GgufExport(path, ARCHITECTURE, weight_type, len(tensors), file_bytes, error)


def _check(checkpoint: Checkpoint, weight_type: str) -> None:
    config = checkpoint.config
    if weight_type not in ("q4_0", "f32"):
        raise MobileMoEError(f"weight_type is {weight_type!r}; allowed: q4_0, f32")
    if checkpoint.weight_format != "int4":
        raise MobileMoEError(
            f"{checkpoint.folder}: its weights are {checkpoint.weight_format}; allowed: int4",
            hint="convert it first with `mobilemoe convert`",
        )
    routed = [config.is_moe_layer(layer) for layer in range(config.num_hidden_layers)]
    if any(routed) and not all(routed):
        raise MobileMoEError(
            f"interleave_moe_layer_step is {config.interleave_moe_layer_step}; allowed for GGUF: 1",
            hint="the exaone-moe graph of llama.cpp has dense layers in front only",
        )
    if any(routed) and config.intermediate_size_mlp == 0:
        raise MobileMoEError(
            "intermediate_size_mlp is 0; allowed for GGUF: a shared expert",
            hint="the exaone-moe graph of llama.cpp always adds one",
        )


def _new_writer() -> GGUFWriter:
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise MobileMoEError(
            "writing GGUF needs the package gguf, which is not installed",
            hint='pip install "mobilemoe[bench]"',
        ) from error
    return GGUFWriter(None, ARCHITECTURE)


def _add_info(writer: GGUFWriter, tensor: GgufTensor) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType

    kind = GGMLQuantizationType.Q4_0 if tensor.packed else GGMLQuantizationType.F32
    dtype = np.dtype(np.uint8 if tensor.packed else np.float32)
    writer.add_tensor_info(tensor.name, tensor.stored_shape, dtype, tensor.nbytes, kind)


def _write_head(writer: GGUFWriter, file: Any) -> None:
    """Let the writer use our file: its own would stand under the final name half written."""
    from gguf.gguf_writer import WriterState

    writer.fout, writer.state = [file], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _add_keys(writer: GGUFWriter, checkpoint: Checkpoint, weight_type: WeightType) -> None:
    config = checkpoint.config
    writer.add_string(FINGERPRINT_KEY, fingerprint(checkpoint))
    writer.add_name(checkpoint.folder.resolve().name)
    writer.add_file_type(MOSTLY_Q4_0 if weight_type == "q4_0" else MOSTLY_F32)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(max(config.intermediate_size_mlp, 1))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_sliding_window(max(SMALLEST_WINDOW, config.max_position_embeddings))
    writer.add_sliding_window_pattern([True] * config.num_hidden_layers)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    _add_expert_keys(writer, config)


def _add_expert_keys(writer: GGUFWriter, config: ModelConfig) -> None:
    from gguf import ExpertGatingFuncType

    moe = config.is_moe
    writer.add_leading_dense_block_count(0 if moe else config.num_hidden_layers)
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.intermediate_size)
    writer.add_expert_shared_feed_forward_length(config.intermediate_size_mlp)
    writer.add_expert_shared_count(1 if moe else 0)
    writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_norm(True)
    writer.add_expert_weights_scale(config.routed_scaling_factor)


def read_fingerprint(path: Path) -> str | None:
    """Return which checkpoint the GGUF file at `path` was made of; None if it does not say.

    Raises:
        MobileMoEError: if gguf is not installed.
    """
    _new_writer()
    from gguf import GGUFReader

    try:
        field = GGUFReader(path).get_field(FINGERPRINT_KEY)
    except (OSError, ValueError, IndexError):
        return None
    return None if field is None else str(field.contents())
