"""The sections on running the model: files, speed, parity, samples, and how it was made."""

from __future__ import annotations

from statistics import median

from mobilemoe.demo.figures_device import SPEEDS, speed_figure, speed_values
from mobilemoe.demo.headline import pair
from mobilemoe.demo.schema import FileBytes, Report, Sample, Speed
from mobilemoe.page.markup import (
    MISSING,
    TIMES,
    count,
    decimal,
    duration,
    escape,
    figure,
    finite,
    not_measured,
    paragraph,
    percent,
    scientific,
    significant,
    table,
)

_YES = '<span class="good">✓ yes</span>'
_NO = '<span class="bad">✗ no</span>'


def files_section(report: Report) -> str:
    """Return the sizes on disk against the plan, to the byte."""
    files = report.get("files")
    if not files:
        return not_measured("The files")
    both = (files["bf16"], files["int4"])
    rows = [
        ["Planned tensors", *(count(part["planned_tensor_bytes"]) for part in both)],
        ["Written tensors", *(count(part["tensor_bytes"]) for part in both)],
        ["Equal to the plan", *(_planned(part) for part in both)],
        ["Header", *(count(part["header_bytes"]) for part in both)],
        ["File", *(count(part["file_bytes"]) for part in both)],
        ["Tensors + header = file", *(_adds_up(part) for part in both)],
    ]
    text = "The plan knows the size of a checkpoint before a weight exists. All numbers are bytes."
    return paragraph(text) + table(["Bytes", "BF16", "INT4"], rows, "Bytes", "narrowtable")


def _planned(part: FileBytes) -> str:
    planned, written = part["planned_tensor_bytes"], part["tensor_bytes"]
    if planned is None or written is None:
        return MISSING
    return _YES if planned == written else f"{_NO}, {count(written - planned)}"


def _adds_up(part: FileBytes) -> str:
    tensors, header, whole = part["tensor_bytes"], part["header_bytes"], part["file_bytes"]
    if tensors is None or header is None or whole is None:
        return MISSING
    return _YES if tensors + header == whole else f"{_NO}, {count(whole - tensors - header)}"


def speed_section(report: Report) -> str:
    """Return speed and peak memory of the model and its dense twin of equal INT4 bytes."""
    speed = report.get("speed")
    if not speed or not speed["models"]:
        return not_measured("Speed")
    text = (
        f"The native engine with {count(speed['threads'])} threads ({escape(_isa(speed))}): "
        f"{count(speed['prompt_tokens'])} prompt tokens, {count(speed['new_tokens'])} new ones, "
        f"{count(speed['rounds'])} rounds, the models taking turns."
    )
    caption = (
        "Rings: single rounds. Bar, line and label: the median."
        f" {_untrained(speed)}Bytes of the weights in INT4: {_bytes(speed)}."
    )
    return paragraph(text) + figure(speed_figure(speed["models"]), caption) + _ratios(report)


def _isa(speed: Speed) -> str:
    return speed["instruction_set"] or "scalar"


def _untrained(speed: Speed) -> str:
    names = [model["name"] for model in speed["models"] if not model["trained"]]
    if not names:
        return ""
    return f"The {escape(' and the '.join(names))} is not trained and stands for speed only. "


def _bytes(speed: Speed) -> str:
    pairs = ((model["name"], model["weight_bytes_int4"]) for model in speed["models"])
    return ", ".join(f"{escape(name)} {count(size)}" for name, size in pairs)


def _ratios(report: Report) -> str:
    both = pair(report)
    if both is None:
        return ""
    rows = []
    for key, title, _ in SPEEDS:
        middles = [median(values) if (values := speed_values(m, key)) else None for m in both]
        ratio = MISSING
        if middles[0] is not None and middles[1]:
            ratio = f"{middles[0] / middles[1]:.2f}{TIMES}"
        rows.append([title, *(significant(middle) for middle in middles), ratio])
    coloured = zip(("moe", "dense"), both, strict=True)
    names = [f'<span class="{colour}">{escape(m["name"])}</span>' for colour, m in coloured]
    return table(["Median", *names, "Ratio"], rows, "Medians and ratios", "narrowtable")


def parity_section(report: Report) -> str:
    """Return how close the engine is to the model that was trained."""
    part = report.get("parity")
    if not part:
        return not_measured("Parity")
    text = (
        f"The same {count(part['tokens'])} tokens through the fake-quantised torch model and "
        "through the engine that reads the INT4 file. The exact mode of the engine computes in "
        "fp32; the fast one rounds activations to int8."
    )
    rows = [
        ["Exact mode: relative error of the logits", scientific(part["relative_error"])],
        ["Exact mode: largest difference of a logit", scientific(part["max_abs_error"])],
        ["int8 mode: median cosine with the exact logits", decimal(part["int8_median_cosine"], 5)],
        ["int8 mode: same most likely token", percent(part["argmax_agreement"], 1)],
    ]
    return paragraph(text) + table(["Measure", "Value"], rows, "Parity", "narrowtable")


def samples_section(report: Report) -> str:
    """Return generated text as it came, the prompt marked."""
    samples = report.get("samples") or []
    if not samples:
        return not_measured("Samples")
    text = "Unedited output of the engine from the INT4 file; the prompt is marked."
    return paragraph(text) + f'<div class="samples">{"".join(map(_sample, samples))}</div>'


def _sample(sample: Sample) -> str:
    gap = "\n\n" if sample["kind"] == "chat" else ""
    body = f"<mark>{escape(sample['prompt'])}</mark>{gap}{escape(sample['text'])}"
    title = "Chat" if sample["kind"] == "chat" else "Completion"
    return f'<div class="sample"><h3>{title}</h3><pre>\n{body}</pre></div>'


def provenance_section(report: Report) -> str:
    """Return the command, the machine, the versions and the time of each step."""
    machine, data = report["machine"], report.get("data")
    memory = finite(machine["memory_gb"])
    size = MISSING if memory is None else significant(memory, "GB")
    cores = f"{count(machine['cores'])} cores"
    facts = [
        ("Machine", f"{escape(machine['cpu'])}, {cores}, {size} of memory"),
        ("System", escape(machine["os"])),
        ("Instruction set", escape(machine["instruction_set"])),
        ("Versions", ", ".join(f"{k} {escape(v)}" for k, v in report["versions"].items())),
        ("Seed", str(report["seed"])),
        ("Started", escape(report["started"])),
        ("Corpus SHA-256", f"<code>{escape(data['sha256'])}</code>" if data else MISSING),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f'<pre class="command">{escape(report["command"])}</pre>'
        f'<dl class="facts">{listed}</dl>'
        f"<h3>Time of each step</h3>{_times(report)}"
    )


def _times(report: Report) -> str:
    seconds = {
        name: finite(value)
        for name, value in dict(report["seconds"]).items()
        if isinstance(value, float | int) or value is None
    }
    total = seconds.pop("total")
    longest = max([value for value in seconds.values() if value is not None], default=1.0) or 1.0
    rows = "".join(_time_row(name, value, longest) for name, value in seconds.items())
    return (
        f'<div class="scroll"><table class="bars narrowtable" aria-label="Time of each step">'
        f'<tbody>{rows}<tr class="total"><th scope="row">total</th><td>{duration(total)}</td>'
        '<td class="bar"></td></tr></tbody></table></div>'
    )


def _time_row(name: str, value: float | None, longest: float) -> str:
    width = 0 if value is None else 100 * value / longest
    bar = f'<div style="width:{width:.1f}%"></div>' if value is not None else ""
    return (
        f'<tr><th scope="row">{escape(name)}</th><td>{duration(value)}</td>'
        f'<td class="bar">{bar}</td></tr>'
    )
