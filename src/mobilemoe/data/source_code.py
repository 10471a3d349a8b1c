"""The code domain: standard library modules cut at definitions into documents of a few KB.

Every document is valid Python and starts with a comment that names its file. A class too
large for one document is cut between its members and its header is repeated. Long
docstrings keep their first paragraph only: in full they are in the knowledge domain.
Top-level data tables are dropped.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from mobilemoe.data.documents import UNIT_MARK, Document
from mobilemoe.data.stdlib import Module, parse

TARGET_CHARS = 3000  # a document is closed when the next piece would take it beyond this
CLASS_CHARS = 4000  # a larger class is cut between its members
TABLE_CHARS = 1500  # a larger top-level statement without definitions is data
DOCSTRING_CHARS = 240  # a longer docstring keeps its first paragraph
MINIMUM_CHARS = 120

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def code_documents(module: Module) -> list[Document]:
    """Return the documents of one module in source order."""
    source, tree = shorten_docstrings(module)
    path = module.name.replace(".", "/") + ".py"
    texts = [f"# {path}\n{text}" for text in _join(_pieces(source.split("\n"), tree))]
    return [
        Document("code", f"{module.name}{UNIT_MARK}{part}", text)
        for part, text in enumerate(texts)
        if len(text) >= MINIMUM_CHARS
    ]


def _pieces(lines: list[str], tree: ast.Module) -> Iterator[str]:
    """Yield the text of each top-level statement, with the comments above it."""
    done = 0
    for node in tree.body:
        end = node.end_lineno or node.lineno
        if end <= done:  # a second statement on the same line
            continue
        text = _text(lines, done, end)
        if isinstance(node, ast.ClassDef) and len(text) > CLASS_CHARS:
            yield from _class_pieces(lines, node, done)
        elif len(text) <= TABLE_CHARS or _has_definition(node):
            yield text
        done = end


def _class_pieces(lines: list[str], node: ast.ClassDef, start: int) -> Iterator[str]:
    """Yield the members of a class in groups, each under the class's header."""
    first = _first_line(node.body[0])
    header = "\n".join(lines[node.lineno - 1 : _last_colon(lines, node, first)])
    done = first - 1
    members = []
    for member in node.body:
        end = member.end_lineno or member.lineno
        if end > done:
            members.append(_text(lines, done, end))
        done = max(done, end)
    above = _text(lines, start, node.lineno - 1)
    for number, group in enumerate(_join(iter(members))):
        comment = above + "\n" if number == 0 and above.strip() else "\n\n"
        text = f"{header}\n{group}"
        if _parsed(text) is not None:
            yield comment + text


def _last_colon(lines: list[str], node: ast.ClassDef, first: int) -> int:
    """Return the number of the line that ends the header `class Name(...):`."""
    for number in range(node.lineno, first):
        if lines[number - 1].partition("#")[0].rstrip().endswith(":"):
            return number
    return max(node.lineno, first - 1)


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, _Definition) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _has_definition(node: ast.stmt) -> bool:
    return isinstance(node, _Definition) or any(
        isinstance(child, _Definition) for child in ast.walk(node)
    )


def _text(lines: list[str], start: int, stop: int) -> str:
    """Return lines, blank ones above them included."""
    return "\n".join(lines[start:stop]).rstrip()


def _join(pieces: Iterator[str]) -> Iterator[str]:
    """Join neighbouring pieces up to `TARGET_CHARS`; a longer piece stands alone."""
    group: list[str] = []
    for piece in pieces:
        if group and sum(map(len, group)) + len(piece) > TARGET_CHARS:
            yield _closed(group)
            group = []
        group.append(piece)
    if group:
        yield _closed(group)


def _closed(group: list[str]) -> str:
    """Return pieces as one text with at most two blank lines in a row."""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(group).strip("\n"))


def _parsed(text: str) -> ast.Module | None:
    try:
        return parse(text)
    except (SyntaxError, ValueError):
        return None


def shorten_docstrings(module: Module) -> tuple[str, ast.Module]:
    """Return source and tree with long docstrings cut after their first paragraph."""
    lines = module.source.split("\n")
    for node in reversed(list(_docstring_nodes(module.tree))):  # later lines first
        short = _short_docstring(lines, node)
        if short is not None:
            lines[node.lineno - 1 : node.end_lineno] = short
    source = "\n".join(lines)
    tree = _parsed(source)
    return (module.source, module.tree) if tree is None else (source, tree)


def _docstring_nodes(tree: ast.Module) -> list[ast.Expr]:
    nodes = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | _Definition) and ast.get_docstring(node, clean=False):
            statement = node.body[0]
            assert isinstance(statement, ast.Expr)
            nodes.append(statement)
    return sorted(nodes, key=lambda node: node.lineno)


_OPENING = re.compile(r"\s*[rRuU]?(\"\"\"|''')")


def _short_docstring(lines: list[str], node: ast.Expr) -> list[str] | None:
    """Return the lines of the cut docstring, or None if it stays as it is."""
    end = node.end_lineno or node.lineno
    literal = lines[node.lineno - 1 : end]
    opening = _OPENING.match(literal[0])
    long = sum(map(len, literal)) > DOCSTRING_CHARS
    if not (opening and long and literal[-1].endswith(opening[1])):
        return None
    text_seen = bool(literal[0][opening.end() :].strip())
    for number, line in enumerate(literal[1:], start=1):
        if text_seen and not line.strip():
            return [*literal[: number - 1], literal[number - 1] + opening[1]]
        text_seen = text_seen or bool(line.strip())
    return None
