"""Does quantisation-aware training help? Said with its uncertainty, whatever the answer."""

from __future__ import annotations

from collections.abc import Mapping

from mobilemoe.evaluate.heldout import HeldoutLoss, paired_gap

Losses = Mapping[str, HeldoutLoss]


def quantization_verdict(bf16: Losses, ptq: Losses, qat: Losses, seed: int) -> str:
    """Compare the distances of PTQ and QAT to BF16 after the same tokens.

    All three were trained on the same tokens from the same weights; `bf16` and `ptq` without
    rounding, `qat` with it. Distances are nats per token, with a 95 % paired bootstrap.
    """
    ptq_gap, ptq_low, ptq_high = paired_gap(ptq, bf16, seed)
    qat_gap, qat_low, qat_high = paired_gap(qat, bf16, seed)
    _, gain_low, gain_high = paired_gap(ptq, qat, seed)
    closer = abs(qat_gap) < abs(ptq_gap)
    certain = gain_low > 0 or gain_high < 0
    distances = (
        f"After the same tokens INT4 is {ptq_gap:+.4f} nats from BF16 when rounded afterwards "
        f"(95 % interval {ptq_low:+.4f} to {ptq_high:+.4f}) and {qat_gap:+.4f} when trained with "
        f"rounding ({qat_low:+.4f} to {qat_high:+.4f})."
    )
    if not certain:
        return f"{distances} The difference is within the noise of this held-out text."
    if closer:
        return f"{distances} Quantisation-aware training is closer to BF16."
    return f"{distances} Quantisation-aware training is not closer to BF16 in this run."
