"""The decoder: embedding, pre-norm layers, final norm, tied head.

B batch, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilemoe.checkpoint import Checkpoint, open_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.model.attention import Attention
from mobilemoe.model.moe import MoE, Routing, SwiGLU
from mobilemoe.model.norm import RMSNorm
from mobilemoe.model.rope import rope_table

# Standard deviation of fresh weights times sqrt(D). Our choice, the paper does not publish its
# own: 0.018 for S, near the usual 0.02, and measurably better than 0.02 for nano (docs/log.md).
INIT_SCALE = 0.5


class Layer(nn.Module):
    """x += attention(norm(x)); x += feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(D, eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(D, eps)
        self.feed_forward: MoE | SwiGLU
        if config.is_moe_layer(index):
            self.feed_forward = MoE(config)
        else:
            self.feed_forward = SwiGLU(D, config.intermediate_size_mlp)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor],
        capacity_factor: float | None,
        trace: list[Routing] | None,
    ) -> Tensor:
        """Return [B, T, D]."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), *rope)
        h_BTD = self.post_attention_layernorm(x_BTD)
        y_BTD: Tensor
        if isinstance(self.feed_forward, MoE):
            y_BTD = self.feed_forward(h_BTD, capacity_factor, trace)
        else:
            y_BTD = self.feed_forward(h_BTD)
        return x_BTD + y_BTD


class Decoder(nn.Module):
    """Everything below the head; its name makes the checkpoint's `model.` prefix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [Layer(config, index) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MobileMoE(nn.Module):
    """A MobileMoE or dense model; parameter names are the BF16 checkpoint's tensor names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        untied = not config.tie_word_embeddings
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, False) if untied else None

    def init_weights(self, generator: torch.Generator) -> MobileMoE:
        """Draw fresh normal weights; what writes to the residual is 1/sqrt(2 layers) smaller."""
        base_std = INIT_SCALE / self.config.hidden_size**0.5
        residual_std = base_std / (2 * self.config.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                is_residual = "o_proj" in name or "down_proj" in name
                std = residual_std if is_residual else base_std
                nn.init.normal_(parameter, std=std, generator=generator)
        return self

    @classmethod
    def from_pretrained(cls, path: str | Path | Checkpoint) -> MobileMoE:
        """Load a BF16 or INT4 checkpoint folder as float32 (INT4 is dequantised).

        Raises:
            CheckpointError: if the folder is missing, damaged or of another kind.
        """
        checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
        model = cls(checkpoint.config)
        state = {w.name: torch.from_numpy(values) for w, values in checkpoint.read_weights()}
        model.load_state_dict(state)
        return model.eval()

    def forward(
        self,
        ids_BT: Tensor,
        *,
        capacity_factor: float | None = None,
        trace: list[Routing] | None = None,
    ) -> Tensor:
        """Return logits [B, T, V] for token ids [B, T]; arguments as for `hidden`."""
        x_BTD = self.hidden(ids_BT, capacity_factor=capacity_factor, trace=trace)
        return F.linear(x_BTD, self.head_weight)

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        capacity_factor: float | None = None,
        trace: list[Routing] | None = None,
    ) -> Tensor:
        """Return the final normalised states [B, T, D], which the head turns into logits.

        `capacity_factor` switches drop-and-pad dispatch on; `trace` collects one `Routing` per
        MoE layer, tokens flattened to [B T].

        Raises:
            MobileMoEError: if an id is outside the vocabulary, there is none, or T is above
                `max_position_embeddings`.
        """
        _check_ids(ids_BT, self.config)
        rope = rope_table(self.config, ids_BT.shape[1], ids_BT.device)
        x_BTD = self.model.embed_tokens(ids_BT)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, rope, capacity_factor, trace)
        normalised_BTD: Tensor = self.model.norm(x_BTD)
        return normalised_BTD

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]: the embedding, if tied."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        weight: Tensor = head.weight
        return weight


def _check_ids(ids_BT: Tensor, config: ModelConfig) -> None:
    tokens, limit = ids_BT.shape[-1], config.max_position_embeddings
    if ids_BT.numel() == 0 or tokens > limit:
        raise MobileMoEError(
            f"ids have shape {list(ids_BT.shape)}; allowed: 1 to {limit} tokens per row",
            hint="split the text, or use a model with more max_position_embeddings",
        )
    low, high = (int(value) for value in ids_BT.aminmax())
    if low < 0 or high >= config.vocab_size:
        wrong = low if low < 0 else high
        raise MobileMoEError(
            f"token id {wrong} is out of range; allowed: 0 to {config.vocab_size - 1}",
            hint="was the text encoded with this checkpoint's tokenizer?",
        )
