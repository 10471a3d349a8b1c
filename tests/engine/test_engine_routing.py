"""Routing traces: collected from prompts, added, written and read; anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from engine_support import INT4_FOLDERS, SMALL, write_random
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mobilemoe.engine import RoutingTrace, collect_routing, load
from mobilemoe.errors import MobileMoEError

FOLDER = INT4_FOLDERS[0]


def test_a_trace_counts_every_choice():
    model = load(FOLDER, threads=1)
    expected = np.load(FOLDER / "expected.npz")
    ids, topk_ids = expected["ids"], expected["topk_ids"]
    trace = collect_routing(load(FOLDER, threads=1, activations="fp32"), [ids, ids])
    E = model.config.num_local_experts
    for layer, counts_E in enumerate(trace.counts_LE):
        assert np.array_equal(counts_E, 2 * np.bincount(topk_ids[layer].ravel(), minlength=E))


@given(counts=st_numpy.arrays(np.int64, (2, 3), elements=st.integers(0, 2**53)))
def test_reading_gives_what_was_written(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    RoutingTrace(counts).save(path)
    assert np.array_equal(RoutingTrace.read(path).counts_LE, counts)
    assert np.array_equal(RoutingTrace.read(str(path)).counts_LE, counts)


def test_traces_of_one_model_add_up():
    one, other = RoutingTrace(np.array([[1, 2]])), RoutingTrace(np.array([[10, 0]]))
    assert (one + other).counts_LE.tolist() == [[11, 2]]
    with pytest.raises(MobileMoEError, match=r"shape \[1, 2\]; allowed: \[2, 1\]"):
        RoutingTrace(np.array([[1], [2]])) + one


GOOD = {"kind": "mobilemoe routing trace", "counts": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        json.dumps(GOOD | {"more": 1}),
        json.dumps(GOOD | {"kind": "x"}),
        *(
            json.dumps(GOOD | {"counts": counts})
            for counts in (
                [],
                [[]],
                [[1], [1, 2]],
                [[-1]],
                [[1.5]],
                [[True]],
                [["1"]],
                [[2**60]],
                3,
            )
        ),
        '{"kind": "mobilemoe routing trace", "counts": [[NaN]]}',
        '{"kind": "x", "kind": "mobilemoe routing trace", "counts": [[1]]}',
        " " * 1_000_001,
        "\udcff",
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "trace.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(MobileMoEError, match="cannot read a routing trace") as caught:
        RoutingTrace.read(path)
    assert "--save-routing" in caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(MobileMoEError, match="cannot read a routing trace"):
        RoutingTrace.read(tmp_path / "none.json")


@pytest.mark.parametrize("counts", [np.array([1]), np.array([[-1]]), np.array([[0.5]]), [[1]]])
def test_a_table_that_does_not_count_is_refused(counts):
    with pytest.raises(MobileMoEError, match="other entries than counts"):
        RoutingTrace(counts)


def test_the_trace_of_another_model_is_refused(tmp_path: Path):
    write_random(tmp_path / "model", SMALL)
    trace = RoutingTrace(np.ones((3, 8), np.int64))
    with pytest.raises(MobileMoEError, match=r"shape \[3, 8\]; allowed: \[3, 7\]"):
        load(tmp_path / "model", threads=1, resident=10**6, routing_trace=trace)
    with pytest.raises(MobileMoEError, match="routing_trace is given without resident"):
        load(tmp_path / "model", threads=1, routing_trace=trace)
