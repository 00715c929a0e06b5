"""Tokens near latents."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from memgen.analysis import neighbours
from memgen.analysis.clusters import Clustering, ClusterModel, ClusterReport
from memgen.analysis.neighbours import nearest_tokens, write_nearest_tokens
from memgen.backbone.loading import Backbone
from tests.memgen.analysis.samples import made_latents, noise


def table(backbone: Backbone) -> np.ndarray:
    return np.asarray(backbone.model.get_input_embeddings().weight.detach().float().numpy())


def test_a_tokens_own_embedding_is_nearest_to_it(backbone: Backbone) -> None:
    ids = [70, 100, 200, 250]
    latents = made_latents(table(backbone)[ids] * 3)
    found = nearest_tokens(backbone, latents, count=3, sample=10)
    assert [named.name for named in found.directions] == [f"latent {row}" for row in range(4)]
    for named, token in zip(found.directions, ids, strict=True):
        assert named.tokens[0].token_id == token
        assert named.tokens[0].cosine == pytest.approx(1, abs=1e-5)
        assert named.tokens[0].token == backbone.tokenizer.decode([token])
        cosines = [neighbour.cosine for neighbour in named.tokens]
        assert len(cosines) == 3
        assert cosines == sorted(cosines, reverse=True)


def test_centres_come_first(backbone: Backbone) -> None:
    rows = table(backbone)[[80, 90]]
    model = ClusterModel(np.zeros(64, np.float32), np.eye(64, dtype=np.float32), rows)
    clustering = Clustering(ClusterReport("clusters", "", (), (), {}), model)
    found = nearest_tokens(backbone, made_latents(noise(8, hidden=64)), clustering, sample=2)
    assert [named.name for named in found.directions[:2]] == ["cluster 0", "cluster 1"]
    assert [named.tokens[0].token_id for named in found.directions[:2]] == [80, 90]
    assert len(found.directions) == 4


def test_random_latents_are_hardly_nearer_than_chance(backbone: Backbone) -> None:
    found = nearest_tokens(backbone, made_latents(noise(200, hidden=64, seed=9)), sample=200, count=1)
    above = sum(named.tokens[0].cosine > found.chance_cosine for named in found.directions)
    assert 0 < found.chance_cosine < 1
    assert above / 200 < 0.15, "one in twenty, by and large"


def test_a_vocabulary_may_be_read_in_blocks(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = made_latents(noise(12, hidden=64))
    whole = nearest_tokens(backbone, latents)
    monkeypatch.setattr(neighbours, "_BLOCK", 5)
    parts = nearest_tokens(backbone, latents)
    assert [[t.token_id for t in named.tokens] for named in parts.directions] == [
        [t.token_id for t in named.tokens] for named in whole.directions
    ]


def test_every_latent_has_its_nearest_tokens_in_a_file(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all cosines at once."""
    latents, blocks = made_latents(noise(50, hidden=64)), []
    monkeypatch.setattr(neighbours, "_BLOCK", 60)
    monkeypatch.setattr(neighbours, "_LATENTS", 16)
    write_nearest_tokens(backbone, latents, tmp_path, on_block=lambda: blocks.append(1))
    found = load_file(tmp_path / "nearest.safetensors")
    tokens = table(backbone)
    tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)  # one of them is all zeros
    states = np.asarray(latents.states) / np.linalg.norm(latents.states, axis=1, keepdims=True)
    every = states @ tokens.T
    best = np.sort(every, axis=1)[:, :-6:-1]
    assert found["cosines"] == pytest.approx(best, abs=1e-5)
    assert np.take_along_axis(every, found["token_ids"].astype(int), axis=1) == pytest.approx(best, abs=1e-5)
    texts = json.loads((tmp_path / "nearest_tokens.json").read_text())
    assert texts == {str(token): backbone.tokenizer.decode([token]) for token in np.unique(found["token_ids"])}
    assert len(blocks) == -(-len(tokens) // 60) * 4
    write_nearest_tokens(backbone, made_latents(np.zeros((0, 64), np.float32)), tmp_path)
    assert load_file(tmp_path / "nearest.safetensors")["token_ids"].shape == (0, 5)


def test_without_latents_there_is_nothing_near(backbone: Backbone) -> None:
    assert nearest_tokens(backbone, made_latents(np.zeros((0, 64), np.float32))).directions == ()
