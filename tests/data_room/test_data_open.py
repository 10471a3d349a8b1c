"""The trainer's door: a recipe's sources become batches, held-out batches and accounts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shard_support import documents, talk_source, talks, text_source, tokenizer_json, write_jsonl
from tokenizers import Tokenizer

from mobilemoe.config import ModelConfig
from mobilemoe.data import (
    IGNORED,
    Dataset,
    Prefetcher,
    PrepareOptions,
    TrainingData,
    open_data,
)
from mobilemoe.data.training_data import from_dataset, needed_tokens
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Optimizer, Recipe, RoutingLosses, Source, Stage

OPTIONS = PrepareOptions(shard_tokens=9000, heldout_tokens=3000)


def _stage(name: str, tokens: int, mixture: dict[str, float]) -> Stage:
    return Stage(
        name=name,
        purpose="a test",
        for_domains=("text",),
        tokens=tokens,
        context=256,
        batch_tokens=2048,
        mixture=mixture,
        lr=1e-3,
        schedule="cosine",
        warmup_steps=1,
        final_lr=0.1,
        capacity_factor=None,
        fake_quant=name == "qat",
    )


def _recipe(sources: list[Source], **changes: object) -> Recipe:
    texts = {"web": 0.7, "books": 0.3}
    recipe = Recipe(
        name="test",
        model=replace(ModelConfig.preset("nano"), vocab_size=4096),
        seed=1,
        tokenizer="given",
        sources={source.name: source for source in sources},
        optimizer=Optimizer(),
        routing=RoutingLosses(),
        stages=(
            _stage("pretrain", 40_000, texts),
            _stage("midtrain", 8000, texts),
            _stage("sft", 60_000, {"chat": 0.8, "books": 0.2}),
            _stage("qat", 8000, {"chat": 1.0}),
        ),
    )
    return replace(recipe, **changes)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two sources of texts in one domain, one of conversations, one that no stage uses."""
    folder = tmp_path_factory.mktemp("sources")
    web = write_jsonl(folder / "web.jsonl", documents(900))
    web.write_bytes(web.read_bytes() + b"oops\n")
    return _recipe(
        [
            text_source(web, domain="text"),
            text_source(
                write_jsonl(folder / "books.jsonl", documents(300, seed=5)),
                name="books",
                domain="text",
                max_tokens=6000,
            ),
            talk_source(write_jsonl(folder / "chat.jsonl", talks(400)), domain="talk"),
            text_source(folder / "nowhere.jsonl", name="unused"),
        ]
    )


def _open(recipe: Recipe, folder: Path, workers: int = 0) -> TrainingData:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    return open_data(recipe, folder, tokenizer=tokenizer, workers=workers, options=OPTIONS)


@pytest.fixture(scope="module")
def data(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return _open(recipe, tmp_path_factory.mktemp("data"))


def test_every_source_gives_what_the_hungriest_stage_needs(
    recipe: Recipe, data: TrainingData
) -> None:
    needed = needed_tokens(recipe)
    assert list(needed) == ["web", "books", "chat"]
    assert needed["web"] == pytest.approx(0.7 * 40_000, rel=0.1)
    assert needed["books"] == 6000
    assert needed["chat"] == pytest.approx(0.8 * 60_000, rel=0.1)
    summary = data.summary()
    accounts = {own.name: own for own in summary.sources}
    assert needed["web"] <= accounts["web"].train_tokens < needed["web"] + 110
    assert 6000 <= accounts["books"].train_tokens < 6110
    epochs = {(use.stage, use.source): use.epochs for use in summary.uses}
    assert 0.9 < epochs["pretrain", "web"] <= 1
    assert epochs["sft", "books"] >= 2


def test_the_accounts_add_up(data: TrainingData) -> None:
    summary = data.summary()
    for own in summary.sources:
        assert own.tokens == own.train_tokens + own.heldout_tokens + own.repeated_tokens
        assert own.records == own.documents + own.bad_records
    for use in summary.uses:
        count = use.count
        own = next(a for a in summary.sources if a.name == use.source)
        assert count.tokens == own.train_tokens == count.used + count.dropped
        assert count.rows * count.row_tokens == count.used + count.padded
    lines = list(summary.lines())
    assert len(lines) == 3 + 2 + 2 + 2 + 1
    assert any(line.startswith("pretrain, web: ") for line in lines)


def test_stages_draw_batches_labelled_by_domain(recipe: Recipe, data: TrainingData) -> None:
    stage = recipe.stage("sft")
    mixture = data.batches(stage, seed=4)
    batch = mixture.batch(3)
    assert batch.ids_BT.shape == (8, 256)
    assert set(batch.domains) <= {"text", "talk"}
    talk = [i for i, domain in enumerate(batch.domains) if domain == "talk"]
    assert 0.2 < (batch.targets_BT[talk] == IGNORED).mean() < 0.9
    domains = [d for step in range(40) for d in mixture.batch(step).domains]
    assert domains.count("talk") / len(domains) == pytest.approx(0.8, abs=0.01)
    other = data.batches(stage, seed=5).batch(3)
    assert (other.ids_BT != batch.ids_BT).any()


def test_opening_again_gives_the_same_bits(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    again = _open(recipe, tmp_path, workers=2)
    third = _open(recipe, tmp_path)
    assert again.sha256 == third.sha256 == data.sha256
    stage = recipe.stage("pretrain")
    batches = [own.batches(stage, 0).batch(7) for own in (data, again, third)]
    assert all((own.ids_BT == batches[0].ids_BT).all() for own in batches)
    with Prefetcher(third.batches(stage, 0).batch, 7, workers=2) as ahead:
        assert (next(ahead).ids_BT == batches[0].ids_BT).all()


def test_held_out_batches_hold_what_is_not_trained_on(data: TrainingData) -> None:
    assert data.domains == ("text", "talk")
    for domain in data.domains:
        assert data.has_heldout(domain, 256)
        batches = list(data.heldout_batches(domain, 256, 3, max_tokens=2560))
        assert sum(len(batch.ids_BT) for batch in batches) <= 10
        assert all(batch.domains == (domain,) * len(batch.ids_BT) for batch in batches)
    everything = list(data.heldout_batches("text", 256, 3))
    assert sum(len(batch.ids_BT) for batch in everything) > 4
    held = np.concatenate([batch.ids_BT.ravel() for batch in everything])
    accounts = {own.name: own for own in data.summary().sources}
    assert len(held) <= accounts["web"].heldout_tokens + accounts["books"].heldout_tokens
    with pytest.raises(MobileMoEError, match="domain is 'web'; allowed: text, talk"):
        data.heldout_batches("web", 256, 3)
    assert not data.has_heldout("text", 4096)
    with pytest.raises(MobileMoEError, match="no held-out row of context 4096"):
        data.heldout_batches("text", 4096, 3)


def test_a_context_longer_than_a_source_names_the_source(
    recipe: Recipe, data: TrainingData
) -> None:
    stage = replace(recipe.stage("pretrain"), context=7000, batch_tokens=7000)
    with pytest.raises(MobileMoEError, match="source books: a stream of"):
        data.batches(stage, 0)


def test_tokenizers_that_do_not_fit_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="the tokenizer 'given' was not loaded"):
        open_data(recipe, tmp_path)
    small = replace(recipe, model=replace(recipe.model, vocab_size=256))
    with pytest.raises(MobileMoEError, match="vocab_size is 256; the tokenizer needs 300"):
        _open(small, tmp_path)
    plain = Tokenizer.from_str(tokenizer_json().replace("<|eot|>", "<|end|>"))
    with pytest.raises(MobileMoEError, match=r"no token <\|eot\|> or <\|eot_id\|>"):
        open_data(recipe, tmp_path, tokenizer=plain, workers=0)


def test_tokens_of_llama_3_are_known_by_their_names(recipe: Recipe, tmp_path: Path) -> None:
    text = tokenizer_json()
    for ours, theirs in (("header_start", "start_header_id"), ("header_end", "end_header_id")):
        text = text.replace(f"<|{ours}|>", f"<|{theirs}|>")
    renamed = Tokenizer.from_str(text.replace("<|eot|>", "<|eot_id|>"))
    data = open_data(recipe, tmp_path, tokenizer=renamed, workers=0, options=OPTIONS)
    ids = data.batches(recipe.stage("qat"), 0).batch(0).ids_BT[0].tolist()
    shown = renamed.decode(ids, skip_special_tokens=False)
    assert shown.startswith("<|begin_of_text|><|start_header_id|>")
    assert "<|start_header_id|>assistant<|end_header_id|>\n\n" in shown


def test_embedded_sources_are_the_embedded_corpus(built: Dataset, recipe: Recipe) -> None:
    sources = [
        Source(name, "embedded", name, name, "PSF-2.0") for name in ("code", "math", "instruct")
    ]
    opened = {source.name: from_dataset(source, built) for source in sources}
    mixture = {"code": 0.5, "math": 0.3, "instruct": 0.2}
    stages = tuple(replace(s, mixture=mixture, for_domains=("code",)) for s in recipe.stages)
    changed = replace(recipe, sources={own.name: own for own in sources}, stages=stages)
    own, stage = TrainingData(changed, built.tokenizer, opened), stages[0]
    twin = built.mixture(stage.mixture, stage.context, stage.batch_size, seed=3)
    for step in (0, 9):
        batch, other = own.batches(stage, 3).batch(step), twin.batch(step)
        assert (batch.ids_BT == other.ids_BT).all()
        assert (batch.targets_BT == other.targets_BT).all()
        assert batch.domains == other.domains
    for domain in own.domains:
        pairs = zip(
            own.heldout_batches(domain, 64, 4, 2000),
            built.heldout_batches(domain, 64, 4, 2000),
            strict=True,
        )
        assert all((a.ids_BT == b.ids_BT).all() for a, b in pairs)
    accounts = {a.name: a for a in own.summary().sources}
    sides = (built.statistics["train"], built.statistics["heldout"])
    assert accounts["code"].documents == sum(side["code"].documents for side in sides)
    talks_made = sum(domain.conversations for side in sides for domain in side.values())
    assert accounts["instruct"].documents == talks_made


@pytest.mark.slow
def test_a_recipe_of_the_embedded_corpus_opens_from_nothing(recipe: Recipe, tmp_path: Path) -> None:
    code = Source("code", "embedded", "code", "code", "PSF-2.0")
    stages = tuple(replace(stage, mixture={"code": 0.5, "web": 0.5}) for stage in recipe.stages)
    mixed = replace(
        recipe,
        tokenizer="embedded",
        sources={"code": code, "web": recipe.sources["web"]},
        stages=stages,
    )
    data = open_data(mixed, tmp_path, workers=0, options=OPTIONS)
    assert data.tokenizer.get_vocab_size() == 4096
    assert data.domains == ("code", "text")
    again = open_data(mixed, tmp_path, tokenizer=data.tokenizer, workers=0, options=OPTIONS)
    assert again.sha256 == data.sha256
    with pytest.raises(MobileMoEError, match="tokenised with its own tokenizer"):
        _open(mixed, tmp_path)
