"""The knowledge domain: reference pages made of docstrings and of Python's help topics.

Docstrings are read from syntax trees and topics from the source of `pydoc_data.topics`;
nothing is imported. Help topics overlap (the section on `while` is a topic and a part of
"compound"), and docstrings are copied between modules: each paragraph of prose is kept at
its first place only, small topics before large ones, so it cannot lie on both sides.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mobilemoe.data.documents import UNIT_MARK, Document
from mobilemoe.data.prose import clean
from mobilemoe.data.stdlib import Module, parse, stdlib_folder

PAGE_CHARS = 4000
MINIMUM_CHARS = 80
PARAGRAPH_CHARS = 40  # shorter paragraphs ("Example:") may repeat
SIGNATURE_CHARS = 160

Kind = Literal["module", "class", "function", "method"]


@dataclass(frozen=True)
class Entry:
    """One documented thing: its module, qualified name, call signature and cleaned text."""

    kind: Kind
    module: str
    name: str
    signature: str
    text: str

    @property
    def full_name(self) -> str:
        """The dotted name from the module down."""
        return f"{self.module}.{self.name}" if self.name else self.module


class Seen:
    """The paragraphs that have been used; the one mutable thing of this file."""

    def __init__(self) -> None:
        self._paragraphs: set[str] = set()

    def fresh(self, text: str) -> str:
        """Return the text without the paragraphs used before, and mark its own as used."""
        kept = []
        for paragraph in text.split("\n\n"):
            key = " ".join(paragraph.split())
            if len(key) < PARAGRAPH_CHARS or key not in self._paragraphs:
                kept.append(paragraph)
                self._paragraphs.add(key)
        return "\n\n".join(kept)


def entries(module: Module) -> list[Entry]:
    """Return everything in a module that has a docstring, in source order."""
    found = []
    text = ast.get_docstring(module.tree)
    if text and text.strip():
        found.append(Entry("module", module.name, "", module.name, clean(text)))
    for kind, name, node in _definitions(module.tree.body, "", "function"):
        text = ast.get_docstring(node)
        if text and text.strip():
            found.append(Entry(kind, module.name, name, _signature(name, node), clean(text)))
    return found


_Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(
    body: list[ast.stmt], prefix: str, kind: Literal["function", "method"]
) -> Iterator[tuple[Kind, str, _Node]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield kind, prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield "class", prefix + node.name, node
            yield from _definitions(node.body, f"{prefix}{node.name}.", "method")


def _signature(name: str, node: _Node) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"{name}({bases})" if bases else name
    signature = f"{name}({ast.unparse(node.args)})"
    return signature if len(signature) <= SIGNATURE_CHARS else f"{name}(...)"


def docstring_documents(module_entries: list[Entry], seen: Seen) -> list[Document]:
    """Return the reference pages of one module."""
    sections = []
    for entry in module_entries:
        text = seen.fresh(entry.text)
        if text.strip():
            head = f"{entry.kind} {entry.signature}\n\n" if entry.name else ""
            sections.append(head + text)
    unit = module_entries[0].module if module_entries else ""
    heading = f"Python module {unit}"
    return list(_pages(unit, heading, sections))


def topic_documents(seen: Seen) -> list[Document]:
    """Return Python's help topics, cut into pages; none if the distribution lacks them."""
    documents: list[Document] = []
    for name, raw in sorted(read_topics().items(), key=lambda item: (len(item[1]), item[0])):
        text = seen.fresh(clean(raw))
        documents += _pages(f"topic {name}", f"Python topic: {name}", text.split("\n\n"))
    return documents


def read_topics() -> dict[str, str]:
    """Return the `topics` dictionary of `pydoc_data.topics` without importing it."""
    path = stdlib_folder() / "pydoc_data" / "topics.py"
    if not path.is_file():
        return {}
    for node in parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "topics":
            return {str(key): str(text) for key, text in ast.literal_eval(node.value).items()}
    return {}


def _pages(unit: str, heading: str, sections: Iterable[str]) -> Iterator[Document]:
    """Yield documents of about `PAGE_CHARS`, each under the heading."""
    page: list[str] = []
    number = 0
    for section in [*sections, None]:
        full = sum(map(len, page)) + len(section or "") > PAGE_CHARS
        if page and (section is None or full):
            text = "\n\n".join([heading, *page])
            if len(text) >= MINIMUM_CHARS:
                yield Document("knowledge", f"{unit}{UNIT_MARK}docs{number}", text)
            number += 1
            page = []
        if section:
            page.append(section.strip("\n"))
