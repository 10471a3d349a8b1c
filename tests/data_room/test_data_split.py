"""The split and the texts: disjoint, stable, and free of what must not be there."""

from __future__ import annotations

import ast
import re
from collections import Counter

from mobilemoe.data import DOMAINS, Conversation, Corpus, Document, is_held_out
from mobilemoe.data.corpus import unique_answers
from mobilemoe.data.documents import unique
from mobilemoe.data.maths import math_documents
from mobilemoe.data.stdlib import module_name, module_paths


def test_side_depends_on_nothing_but_the_unit() -> None:
    # Pinned: a unit that changes sides makes every old held-out loss wrong.
    names = ("json", "os", "ast", "heapq", "queue", "bisect")
    assert [name for name in names if is_held_out(name)] == ["json", "queue"]
    held = [f"unit {i}" for i in range(60) if is_held_out(f"unit {i}")]
    assert held == ["unit 21", "unit 32", "unit 42", "unit 48", "unit 56"]


def test_held_out_share_is_near_five_percent() -> None:
    share = sum(is_held_out(f"x{i}") for i in range(20_000)) / 20_000
    assert abs(share - 0.05) < 4 * (0.05 * 0.95 / 20_000) ** 0.5  # four standard deviations


def test_no_text_or_paragraph_lies_on_both_sides(corpus: Corpus) -> None:
    sides: dict[bool, set[str]] = {False: set(), True: set()}
    for document in corpus.documents:
        own = sides[is_held_out(document.unit)]
        own.add(document.text)
        if document.domain == "knowledge":
            own |= {" ".join(p.split()) for p in document.text.split("\n\n") if len(p) > 60}
    assert len(sides[True]) > 20
    shared = sides[True] & sides[False]
    assert not {text for text in shared if not re.match(r"(class|function|method) ", text)}


def test_code_and_docstrings_of_a_module_share_the_side(corpus: Corpus) -> None:
    modules = {module_name(path) for path in module_paths()}
    by_domain = {domain: set() for domain in DOMAINS}
    for document in corpus.documents:
        by_domain[document.domain].add(document.unit)
    assert by_domain["code"] <= modules
    documented = {unit for unit in by_domain["knowledge"] if not unit.startswith("topic ")}
    assert documented <= modules
    assert len(documented & by_domain["code"]) > 20
    talks = {talk.unit for talk in corpus.conversations if talk.domain != "math"}
    assert talks <= modules


def test_no_answer_lies_on_both_sides(corpus: Corpus) -> None:
    sides = {
        side: {t.assistant for t in corpus.conversations if is_held_out(t.unit) == side}
        for side in (False, True)
    }
    math = {t.assistant for t in corpus.conversations if t.domain == "math"}
    assert len(sides[True]) > 10
    assert not (sides[True] & sides[False]) - math


def test_an_answer_is_given_once() -> None:
    rows = [("knowledge", "a", "x"), ("knowledge", "b", "x"), ("code", "c", "x")]
    rows += [("math", "d", "Answer: 1"), ("math", "e", "Answer: 1")]
    talks = [Conversation(domain, "?", answer, name) for domain, name, answer in rows]
    assert [talk.name for talk in unique_answers(talks)] == ["a", "c", "d", "e"]


def test_corpus_gives_no_answer_twice(corpus: Corpus) -> None:
    for domain in ("knowledge", "code"):
        answers = [talk.assistant for talk in corpus.conversations if talk.domain == domain]
        assert len(answers) == len(set(answers)) > 50


def test_unique_keeps_the_first() -> None:
    documents = [
        Document("code", name, text) for name, text in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    assert [d.name for d in unique(documents)] == ["a", "c"]


def test_corpus_holds_no_text_twice(corpus: Corpus) -> None:
    generated = [document.text for document in math_documents(600, 3)]
    assert len(set(generated)) < len(generated)  # so there is something to remove
    texts = [document.text for document in corpus.documents]
    assert len(texts) == len(set(texts))


def test_every_code_document_is_python_of_a_sane_size(corpus: Corpus) -> None:
    code = [d for d in corpus.documents if d.domain == "code"]
    for document in code:
        ast.parse(document.text)
        assert document.text.startswith("# " + document.unit.replace(".", "/") + ".py\n")
        assert "\n\n\n\n" not in document.text
    sizes = sorted(len(d.text) for d in code)
    assert 1000 < sizes[len(sizes) // 2] < 4500


def test_code_documents_hold_nearly_every_definition(corpus: Corpus) -> None:
    """Cutting loses no functions: count the names in the documents and in the sources."""
    units = {d.unit for d in corpus.documents if d.domain == "code"}
    cut, whole = Counter(), Counter()
    for document in corpus.documents:
        if document.domain == "code":
            cut += _functions(document.text)
    for path in module_paths():
        if module_name(path) in units:
            whole += _functions(path.read_text(encoding="utf-8"))
    assert sum((whole - cut).values()) <= 0.01 * sum(whole.values())
    assert sum((cut - whole).values()) == 0


def _functions(source: str) -> Counter[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return Counter(node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))


def test_no_tests_tables_or_packages_are_read() -> None:
    names = {module_name(path) for path in module_paths()}
    assert {"json", "json.decoder", "heapq"} <= names
    parts = {part for name in names for part in name.split(".")}
    assert not parts & {"test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
    assert not any("site-packages" in path.parts for path in module_paths())


def test_finished_functions_are_bodies(corpus: Corpus) -> None:
    talks = [t for t in corpus.conversations if t.domain == "code"]
    assert len(talks) > 50
    for talk in talks:
        head = talk.user.partition("\n\n")[2]
        body = "\n".join("    " + line for line in talk.assistant.split("\n"))
        assert ast.get_docstring(ast.parse(head).body[0])
        ast.parse(f"async def f():\n{body}")
