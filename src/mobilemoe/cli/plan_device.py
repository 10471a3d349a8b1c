"""`mobilemoe plan device`: what a request takes and costs on a device that is not at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.bench_options import parse_numbers
from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.plan_options import KvCache
from mobilemoe.cli.units import amount

if TYPE_CHECKING:
    from mobilemoe.cli.info import Subject
    from mobilemoe.plan.device import DeviceProfile, RequestCost

PLAN_DEVICE_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe plan device\n"
    "  mobilemoe plan device galaxy-s25 --model S --prompt 1024 --answer 128\n"
    "  mobilemoe plan device my.toml --model path/to/checkpoint --context 0,4096 --json"
)
Watts = Annotated[
    float | None, typer.Option(min=0, metavar="W", help="In place of the profile's, both phases.")
]
Electricity = Annotated[
    float | None, typer.Option(min=0, metavar="$/KWH", help="In place of the profile's.")
]
PerHour = Annotated[
    float | None, typer.Option(min=0, metavar="$/H", help="In place of the profile's: wear, rent.")
]


def device(
    profile: Annotated[
        str | None,
        typer.Argument(metavar="[PROFILE]", help="A profile's name or TOML file; none: list them."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="PATH|PRESET", help="As `mobilemoe info` takes it.")
    ] = "S",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1024,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 128,
    context: Annotated[
        str, typer.Option(help="Positions to also give both speeds at; comma list.")
    ] = "256,1024,4096",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Default: the profile's choice.")
    ] = None,
    kv: Annotated[KvCache, typer.Option(help="Number format of the KV cache.")] = KvCache.int8,
    watts: Watts = None,
    electricity: Electricity = None,
    per_hour: PerHour = None,
    as_json: JsonOption = False,
) -> None:
    """Predict latency, energy and money of a request on a device, from its profile."""
    from mobilemoe.cli.info import find_subject
    from mobilemoe.plan.device import Request, StatedRates, load_profile, request_cost

    if profile is None:
        _list(as_json)
        return
    found, subject = load_profile(profile), find_subject(model)
    cost = request_cost(
        found,
        subject.config,
        Request(prompt, answer),
        threads=threads,
        rates=StatedRates(watts, watts, electricity, per_hour),
        kv_format=kv.value,
        weight_format=_weight_format(subject),
    )
    speeds = _speeds(found, subject, parse_numbers(context, 1), threads, kv)
    threads = found.threads if threads is None else threads
    if as_json:
        print_json(_document(found, subject, threads, cost, speeds))
    else:
        _print(found, subject, threads, cost, speeds)


def _weight_format(subject: Subject) -> Any:
    return subject.weight_format or "int4"


def _speeds(
    profile: DeviceProfile,
    subject: Subject,
    contexts: tuple[int, ...],
    threads: int | None,
    kv: KvCache,
) -> list[dict[str, float]]:
    """Return what a prompt of each length takes, and a token after it."""
    from mobilemoe.plan.device import decode_seconds, prefill_seconds

    rows = []
    for tokens in contexts:
        options: dict[str, Any] = {"threads": threads, "kv_format": kv.value}
        options |= {"weight_format": _weight_format(subject)}
        first = prefill_seconds(profile, subject.config, tokens, **options)
        other = decode_seconds(profile, subject.config, tokens, **options)
        rows.append(
            {
                "context": tokens,
                "ttft_ms": 1e3 * first,
                "prefill_tok_s": tokens / first,
                "tpot_ms": 1e3 * other,
                "decode_tok_s": 1 / other,
            }
        )
    return rows


def _document(
    profile: DeviceProfile,
    subject: Subject,
    threads: int,
    cost: RequestCost,
    speeds: list[dict[str, float]],
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "device": {"name": profile.name, "title": profile.title},
        "model": subject.name,
        "threads": threads,
        "request": asdict(cost.request),
        **{key: getattr(cost, key) for key in ("ttft_ms", "tpot_ms", "total_ms", "joules")},
        "money": cost.money,
        "by_context": speeds,
        "inputs": {path: constant.to_dict() for path, constant in cost.inputs},
    }


def _print(
    profile: DeviceProfile,
    subject: Subject,
    threads: int,
    cost: RequestCost,
    speeds: list[dict[str, float]],
) -> None:
    request = cost.request
    title = f"{subject.name} on {profile.title}: {request.prompt_tokens} tokens in, "
    title += f"{request.new_tokens} out, {threads} threads (all predicted)"
    rows = [
        ("first token after", f"{cost.ttft_ms:,.0f} ms"),
        ("each other token", "" if cost.tpot_ms is None else f"{cost.tpot_ms:,.2f} ms"),
        ("whole request", f"{cost.total_ms:,.0f} ms"),
        ("energy", f"{cost.joules:.3g} J"),
        ("money", f"{1e6 * cost.money:.3g} $ per million requests"),
    ]
    print_table(title, ("", ""), rows)
    table = [
        (
            f"{row['context']:,}",
            f"{row['ttft_ms']:,.0f}",
            f"{row['prefill_tok_s']:,.1f}",
            f"{row['tpot_ms']:,.2f}",
            f"{row['decode_tok_s']:,.1f}",
        )
        for row in speeds
    ]
    header = ("positions", "prompt: ms", "tok/s", "a token after it: ms", "tok/s")
    print_table("By context", header, table)
    inputs = [
        (path, f"{one.value:.4g} {one.unit}", one.origin, one.source) for path, one in cost.inputs
    ]
    print_table("What this rests on", ("input", "value", "origin", "source"), inputs)


def _list(as_json: bool) -> None:
    from mobilemoe.plan.device import builtin_profiles, load_profile

    profiles = [load_profile(name) for name in builtin_profiles()]
    if as_json:
        rows = [
            {
                "name": one.name,
                "title": one.title,
                "threads": sorted(one.read_bytes_s),
                "memory_bytes": one.memory_bytes.value,
            }
            for one in profiles
        ]
        print_json({"profiles": rows})
        return
    table = [
        (one.name, one.title, amount(one.memory_bytes.value, "B"), amount(rate.value, "B/s"))
        for one in profiles
        for rate in [one.rates()[0]]
    ]
    print_table("Device profiles", ("name", "device", "memory for an app", "reads"), table)
