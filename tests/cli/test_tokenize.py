"""`mobilemoe tokenize`: ids, one row per token, the chat around a text, and the refusals."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from mobilemoe.checkpoint import ChatFormat, Tokenizer, synthetic_tokenizer_json, token_spans
from mobilemoe.config import ModelConfig

from .conftest import COMMAND, Run

TEXT = "héllo\n<|eot|> :heart: [b]"
BOS, START, END, EOT = 0, 2, 3, 4


def ids_of(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_ids_are_those_that_generate_reads(run: Run, base_model: Path) -> None:
    done = run("tokenize", base_model, TEXT)
    assert ids_of(done) == Tokenizer.from_folder(base_model).encode(TEXT)
    assert done.stdout.count("\n") == 1
    size = len(TEXT.encode()) - len("<|eot|>")
    assert done.stderr == (
        f"{size + 2} tokens, 2 of them special; 1.00 bytes per other token; BOS added\n"
    )


def test_bos_in_the_text_is_not_called_added(run: Run, base_model: Path) -> None:
    done = run("tokenize", base_model, "<|begin_of_text|>hi", "--json", "--explain")
    document = json.loads(done.stdout)
    assert document["ids"][:2] == [BOS, document["ids"][1]] != [BOS, BOS]
    assert document["bos_added"] is False
    assert (document["tokens"][0]["start"], document["tokens"][0]["end"]) == (0, 17)


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_stdin_is_read_to_the_byte(run: Run, base_model: Path, arguments: tuple[str, ...]) -> None:
    text = "a\r\nb\r c\n\n"
    done = run("tokenize", base_model, *arguments, stdin=text)
    assert ids_of(done) == Tokenizer.from_folder(base_model).encode(text)


def test_every_token_has_a_row(run: Run, base_model: Path) -> None:
    done = run("tokenize", base_model, TEXT, "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[4:] if line.strip()][:-1]
    ids = Tokenizer.from_folder(base_model).encode(TEXT)
    assert [row[:2] for row in rows] == [[str(i), str(token)] for i, token in enumerate(ids)]
    assert rows[0][2:] == ["'<|begin_of_text|>'", "special", "not", "in", "the", "text"]
    assert rows[1][2:] == ["'h'", "0-1"]
    assert [row[2:] for row in rows[2:4]] == [["bytes", "c3", "1-2"], ["bytes", "a9", "2-3"]]
    assert rows[7][2:] == [r"'\n'", "6-7"]
    assert rows[8][2:] == ["'<|eot|>'", "special", "7-14"]
    assert done.stdout.splitlines()[-1].endswith("; BOS added")


def test_tokens_are_shown_as_they_are(run: Run, tmp_path: Path) -> None:
    """Also those that a table might take for markup, and those that a terminal would obey."""
    path = tmp_path / "tokenizer.json"
    backend = Backend.from_str(synthetic_tokenizer_json(ModelConfig.preset("nano")))
    backend.add_special_tokens(["[red]", ":heart:"])
    backend.save(str(path))
    done = run("tokenize", path, "the world[red]:heart:\x1b[31m", "--explain")
    assert done.returncode == 0
    for shown in ("'the'", "' world'", "'[red]'", "':heart:'", r"'\x1b'"):
        assert f" {shown} " in done.stdout, shown
    assert "\x1b" not in done.stdout


def test_the_document_says_the_same(run: Run, base_model: Path) -> None:
    done = run("tokenize", base_model, TEXT, "--explain", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    tokenizer = Tokenizer.from_folder(base_model)
    ids = tokenizer.encode(TEXT)
    assert document["text"] == TEXT
    assert document["ids"] == ids
    assert document["token_count"] == len(ids) == len(document["tokens"])
    assert document["text_bytes"] == len(TEXT.encode())
    assert document["bytes_per_token"] == 1.0
    assert document["bos_added"] is True
    assert "prompt" not in document
    tokens = document["tokens"]
    raw = TEXT.encode()
    for token in tokens[1:]:
        assert raw[token["start"] : token["end"]].hex() == token["bytes"]
    assert [token["end"] for token in tokens[1:]] == [*[t["start"] for t in tokens[2:]], len(raw)]
    assert [token["index"] for token in tokens if token["special"]] == [0, 8]
    assert [token["text"] for token in tokens[:4]] == ["<|begin_of_text|>", "h", None, None]
    short = json.loads(run("tokenize", base_model, TEXT, "--json").stdout)
    assert short == {key: value for key, value in document.items() if key != "tokens"}


def test_chat_puts_the_text_into_the_template(run: Run, chat_model: Path) -> None:
    text = " hi <|eot|> "
    done = run("tokenize", chat_model, text, "--chat", "--explain", "--json")
    document = json.loads(done.stdout)
    chat, tokenizer = ChatFormat.from_folder(chat_model), Tokenizer.from_folder(chat_model)
    messages = [{"role": "user", "content": text}]
    assert document["prompt"] == chat.render(messages)
    assert document["ids"] == chat.encode(tokenizer, messages)
    assert document["bos_added"] is True
    special = [token["id"] for token in document["tokens"] if token["special"]]
    assert special == [BOS, START, END, EOT, START, END]  # and none from the text
    raw = document["prompt"].encode()
    assert b"".join(bytes.fromhex(t["bytes"]) for t in document["tokens"]) == raw
    assert document["tokens"][-1]["end"] == len(raw)


def test_the_file_itself_will_do(run: Run, chat_model: Path) -> None:
    for more in ((), ("--chat",)):
        by_file = run("tokenize", chat_model / "tokenizer.json", "hello", *more)
        assert by_file.returncode == 0
        assert by_file.stdout == run("tokenize", chat_model, "hello", *more).stdout


def test_no_text_is_bos_alone(run: Run, base_model: Path) -> None:
    document = json.loads(run("tokenize", base_model, "--json").stdout)
    assert document["ids"] == [BOS]
    assert document["bytes_per_token"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-folder", "x"), "no folder or file at no-such-folder"),
        (("..", "x"), "has no tokenizer.json"),
        (("BASE", "x", "--chat"), "no chat template: it is a Base model"),
        (("BASE/config.json", "x"), "is not a tokenizer"),
    ],
)
def test_failures_are_two_lines(
    run: Run, base_model: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [argument.replace("BASE", str(base_model)) for argument in arguments]
    done = run("tokenize", *given, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert message in error
    assert hint.startswith("hint: ")


def test_input_that_is_no_text_is_refused(base_model: Path) -> None:
    for arguments, given in (((), b"\xff\xfe"), ((b"\xff\xfe",), b"")):
        done = subprocess.run(
            [COMMAND, "tokenize", str(base_model), *arguments],
            input=given,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"UTF-8" in done.stderr
        assert done.stderr.startswith(b"error: ")


def test_spans_of_no_tokens_are_none(base_model: Path) -> None:
    assert list(token_spans(Tokenizer.from_folder(base_model), [])) == []
