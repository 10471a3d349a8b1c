"""Cleaning, one case per rule."""

from __future__ import annotations

from mobilemoe.data.knowledge import Seen, entries, topic_documents
from mobilemoe.data.prose import clean, first_sentence
from mobilemoe.data.source_code import code_documents
from mobilemoe.data.stdlib import Module, parse


def _module(source: str) -> Module:
    return Module("some.module", source, parse(source))


def test_markup_becomes_prose() -> None:
    raw = """Use :func:`os.path.join` or ``x`` with :class:`~a.B`.

    Heading
    =======

    .. versionadded:: 3.4
    .. note:: Be careful::
    """
    assert clean(raw) == "Use `os.path.join` or `x` with `a.B`.\n\nHeading\n\nNote: Be careful:"


def test_doctest_becomes_code_with_results() -> None:
    raw = "Add.\n\n>>> add(1,\n...     2)  # doctest: +SKIP\n3\n\nDone."
    assert clean(raw) == "Add.\n\n    add(1,\n        2)\n    # 3\n\nDone."


def test_wrapped_sentences_are_joined_and_lists_are_not() -> None:
    wrapped = (
        "This is a sentence that somebody wrapped by hand\nat about fifty characters.  It ends."
    )
    listed = "- one is short\n- two is short too"
    joined = "This is a sentence that somebody wrapped by hand at about fifty characters. It ends."
    assert clean(f"{wrapped}\n\n{listed}") == f"{joined}\n\n{listed}"


def test_first_sentence_survives_abbreviations() -> None:
    assert (
        first_sentence("Join, e.g. Paths, with\n'/'. Then stop.") == "Join, e.g. Paths, with '/'."
    )


def test_entries_have_names_and_signatures() -> None:
    source = 'class A(B):\n    "What A is."\n    def f(self, *, x=1):\n        "What f does."\n'
    found = entries(_module(source))
    assert [(e.kind, e.full_name, e.signature, e.text) for e in found] == [
        ("class", "some.module.A", "A(B)", "What A is."),
        ("method", "some.module.A.f", "A.f(self, *, x=1)", "What f does."),
    ]


def test_seen_keeps_a_paragraph_at_its_first_place() -> None:
    seen = Seen()
    long = "a paragraph that is long enough to be told apart"
    assert seen.fresh(f"{long}\n\nshort") == f"{long}\n\nshort"
    assert seen.fresh(f"{long} \n\nshort\n\nnew") == "short\n\nnew"


def test_topics_do_not_repeat_each_other() -> None:
    paragraphs: list[str] = []
    for document in topic_documents(Seen()):
        parts = document.text.split("\n\n")
        paragraphs += [" ".join(p.split()) for p in parts if len(" ".join(p.split())) >= 40]
    assert len(paragraphs) == len(set(paragraphs))


def test_large_class_is_cut_under_its_header() -> None:
    method = '    def f{0}(self):\n        """Do {0}."""\n        return "{1}"\n'
    body = "\n".join(method.format(i, "x" * 900) for i in range(8))
    documents = code_documents(_module(f"@decorate\nclass Big(Base,\n          Other):\n{body}"))
    assert [document.text.count("return") for document in documents] == [3, 3, 2]
    assert "@decorate\nclass Big" in documents[0].text
    for number, document in enumerate(documents):
        assert "class Big(Base,\n          Other):" in document.text
        assert f"def f{3 * number}(" in document.text and f"def f{3 * number + 1}(" in document.text


def test_long_docstring_keeps_its_first_paragraph() -> None:
    rest = "\n".join(["    More about it that is only in the knowledge domain."] * 6)
    source = (
        f'def f(a):\n    """Say what f does.\n\n{rest}\n    """\n    return a + 1  # {"y" * 99}\n'
    )
    (document,) = code_documents(_module(source))
    assert '    """Say what f does."""\n    return a + 1' in document.text


def test_table_is_dropped() -> None:
    table = "TABLE = {\n" + "\n".join(f"    {i}: {i * i}," for i in range(300)) + "\n}\n"
    function = f"def f():\n    return {'z' * 120!r}\n"
    (document,) = code_documents(_module(table + function))
    assert "TABLE" not in document.text and "def f()" in document.text
