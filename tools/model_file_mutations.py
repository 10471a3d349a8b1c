"""Mutated model files: the structure of a valid one, changed in a few places, as bytes.

Most changes leave the rest of the file sound, so that a reader meets each where it matters; some
leave all of it sound. `tools/fuzz_readers.py` says what they are for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mobilemoe.checkpoint.layout import DTYPE_BYTES, StoredTensor, file_layout
from mobilemoe.config import ModelConfig
from mobilemoe.weights import WeightFormat

SMALLEST = ModelConfig(
    vocab_size=2,
    hidden_size=32,
    intermediate_size=32,
    intermediate_size_mlp=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_local_experts=2,
    num_experts_per_tok=1,
    max_position_embeddings=64,
)
DENSE = replace(
    SMALLEST,
    num_local_experts=0,
    num_experts_per_tok=0,
    intermediate_size=0,
    tie_word_embeddings=False,
)
MODELS: tuple[tuple[ModelConfig, WeightFormat], ...] = (
    (SMALLEST, "int4"),
    (replace(SMALLEST, num_hidden_layers=2, interleave_moe_layer_step=2), "int4"),
    (DENSE, "int4"),
    (replace(SMALLEST, intermediate_size_mlp=0), "bf16"),
    (DENSE, "bf16"),
)
BYTES: dict[str, int] = dict(DTYPE_BYTES)
MAX_BYTES = 1 << 17  # of the data of one file
LAYOUTS: tuple[tuple[StoredTensor, ...], ...] = tuple(file_layout(*model) for model in MODELS)


@dataclass(eq=False)
class Tensor:
    """One entry of a header; `extra` are fields that do not belong there, as JSON text."""

    name: str
    dtype: str
    shape: list[Any]
    begin: Any
    end: Any
    extra: list[str] = field(default_factory=list)
    reversed: bool = False


@dataclass
class File:
    """A model file as its parts; every part may be nonsense."""

    tensors: list[Tensor]
    data_bytes: int
    members: list[str] = field(default_factory=list)  # further members of the header, as text
    padding: str = ""
    length_change: int = 0
    text_changes: list[Callable[[bytes], bytes]] = field(default_factory=list)


@dataclass
class Case:
    """A model and the files that are said to hold it."""

    model: int
    files: list[File]


def valid_case(model: int) -> Case:
    """Return a model in one valid file."""
    return Case(model, [valid_file(model)])


def valid_file(model: int) -> File:
    """Return the one file that holds exactly what the model needs."""
    tensors, end = [], 0
    for tensor in LAYOUTS[model]:
        begin, end = end, end + tensor.nbytes
        tensors.append(Tensor(tensor.name, tensor.dtypes[0], list(tensor.shape), begin, end))
    return File(tensors, end)


def render(file: File) -> bytes:
    """Return the bytes of `file`."""
    members = file.members + [member_text(tensor) for tensor in file.tensors]
    text = ("{" + ",".join(members) + "}" + file.padding).encode("utf-8", "surrogatepass")
    for change in file.text_changes:
        text = change(text)
    length = (len(text) + file.length_change) % 2**64
    return length.to_bytes(8, "little") + text + bytes(min(max(0, file.data_bytes), MAX_BYTES))


def member_text(tensor: Tensor) -> str:
    """Return the entry as JSON text."""
    shape = ",".join(map(str, tensor.shape))
    fields = [
        f'"dtype":"{tensor.dtype}"',
        f'"shape":[{shape}]',
        f'"data_offsets":[{tensor.begin},{tensor.end}]',
        *tensor.extra,
    ]
    return f'"{tensor.name}":{{{",".join(reversed(fields) if tensor.reversed else fields)}}}'


NUMBERS = (
    *("0", "1", "2", "3", "16", "31", "32", "64", "255", "65536", "2147483647", "2147483648"),
    *("4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808"),
    *("18446744073709551616", "-1", "-0", "00", "01", "+1", "1e3", "1.0", "1.5", "0x10", "NaN"),
    *("Infinity", "-Infinity", "true", "null", "[]", "{}", '"32"', " 8", "9 ", "\t7", "1_000"),
    *("1E400", "٣", "1" * 30, "1" * 5000),
)
TEXTS = (
    *("U8", "I8", "F16", "BF16", "F32", "F64", "bf16", "dtype", "shape", "data_offsets"),
    *("__metadata__", "lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"),
    *("model.embed_tokens.qweight", r"\u0000", r"\ud83d\ude00", r"\ud800", r"\udc00"),
    *(r"\ud800\u0041", r"\u00e9", r"\uD7FF", r"\x", r"\u12", r"\n", r"\/", "", " ", "\\"),
    *("\x1f", "\x7f", "é", "\ud800", "\udfff", "\ufffe", "\U0010ffff", "x" * 300),
)
METADATA = tuple(
    f'"__metadata__":{value}'
    for value in (
        *("{}", '{"format":"pt"}', '{"a":"b","a":"c"}', '{"":""}', '{"é":"ü"}', '{"a":"\\n"}'),
        *('{"a":"\\ud83d\\ude00"}', '{"__metadata__":"a"}', '{"a":1}', '{"a":null}', '{"a":[]}'),
        *('{"a":{"b":"c"}}', "[]", "null", '""', "1", '{"a":true}', '{"a":"b",}', '{"a"}'),
        *('{"a":"\\ud800"}', '{"\\ud800":"a"}', '{"a":"\\x"}', '{"a":"\ud800"}', '{"\x1f":""}'),
    )
)


def any_tensor(case: Case, rng: random.Random) -> Tensor:
    """Return one tensor of one file; a new one if there is none."""
    file = rng.choice(case.files)
    if not file.tensors:
        file.tensors.append(Tensor("a", "U8", [1], 0, 1))
    return rng.choice(file.tensors)


def other_number(value: Any, rng: random.Random) -> Any:
    """Return a number near `value`, or one of those where formats break."""
    if isinstance(value, int) and rng.random() < 0.7:
        steps = (1, -1, 2, -2, 8, 32, value, -(value // 2), 2 ** rng.randrange(70))
        return max(0, value + rng.choice(steps))
    return rng.choice(NUMBERS)


def change_shape(case: Case, rng: random.Random) -> None:
    """Change, add, drop or swap dimensions."""
    tensor = any_tensor(case, rng)
    kind = rng.randrange(4)
    if kind == 0 or not tensor.shape:
        tensor.shape.insert(rng.randrange(len(tensor.shape) + 1), rng.choice((1, 0, 2)))
    elif kind == 1:
        tensor.shape.pop(rng.randrange(len(tensor.shape)))
    elif kind == 2:
        rng.shuffle(tensor.shape)
    else:
        at = rng.randrange(len(tensor.shape))
        tensor.shape[at] = other_number(tensor.shape[at], rng)


def change_offsets(case: Case, rng: random.Random) -> None:
    """Change one offset, take those of another tensor, or turn them round."""
    tensor, other = any_tensor(case, rng), any_tensor(case, rng)
    kind = rng.randrange(4)
    if kind == 0:
        tensor.begin = other_number(tensor.begin, rng)
    elif kind == 1:
        tensor.end = other_number(tensor.end, rng)
    elif kind == 2:
        tensor.begin, tensor.end = other.begin, other.end
    else:
        tensor.begin, tensor.end = tensor.end, tensor.begin


def change_texts(case: Case, rng: random.Random) -> None:
    """Change a name or a dtype."""
    tensor = any_tensor(case, rng)
    text = rng.choice(TEXTS)
    kind = rng.randrange(4)
    if kind == 0:
        tensor.dtype = text
    elif kind == 1:
        tensor.name = any_tensor(case, rng).name
    else:
        at = rng.randrange(len(tensor.name) + 1)
        tensor.name = text if kind == 2 else tensor.name[:at] + text + tensor.name[at:]


def write_otherwise(case: Case, rng: random.Random) -> None:
    """Write the same things in other characters, order or white space."""
    file, tensor = rng.choice(case.files), any_tensor(case, rng)
    kind = rng.randrange(5)
    if kind == 0 and tensor.name:
        at = rng.randrange(len(tensor.name))
        escaped = f"\\u{ord(tensor.name[at]) % 65536:04x}"
        tensor.name = tensor.name[:at] + escaped + tensor.name[at + 1 :]
    elif kind == 1:
        tensor.reversed = not tensor.reversed
    elif kind == 2:
        rng.shuffle(file.tensors)
    elif kind == 3:
        file.padding += rng.choice((" ", "\n", "\t\r", " " * 9, "\0", "x", "}", "\u00a0"))
    else:
        spaced = rng.choice((b" :", b":\n", b" , ", b"\t{", b"[ ", b" ]", b"\x0b:", b"\xc2\xa0:"))
        plain = spaced.strip(b" \n\t\x0b\xc2\xa0")
        file.text_changes.append(lambda text: text.replace(plain, spaced, rng.randrange(1, 99)))


def add_metadata(case: Case, rng: random.Random) -> None:
    """Add metadata, sound or not."""
    rng.choice(case.files).members.append(rng.choice(METADATA))


def add_field(case: Case, rng: random.Random) -> None:
    """Give an entry a field too many: a strange one, or one of its own a second time."""
    tensor = any_tensor(case, rng)
    values = (f'"{tensor.dtype}"', str(tensor.shape), f"[{tensor.begin},{tensor.end}]", "1", "null")
    key = rng.choice(("dtype", "shape", "data_offsets", "extra", "", "\\u0064type"))
    tensor.extra.append(f'"{key}":{rng.choice(values)}')


def change_members(case: Case, rng: random.Random) -> None:
    """Repeat, drop or move an entry."""
    source, target = rng.choice(case.files), rng.choice(case.files)
    if not source.tensors:
        return
    tensor = rng.choice(source.tensors)
    kind = rng.randrange(3)
    if kind == 0:
        target.tensors.append(replace(tensor, shape=list(tensor.shape)))
    elif kind == 1:
        source.tensors.remove(tensor)
    else:
        close_gap(source, tensor)
        append_tensor(target, tensor)


def close_gap(file: File, tensor: Tensor) -> None:
    """Take a tensor and its bytes out of a file; the others stay as valid as they were."""
    file.tensors.remove(tensor)
    if not isinstance(tensor.begin, int) or not isinstance(tensor.end, int):
        return
    size = tensor.end - tensor.begin
    file.data_bytes -= size
    for other in file.tensors:
        if isinstance(other.begin, int) and isinstance(other.end, int):
            moved = size if other.begin >= tensor.end else 0
            other.begin, other.end = other.begin - moved, other.end - moved


def append_tensor(file: File, tensor: Tensor) -> None:
    """Put a tensor and its bytes at the end of a file."""
    if isinstance(tensor.begin, int) and isinstance(tensor.end, int):
        size = min(max(0, tensor.end - tensor.begin), 1 << 20)
        tensor.begin, tensor.end = file.data_bytes, file.data_bytes + size
        file.data_bytes += size
    file.tensors.append(tensor)


def overlap(case: Case, rng: random.Random) -> None:
    """Lay a tensor over others, whose bytes close up, so that the end still fits."""
    file = rng.choice(case.files)
    if not file.tensors:
        return
    tensor = rng.choice(file.tensors)
    begin, end = tensor.begin, tensor.end
    close_gap(file, tensor)
    tensor.begin, tensor.end = begin, end
    file.tensors.append(tensor)


def split(case: Case, rng: random.Random) -> None:
    """Move half of a file's tensors into a file of their own: as valid as before."""
    if len(case.files) > 2:
        return
    source, target = rng.choice(case.files), File([], 0)
    for tensor in list(source.tensors):
        if rng.random() < 0.5:
            close_gap(source, tensor)
            append_tensor(target, tensor)
    case.files.append(target)


def resize(case: Case, rng: random.Random) -> None:
    """Give a tensor another size or dtype, with the bytes that go with it, at the end."""
    file = rng.choice(case.files)
    if not file.tensors:
        return
    tensor = rng.choice(file.tensors)
    close_gap(file, tensor)
    old = BYTES.get(tensor.dtype, 1)
    tensor.dtype = rng.choice(("U8", "F16", "BF16", "F32", tensor.dtype))
    new = BYTES.get(tensor.dtype, 1)
    if isinstance(tensor.begin, int) and isinstance(tensor.end, int):
        tensor.end = tensor.begin + (tensor.end - tensor.begin) * new // old
    append_tensor(file, tensor)


def reorder(case: Case, rng: random.Random) -> None:
    """Store the same tensors in another order: as valid as before."""
    file = rng.choice(case.files)
    for tensor in rng.sample(file.tensors, len(file.tensors) // 2):
        close_gap(file, tensor)
        append_tensor(file, tensor)


def change_ends(case: Case, rng: random.Random) -> None:
    """Change the length of the header or of the data."""
    file = rng.choice(case.files)
    if rng.random() < 0.5:
        file.data_bytes += rng.choice((1, -1, 2, -2, 64, -64, -file.data_bytes))
    else:
        file.length_change = rng.choice((1, -1, 2, -9, file.data_bytes, 10**8, 2**63, -(2**62)))


def change_files(case: Case, rng: random.Random) -> None:
    """Add, replace or drop a whole file."""
    kind, file = rng.randrange(3), valid_file(rng.randrange(len(MODELS)))
    if kind == 0:
        case.files.append(file)
    elif kind == 1:
        case.files[rng.randrange(len(case.files))] = file
    elif len(case.files) > 1:
        case.files.pop(rng.randrange(len(case.files)))


def change_bytes(case: Case, rng: random.Random) -> None:
    """Change a few bytes of a header as such."""

    def change(text: bytes) -> bytes:
        at = rng.randrange(len(text) + 1)
        token = rng.choice(b'{}[]:,"\\ 0-.eN\x00\x1f\x7f\x80\xbf\xc0\xe2\xed\xf4\xff')
        kind = rng.randrange(4)
        if kind == 0:
            return text[:at] + bytes([token]) + text[at + 1 :]
        if kind == 1:
            return text[:at] + bytes([token]) + text[at:]
        if kind == 2:
            return text[:at] + text[at + rng.randrange(1, 9) :]
        return text[:at]

    rng.choice(case.files).text_changes.append(change)


CHANGES: tuple[Callable[[Case, random.Random], None], ...] = (
    *(change_shape, change_offsets, change_texts, write_otherwise, write_otherwise, add_metadata),
    *(add_field, change_members, overlap, split, resize, reorder, reorder, change_ends),
    *(change_files, change_bytes),
)


def mutated(rng: random.Random) -> tuple[int, list[bytes]]:
    """Return a model and the files of a mutated case."""
    case = valid_case(rng.randrange(len(MODELS)))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        rng.choice(CHANGES)(case, rng)
    return case.model, [render(file) for file in case.files]
