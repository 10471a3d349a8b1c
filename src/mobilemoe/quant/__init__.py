"""INT4 as released: reference mathematics in numpy, fake quantisation in torch (`quant.fake`)."""

from mobilemoe.quant.int4 import dequantize, pack, quantize, round_bf16, unpack

__all__ = ["dequantize", "pack", "quantize", "round_bf16", "unpack"]
