"""Why each number of the chosen model is what it is, by its name in config.json."""

from __future__ import annotations

from mobilemoe.config import LLAMA3_VOCAB_SIZE
from mobilemoe.plan.family import EXPERT_PARALLEL, HEAD_DIM, Shape, kv_heads
from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.result import Reason

PAPER = "arXiv 2605.27358"


def reasons(law: MoELaw, constraints: Constraints, chosen: Candidate) -> tuple[Reason, ...]:
    """Return one reason per number, widths first, the training tokens last."""
    shape = chosen.shape
    experts = () if shape.is_dense else _experts(shape)
    return (
        *_body(law, constraints, chosen),
        Reason(
            "expert_equivalents", shape.expert_equivalents, _why_experts(law, constraints, chosen)
        ),
        *experts,
        Reason("intermediate_size_mlp", shape.always_on_width, _why_always_on(shape)),
        _vocabulary(constraints),
        Reason("max_position_embeddings", constraints.context, "the context that was asked for"),
        _tokens(law, constraints, chosen),
    )


def _body(law: MoELaw, constraints: Constraints, chosen: Candidate) -> tuple[Reason, ...]:
    shape = chosen.shape
    hidden, layers, heads = shape.hidden_size, shape.num_hidden_layers, shape.heads
    ratio = f"{hidden / layers:.1f} of width per layer; the published family has about 40 ({PAPER})"
    depth = ratio if shape.has_family_depth else f"{ratio}, give or take a tenth"
    kv = kv_heads(heads)
    return (
        Reason("hidden_size", hidden, _why_width(law, constraints, chosen)),
        Reason("num_hidden_layers", layers, depth),
        Reason("num_attention_heads", heads, f"heads of {HEAD_DIM} that fill the width ({PAPER})"),
        Reason("head_dim", HEAD_DIM, f"the published family's ({PAPER})"),
        Reason(
            "num_key_value_heads",
            kv,
            f"the published 4 ({PAPER})"
            if kv == 4
            else f"the most up to the published 4 that {heads} heads share evenly ({PAPER})",
        ),
    )


def _why_width(law: MoELaw, constraints: Constraints, chosen: Candidate) -> str:
    limits = ["memory"]
    limits += ["compute"] if constraints.flops_per_token is not None else []
    limits += ["speed"] if constraints.decode_tok_s or constraints.ttft_s else []
    limits += ["training"] if constraints.train_flops is not None else []
    within = f"within the limits on {', '.join(limits)}"
    if chosen.loss is None:
        return f"the most active parameters that the funnel leaves {within}; no law reaches here"
    return (
        f"the law's loss, {chosen.loss.loss:.3f}, is within its error ({law.rmse:.2g}) of the "
        f"lowest {within}; which of several, says the funnel"
    )


def _why_experts(law: MoELaw, constraints: Constraints, chosen: Candidate) -> str:
    experts = chosen.expert_equivalents
    if constraints.prefer != "loss":
        return f"preferred for its {constraints.prefer} among losses the law cannot tell apart"
    if experts != law.best_num_experts():
        return "what the limits leave: see the confidence"
    means = {count: law.mean_loss(count) for count in law.expert_grid}
    equal = [str(count) for count in means if law.is_tie(means[count], means[experts])]
    if law != published_law() or len(equal) == 1:
        return (
            f"the lowest mean loss over the law's sweep; within its error: E = {', '.join(equal)}"
        )
    return (
        f"the lowest mean loss over the law's sweep; E = {', '.join(equal)} are within its error, "
        f"so this is a convention; gains flatten after 8 and models were trained with it ({PAPER})"
    )


def _experts(shape: Shape) -> tuple[Reason, ...]:
    g, shared = shape.granularity, shape.shared_fine_experts
    granularity = (
        f"the published one; 16 gains less than .01 and takes about half more time ({PAPER})"
        if g == 8
        else "as asked; 8 is the published one"
    )
    replaced = f" less the {shared} that the shared expert replaces" if shared else ""
    return (
        Reason("granularity", g, granularity),
        Reason(
            "num_local_experts",
            shape.routed_experts,
            f"{g} x {shape.expert_equivalents} fine experts{replaced}; {EXPERT_PARALLEL} devices "
            "share them evenly",
        ),
        Reason(
            "intermediate_size",
            shape.fine_width,
            f"4 x width / {g}: one fine expert; a multiple of 32 for INT4",
        ),
        Reason(
            "num_experts_per_tok",
            shape.top_k,
            "so that a token's feed-forward is 4 x width, as in the dense model",
        ),
    )


def _why_always_on(shape: Shape) -> str:
    if shape.is_dense:
        return f"4 x width: the dense model's feed-forward ({PAPER})"
    if not shape.shared_expert:
        return "no shared expert, as asked; the published models have one"
    return (
        f"the shared expert, as wide as {shape.shared_fine_experts} fine ones; it lowers the loss "
        f"at equal active and total parameters ({PAPER})"
    )


def _vocabulary(constraints: Constraints) -> Reason:
    size = constraints.vocab_size
    released = "the released tokenizer's"
    why = released if size == LLAMA3_VOCAB_SIZE else "as set"
    return Reason("vocab_size", size, f"{why}; the embedding is tied to the head")


def _tokens(law: MoELaw, constraints: Constraints, chosen: Candidate) -> Reason:
    if constraints.tokens is not None:
        why = "as asked"
    elif constraints.train_flops is not None:
        why = f"{constraints.train_flops:.3g} FLOPs / (6 x active parameters) ({PAPER})"
    else:
        why = "no training budget given: the most the law was fitted on, to compare at"
    return Reason("tokens", round(chosen.tokens), why)
