"""Docstrings and help topics turned into plain prose.

ReStructuredText roles, directives and underlines go; doctest sessions become indented code
with their results as comments; paragraphs wrapped by hand become one line.
"""

from __future__ import annotations

import re
from inspect import cleandoc

_ROLE = re.compile(r":[a-zA-Z:]+:`~?([^`<]+?)(?:\s*<[^>]*>)?`")
_LITERAL = re.compile(r"``(.+?)``")
_DIRECTIVE = re.compile(r"^(\s*)\.\. (\w[\w-]*)::\s*(.*)$")
_NAMED_DIRECTIVES = frozenset({"note", "warning", "seealso", "important", "tip", "caution"})
_RULE = re.compile(r"^\s*([=\-~^*#_.+\"'])\1{2,}\s*$")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)\s+(?=[A-Z`'\"(])")
_FIELD = re.compile(r"^(\s*):(?:param|arg|keyword)?\s*(\w+(?: \w+)?):\s+")
_WRAPPED_CHARS = 45  # a line shorter than this inside a paragraph was broken on purpose


def clean(text: str) -> str:
    """Return a docstring or topic as prose; code examples keep their indentation."""
    lines = _examples(cleandoc(text.replace("\f", "")).split("\n"))
    lines = [_line(line) for line in lines if not _dropped(line)]
    paragraphs = re.split(r"\n{2,}", "\n".join(lines).strip("\n"))
    return "\n\n".join(_unwrap(paragraph) for paragraph in paragraphs if _is_prose(paragraph))


def first_sentence(text: str) -> str:
    """Return the first sentence of cleaned prose, on one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return _SENTENCE_END.split(paragraph, maxsplit=1)[0]


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is neither empty nor a row of a drawn table."""
    return bool(paragraph.strip()) and not paragraph.lstrip().startswith(("+--", "+==", "|"))


def _dropped(line: str) -> bool:
    directive = _DIRECTIVE.match(line)
    if directive and directive[2].lower() not in _NAMED_DIRECTIVES:
        return True
    return bool(_RULE.match(line)) or line.strip().startswith(("$Id", "vim:", "-*-"))


def _line(line: str) -> str:
    """Normalise the markup inside one line."""
    line = line.rstrip()
    directive = _DIRECTIVE.match(line)
    if directive:
        line = f"{directive[1]}{directive[2].capitalize()}: {directive[3]}".rstrip()
    line = _ROLE.sub(r"`\1`", line)
    line = _LITERAL.sub(r"`\1`", line)
    line = _FIELD.sub(r"\1\2: ", line)
    if line.strip() == "::":
        return ""
    return line[:-1] if line.endswith("::") else line


def _examples(lines: list[str]) -> list[str]:
    """Turn doctest sessions into code; what was printed becomes a comment."""
    out: list[str] = []
    inside = False
    for line in lines:
        bare = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        if bare.startswith(">>>"):
            inside = True
            out.append(_prompted(indent, bare))
        elif inside and (bare.startswith("... ") or bare == "..."):
            out.append(_prompted(indent, bare))
        elif inside and bare:
            out.append(f"{indent or '    '}# {bare}")
        else:
            inside = False
            out.append("" if bare == "<BLANKLINE>" else line)
    return out


def _prompted(indent: str, bare: str) -> str:
    code = bare[4:] if len(bare) > 3 and bare[3] == " " else bare[3:]
    code = re.sub(r"\s*#\s*doctest:.*$", "", code)
    return f"{indent or '    '}{code}".rstrip()


def _unwrap(paragraph: str) -> str:
    """Join the lines of a paragraph of running text; leave lists, tables and code alone."""
    lines = paragraph.split("\n")
    indents = {len(line) - len(line.lstrip()) for line in lines[1:]}
    if len(lines) < 2 or len(indents) != 1:
        return paragraph
    first = lines[0]
    hanging = indents.pop()
    own = len(first) - len(first.lstrip())
    bullet = re.match(r"\s*(?:[*\-+o]|\d+[.)])\s+", first)
    if hanging != (bullet.end() if bullet else own) or not _is_running(lines):
        return paragraph
    text = " ".join([first.rstrip(), *(line.strip() for line in lines[1:])])
    return text[: len(first) - len(first.lstrip())] + re.sub(r"  +", " ", text.lstrip())


def _is_running(lines: list[str]) -> bool:
    """Whether the lines look like wrapped sentences."""
    if any(len(line) < _WRAPPED_CHARS for line in lines[:-1]):
        return False
    if any(re.match(r"\s*(?:[*\-+#|>]|\d+[.)]) ", line) for line in lines[1:]):
        return False
    text = " ".join(line.strip() for line in lines)
    letters = sum(char.isalpha() or char == " " for char in text)
    return letters > 0.75 * len(text) and "   " not in text
