"""The process behind a measured checkpoint: one model on our engine, one context.

Setup: path, ids, threads, context, activations, kv. Requests: `do` is "prepare" (reach the depth
and run once, untimed), "run" (one timed round), "fill" (a prompt and some tokens, to see the
memory) or "memory".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobilemoe import engine
from mobilemoe.profile.memory import peak_rss_mib
from mobilemoe.profile.process import Answer, serve
from mobilemoe.profile.track import Track, case_of


class SessionRunner:
    """Rounds on one session of a model."""

    def __init__(self, model: engine.Model, ids: list[int]) -> None:
        self._model = model
        self._session = model.session()
        self._track = Track(self._session, ids)

    def about(self) -> Answer:
        """Say how the model runs."""
        return {
            "threads": self._model.threads,
            "instruction_set": self._model.instruction_set,
            "activations": self._model.activations,
            "kv_format": self._model.kv,
        }

    def run(self, request: Answer) -> Answer:
        """Answer one request."""
        if request["do"] == "memory":
            return {"peak_rss_mib": peak_rss_mib()}
        if request["do"] == "fill":
            self._track.prefill(request["tokens"], 0)
            self._track.decode(request["new_tokens"], request["tokens"])
            return {"peak_rss_mib": peak_rss_mib()}
        seconds = self._track.run(*case_of(request))
        return {} if request["do"] == "prepare" else {"seconds": seconds, **self._experts(request)}

    def _experts(self, request: Answer) -> dict[str, float]:
        """Return how many different experts a layer used in the last append, on average."""
        experts_LTK = self._session.routing()
        if request["kind"] == "decode" or experts_LTK.size == 0:
            return {"experts": float(self._model.config.num_experts_per_tok)}
        return {"experts": float(np.mean([np.unique(layer).size for layer in experts_LTK]))}


def run_round(model: engine.Model, prompt_ids: list[int], new_tokens: int) -> dict[str, Any]:
    """Generate greedily once on a new session; the first token is timed apart from the others."""
    runner = SessionRunner(model, [*prompt_ids, prompt_ids[-1]])
    prompt = {"do": "run", "kind": "prefill", "tokens": len(prompt_ids), "depth": 0}
    others = {"do": "run", "kind": "decode", "tokens": new_tokens - 1, "depth": len(prompt_ids)}
    return round_speed(len(prompt_ids), runner.run(prompt), runner.run(others))


def round_speed(prompt_tokens: int, prefill: Answer, decode: Answer) -> dict[str, Any]:
    """Return TTFT and both speeds of one round."""
    (ttft,) = prefill["seconds"]
    return {
        "ttft_ms": 1e3 * ttft,
        "prefill_tok_s": prompt_tokens / ttft,
        "decode_tok_s": len(decode["seconds"]) / sum(decode["seconds"]),
    }


def start(setup: Answer) -> SessionRunner:
    """Load the model of a setup line."""
    model = engine.load(
        setup["path"],
        threads=setup["threads"],
        context=setup["context"],
        activations=setup.get("activations"),
        kv=setup.get("kv"),
    )
    return SessionRunner(model, setup["ids"])


if __name__ == "__main__":
    serve(start)
