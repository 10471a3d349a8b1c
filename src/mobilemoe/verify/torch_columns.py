"""The columns that torch computes, with the modules that train: the only file here with torch.

One layer at a time, as float32: a layer is built without memory of its own, given its weights in
buffers that the layer before had, and run from the reference's stream and from the column's own.

T tokens, D hidden, E experts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilemoe.config import ModelConfig
from mobilemoe.verify.columns import Floats, LayerOutput, Run
from mobilemoe.verify.files import Float32, Weights, is_quantised, row_chunks, rows_of
from mobilemoe.weights import Weight

if TYPE_CHECKING:
    import torch

    from mobilemoe.model import Routing
    from mobilemoe.model.transformer import Layer

# The memory of one layer's weights, by their names inside it.
Buffers = dict[str, Float32]
# Reads rows [start, stop) of a weight, its axes but the last flattened, as float32.
Read = Callable[[Weight, int, int], Float32]

MISSING = "torch is not installed: pip install 'mobilemoe[train]'"


def torch_problem() -> str | None:
    """Return why torch cannot be used; None if it can."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return MISSING
    return None


def float_reader(weights: Weights) -> Read:
    """Return a reader of the values that `weights` holds, dequantised if it is INT4."""

    def read(weight: Weight, start: int, stop: int) -> Float32:
        return weights.floats(weight, start, stop)

    return read


def fake_quantised_reader(weights: Weights) -> Read:
    """Return a reader of BF16 weights as their INT4 file would hold them.

    What the file does not round to INT4 it keeps as it is.
    """
    import torch

    from mobilemoe.quant.fake import quantize_dequantize

    def read(weight: Weight, start: int, stop: int) -> Float32:
        values = weights.floats(weight, start, stop)
        if not is_quantised(weight):
            return values
        rounded: Float32 = quantize_dequantize(torch.from_numpy(values)).numpy()
        return rounded

    return read


class TorchColumn:
    """The torch model of `config` with the weights that `read` gives.

    Columns that share `buffers` take turns: one enters a layer and leaves it before the next.
    """

    def __init__(self, config: ModelConfig, read: Read, buffers: Buffers) -> None:
        self._config = config
        self._read = read
        self._weights = {weight.name: weight for weight in config.weights()}
        self._layer: Layer
        self._rope: tuple[torch.Tensor, torch.Tensor]
        self._own_TD: torch.Tensor
        self._buffers = buffers
        self._own_logits_TV: Floats
        self._topk_ids: list[Any] = []

    def start(self, ids_T: Sequence[int]) -> None:
        """Look the embeddings up and lay out the positions."""
        import torch

        from mobilemoe.model.rope import rope_table

        self._rope = rope_table(self._config, len(ids_T), torch.device("cpu"))
        weight = self._weights["model.embed_tokens.weight"]
        rows = [self._read(weight, token, token + 1) for token in ids_T]
        self._own_TD = torch.from_numpy(np.concatenate(rows))

    def enter(self, layer: int) -> None:
        """Build `layer` and run it on the column's own stream."""
        import torch

        self._layer = build_layer(self._config, layer, self._tensors(f"model.layers.{layer}."))
        trace: list[Routing] = []
        with torch.inference_mode():
            self._own_TD = self._layer(self._own_TD[None], self._rope, None, trace)[0]
        self._topk_ids += [routing.topk_ids_TK.numpy() for routing in trace]

    def attention(self, x_TD: Floats) -> Floats:
        """Return the attention of input_layernorm(x)."""
        import torch

        with torch.inference_mode():
            h_BTD = self._layer.input_layernorm(_tensor(x_TD)[None])
            y_TD: Floats = self._layer.self_attn(h_BTD, *self._rope)[0].numpy()
        return y_TD

    def feed_forward(self, x_TD: Floats) -> LayerOutput:
        """Return what the feed-forward of post_attention_layernorm(x) gives, and its routing."""
        import torch

        from mobilemoe.model import MoE

        trace: list[Routing] = []
        feed_forward = self._layer.feed_forward
        with torch.inference_mode():
            h_BTD = self._layer.post_attention_layernorm(_tensor(x_TD)[None])
            if not isinstance(feed_forward, MoE):
                return LayerOutput(feed_forward(h_BTD)[0].numpy())
            y_TD: Floats = feed_forward(h_BTD, None, trace)[0].numpy()
        routing = trace[0]
        return LayerOutput(y_TD, routing.router_logits_TE.numpy(), routing.topk_ids_TK.numpy())

    def head(self, x_TD: Floats) -> Floats:
        """Return the logits of the final norm of x; the column's own are made beside them."""
        import torch

        both_TV = self._logits(torch.cat([_tensor(x_TD), self._own_TD]))
        self._own_logits_TV = both_TV[len(x_TD) :]
        return both_TV[: len(x_TD)]

    def run(self) -> Run:
        """Return the column's own logits and routing."""
        ids = np.stack(self._topk_ids) if self._topk_ids else None
        return Run(self._own_logits_TV, ids)

    def _logits(self, x_TD: torch.Tensor) -> Floats:
        """Return the logits [T, V], made with some rows of the head at a time."""
        import torch
        import torch.nn.functional as F

        from mobilemoe.model.norm import RMSNorm

        config = self._config
        name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        norm.load_state_dict(dict(self._tensors("model.norm.")))
        logits_TV = np.empty((len(x_TD), config.vocab_size), np.float32)
        with torch.inference_mode():
            h_TD = norm(x_TD)
            for start, stop in row_chunks(config.vocab_size, config.hidden_size):
                rows = torch.from_numpy(self._read(self._weights[name], start, stop))
                logits_TV[:, start:stop] = F.linear(h_TD, rows).numpy()
        return logits_TV

    def _tensors(self, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights under `prefix`, named without it, in buffers used again and again."""
        import torch

        for weight in self._weights.values():
            if not weight.name.startswith(prefix):
                continue
            name, shape = weight.name.removeprefix(prefix), (rows_of(weight), weight.shape[-1])
            if name not in self._buffers:
                self._buffers[name] = np.empty(shape, np.float32)
            values = self._buffers[name]
            for start, stop in row_chunks(*shape):
                values[start:stop] = self._read(weight, start, stop)
            yield name, torch.from_numpy(values).view(weight.shape)


def build_layer(
    config: ModelConfig, index: int, tensors: Iterator[tuple[str, torch.Tensor]]
) -> Layer:
    """Return layer `index` with `tensors` as its parameters, without a copy of them."""
    import torch

    from mobilemoe.model.transformer import Layer

    with torch.device("meta"):
        layer = Layer(config, index)
    layer.load_state_dict(dict(tensors), assign=True)
    return layer.eval()


def _tensor(x_TD: Floats) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(x_TD, np.float32))
