"""The content of `report.json`: its parts as typed dicts.

They are the only definition: `mobilemoe.demo.validate` walks their annotations. A
`Measured` value may be null (or NaN); the page then says "not measured". The parts that a
short run may leave out are `NotRequired`; whatever is present must be complete.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

SCHEMA_VERSION = 1
Measured = float | None


class Seconds(TypedDict):
    """Wall-clock time of each step of the run."""

    design: Measured
    data: Measured
    pretrain: Measured
    midtrain: Measured
    sft: Measured
    qat: Measured
    evaluate: Measured
    bench: Measured
    total: Measured


class Machine(TypedDict):
    """Where it ran."""

    cpu: str
    cores: int
    memory_gb: Measured
    os: str
    instruction_set: str


class Versions(TypedDict):
    """What it ran with."""

    mobilemoe: str
    python: str
    torch: str
    numpy: str
    tokenizers: str


class Budget(TypedDict):
    """What the design had to fit into."""

    memory_bytes: int
    context: int
    flops_per_token: int
    train_minutes: Measured


class FunnelStep(TypedDict):
    """One rule of the design, and how many architectures it left."""

    step: str
    rule: str
    left: int


class Shape(TypedDict):
    """One architecture with what it costs."""

    name: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_local_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    intermediate_size_mlp: int
    vocab_size: int
    total_params: int
    active_params: int
    weight_bytes_int4: int
    weight_bytes_bf16: int
    kv_bytes_per_token: int
    flops_per_token: int


class Design(TypedDict):
    """From the budget to one architecture and its dense twin."""

    budget: Budget
    funnel: list[FunnelStep]
    chosen: Shape
    twin: Shape
    notes: list[str]


class Domain(TypedDict):
    """How much of one domain there is."""

    documents: int
    bytes: int
    train_tokens: int
    heldout_tokens: int


class Data(TypedDict):
    """The corpus."""

    sha256: str
    vocab_size: int
    domains: dict[str, Domain]


class Curve(TypedDict):
    """Training loss [nats per token]; `tokens` counts from the start of the stage."""

    tokens: list[float]
    loss: list[Measured]


class Stage(TypedDict):
    """One training stage; losses are in nats per token."""

    name: str
    purpose: str
    for_domains: list[str]
    tokens: int
    steps: int
    seconds: Measured
    tok_s: Measured
    context: int
    peak_lr: Measured
    dispatch: Literal["drop-and-pad", "dropless"]
    mixture: dict[str, Measured]
    curve: Curve
    heldout_before: dict[str, Measured]
    heldout_after: dict[str, Measured]
    lowered: bool | None
    dropped_share: Measured


class PerplexityRow(TypedDict):
    """Held-out perplexity of one form of the model; `perplexity` has "mean" and the domains."""

    name: str
    note: str
    perplexity: dict[str, Measured]


class SeedRow(TypedDict):
    """Mean perplexity of one repetition."""

    seed: int
    control_bf16: Measured
    control_ptq: Measured
    qat: Measured


class Quantization(TypedDict):
    """What INT4 costs, and what quantisation-aware training wins back."""

    heldout_tokens: int
    rows: list[PerplexityRow]
    seeds: list[SeedRow]
    verdict: str


class Experts(TypedDict):
    """Use of experts: `share[layer][domain][expert]` sums to 1 over the experts."""

    domains: list[str]
    share: list[list[list[Measured]]]
    reading: str


class FileBytes(TypedDict):
    """One checkpoint: what the plan said and what the disk holds."""

    planned_tensor_bytes: int | None
    tensor_bytes: int | None
    header_bytes: int | None
    file_bytes: int | None


class Files(TypedDict):
    """The checkpoints written."""

    bf16: FileBytes
    int4: FileBytes


class Parity(TypedDict):
    """The engine against the fake-quantised torch model, and its int8 mode against the exact."""

    tokens: int
    relative_error: Measured
    max_abs_error: Measured
    int8_median_cosine: Measured
    argmax_agreement: Measured


class SpeedModel(TypedDict):
    """One model on this machine; lists hold every round, in order."""

    name: str
    ttft_ms: list[Measured]
    prefill_tok_s: list[Measured]
    decode_tok_s: list[Measured]
    peak_rss_mib: Measured
    weight_bytes_int4: int
    active_params: int
    trained: bool


class Speed(TypedDict):
    """The engine's speed, the models interleaved round by round."""

    rounds: int
    threads: int
    instruction_set: str
    prompt_tokens: int
    new_tokens: int
    models: list[SpeedModel]


class Sample(TypedDict):
    """One generated text."""

    kind: Literal["completion", "chat"]
    prompt: str
    text: str


class Report(TypedDict):
    """Everything that the page shows."""

    schema: int
    title: str
    command: str
    seed: int
    started: str
    seconds: Seconds
    machine: Machine
    versions: Versions
    design: Design
    data: NotRequired[Data | None]
    stages: NotRequired[list[Stage] | None]
    quantization: NotRequired[Quantization | None]
    experts: NotRequired[Experts | None]
    files: NotRequired[Files | None]
    parity: NotRequired[Parity | None]
    speed: NotRequired[Speed | None]
    samples: NotRequired[list[Sample] | None]
    warnings: list[str]
