"""The top of the page: the result in one sentence, the key numbers, and the warnings."""

from __future__ import annotations

from datetime import datetime
from statistics import median

from mobilemoe.demo.schema import Report, SpeedModel
from mobilemoe.page.markup import (
    MISSING,
    TIMES,
    change,
    count,
    duration,
    escape,
    finite,
    finites,
    megabytes,
    paragraph,
    short_count,
    significant,
)


def headline(report: Report) -> str:
    """Return the title, the result in one sentence, the key numbers and the warnings."""
    machine = report["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores · {when(report['started'])}"
    return (
        f'<p class="eyebrow">mobilemoe demo · {escape(where)}</p>'
        f"<h1>{escape(report['title'])}</h1>"
        + paragraph(result_sentence(report), "lede")
        + _tiles(report)
        + _warnings(report["warnings"])
    )


def when(started: str) -> str:
    """Return an ISO time as a person writes it; any other text as it is."""
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z").rstrip()
    except ValueError:
        return started


def result_sentence(report: Report) -> str:
    """Say in one sentence, as HTML, what was built and how it runs; only what was measured."""
    chosen = report["design"]["chosen"]
    budget = megabytes(report["design"]["budget"]["memory_bytes"])
    size = f"{short_count(chosen['total_params'])} parameters"
    active = f"{short_count(chosen['active_params'])} used per token"
    text = f'A memory budget of {budget} became <b class="moe">{escape(chosen["name"])}</b>'
    text += f" ({size}, {active})"
    trained = report.get("stages") or []
    total = finite(report["seconds"]["total"])
    if trained:
        stages = f"{len(trained)} stage" + ("s" if len(trained) != 1 else "")
        text += f", was trained in {stages}"
    text += f" and stored in {megabytes(chosen['weight_bytes_int4'])} of INT4"
    if total is not None:
        text += f", all in {duration(total)}"
    return f"{text}{_speed_clause(report)}."


def _speed_clause(report: Report) -> str:
    ratio = decode_ratio(report)
    if ratio is None:
        return "; its speed beside a dense twin was not measured"
    twin = 'its <b class="dense">dense twin</b> of equal INT4 bytes'
    if 0.98 <= ratio <= 1.02:
        return f"; on this machine it decodes as fast as {twin}"
    word = "faster" if ratio > 1 else "slower"
    factor = ratio if ratio > 1 else 1 / ratio
    return f"; on this machine it decodes {factor:.2f} times {word} than {twin}"


def pair(report: Report) -> tuple[SpeedModel, SpeedModel] | None:
    """Return the mixture of experts and its dense twin, if both were timed."""
    speed = report.get("speed")
    models = speed["models"] if speed else []
    return (models[0], models[1]) if len(models) >= 2 else None


def _moe(report: Report) -> SpeedModel | None:
    speed = report.get("speed")
    return speed["models"][0] if speed and speed["models"] else None


def decode_ratio(report: Report) -> float | None:
    """Return the median decode speed of the mixture of experts over that of its twin."""
    both = pair(report)
    if both is None:
        return None
    moe, twin = (finites(model["decode_tok_s"]) for model in both)
    return median(moe) / median(twin) if moe and twin and median(twin) > 0 else None


def _tiles(report: Report) -> str:
    tiles = [_decode_tile(report), _memory_tile(report), _file_tile(report)]
    tiles += [_perplexity_tile(report), _time_tile(report)]
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="v">{value}</dd><dd class="w">{note}</dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _decode_tile(report: Report) -> tuple[str, str, str]:
    moe, ratio = _moe(report), decode_ratio(report)
    speeds = finites(moe["decode_tok_s"]) if moe else []
    value = significant(median(speeds)) if speeds else MISSING
    note = f"tokens/s, {ratio:.2f}{TIMES} the dense twin" if ratio is not None else "tokens/s"
    return ("Decode", value, note)


def _memory_tile(report: Report) -> tuple[str, str, str]:
    both, first = pair(report), _moe(report)
    moe = finite(first["peak_rss_mib"]) if first else None
    twin = finite(both[1]["peak_rss_mib"]) if both else None
    note = f"dense twin: {significant(twin, 'MiB')}" if twin is not None else "resident, engine"
    return ("Peak memory", significant(moe, "MiB"), note)


def _file_tile(report: Report) -> tuple[str, str, str]:
    files = report.get("files")
    size = files["int4"]["file_bytes"] if files else None
    return ("INT4 file", megabytes(size), f"{count(size)} bytes" if size else "on disk")


def _perplexity_tile(report: Report) -> tuple[str, str, str]:
    part = report.get("quantization")
    rows = {row["name"]: row["perplexity"].get("mean") for row in part["rows"]} if part else {}
    qat, base = finite(rows.get("QAT INT4")), finite(rows.get("control PTQ INT4"))
    note = "mean held-out perplexity"
    if qat is not None and base:
        note = f"{change(100 * (qat / base - 1), 1)}% against INT4 without QAT"
    return ("Perplexity, QAT INT4", significant(qat), note)


def _time_tile(report: Report) -> tuple[str, str, str]:
    return ("From budget to report", duration(report["seconds"]["total"]), "wall clock, all steps")


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return (
        '<aside class="warnings" id="warnings" aria-label="Warnings"><h2>Read this first</h2>'
        f"<ul>{items}</ul></aside>"
    )
