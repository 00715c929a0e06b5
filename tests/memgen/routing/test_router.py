import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.backbone.prompt_cache import PromptCache
from memgen.backbone.states import prompt_states
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError, PromptTooLong
from memgen.routing.router import MIN_STATES, RoutedPrompt, Router, fit_region

CROSS = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(5, 1)
"""Mean 0 and covariance diag(40, 10) / 19, of which tr/H is 25 / 19."""


def cloud(seed: int, count: int = 60, size: int = 64, at: float = 0.0) -> Tensor:
    """States of a task whose prompts differ ten times as much in the last dimension as in the first."""
    noise = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return at + torch.linspace(0.1, 1, size) * noise


def router(size: int, **clouds: Tensor) -> Router:
    built = Router("revision", size)
    for task, states in clouds.items():
        built = built.with_task(task, states)
    return built


def prompt(backbone: Backbone, text: str) -> tuple[int, ...]:
    return backbone.profile.prompt_ids([{"role": "user", "content": text}])


def same(one: Router, other: Router) -> bool:
    if list(one.regions) != list(other.regions):
        return False
    pairs = [(one.regions[task], other.regions[task]) for task in one.regions]
    return all(
        torch.equal(a.mean, b.mean)
        and torch.equal(a.directions, b.directions)
        and torch.equal(a.discounts, b.discounts)
        and (a.noise, a.radius, a.states, a.accepted) == (b.noise, b.radius, b.states, b.accepted)
        for a, b in pairs
    )


class TestRegion:
    def test_distance_by_hand(self) -> None:
        # S = 0.7 * diag(40, 10) / 19 + 0.3 * 25 / 19 = diag(35.5, 14.5) / 19
        states = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, -2.0]])
        expected = [4 * 19 / 35.5, 19 / 14.5, 0.0, 9 * 19 / 35.5 + 4 * 19 / 14.5]
        found = fit_region(CROSS).distances(states)
        assert found.square().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)

    def test_distance_equals_the_inverse_of_the_covariance(self) -> None:
        states = cloud(0, count=200, size=12)
        covariance = torch.cov(states.double().T)
        spread = 0.7 * covariance + 0.3 * covariance.trace() / 12 * torch.eye(12, dtype=torch.float64)
        others = cloud(1, count=7, size=12).double()
        differences = others - states.double().mean(dim=0)
        expected = (differences * torch.linalg.solve(spread, differences.T).T).sum(dim=1).sqrt()
        assert torch.allclose(fit_region(states).distances(others), expected, rtol=1e-4)

    def test_volume_by_hand(self) -> None:
        assert fit_region(CROSS).log_volume == pytest.approx(math.log(35.5 / 19 * 14.5 / 19), rel=1e-6)

    def test_a_direction_in_which_the_task_varies_counts_less(self) -> None:
        along, across = fit_region(CROSS).distances(torch.eye(2)).tolist()
        assert along < across

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), share=st.sampled_from([0.8, 0.9, 0.95]), count=st.sampled_from([40, 100]))
    def test_the_stated_share_of_new_prompts_is_accepted(self, seed: int, share: float, count: int) -> None:
        states = cloud(seed, count=count + 2000, size=24)
        region = fit_region(states[:count], accepted_share=share)
        accepted = float((region.distances(states[count:]) <= region.radius).double().mean())
        # A quantile of `count` distances scatters by sqrt(p (1 - p) / count).
        assert abs(accepted - share) < 4 * math.sqrt(share * (1 - share) / count) + 0.03

    def test_the_share_accepted_is_on_average_a_little_more_than_stated(self) -> None:
        accepted = []
        for seed in range(40):
            states = cloud(seed, count=1050, size=24)
            region = fit_region(states[:50], accepted_share=0.9)
            accepted.append(float((region.distances(states[50:]) <= region.radius).double().mean()))
        assert 0.9 <= sum(accepted) / len(accepted) <= 0.95

    def test_one_strange_prompt_does_not_open_the_region(self) -> None:
        states = cloud(0, count=30)
        strange = torch.cat([states[:-1], states[-1:] + 30])
        region = fit_region(strange, accepted_share=0.99)
        assert region.distances(strange[-1:]).item() > region.radius
        assert region.accepted < 1
        assert float((region.distances(states[:-1]) <= region.radius).double().mean()) == 1

    @pytest.mark.parametrize(
        ("states", "share", "message"),
        [
            (cloud(0, count=MIN_STATES - 1), 0.9, f"{MIN_STATES - 1} prompts"),
            (torch.ones(40, 8), 0.9, "all equal"),
            (torch.full((40, 8), math.nan), 0.9, "not finite"),
            (cloud(0), 1.0, "accepted_share is 1.0"),
        ],
    )
    def test_refuses(self, states: Tensor, share: float, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            fit_region(states, accepted_share=share)


class TestRouter:
    def test_a_prompt_goes_to_its_task_or_to_the_base(self) -> None:
        built = router(64, near=cloud(0), far=cloud(1, at=5))
        routes = built.route(torch.stack([torch.zeros(64), torch.full((64,), 5.0), torch.full((64,), 2.5)]))
        assert [route.task for route in routes] == ["near", "far", None]
        assert routes[0].fits["near"] < 1 < routes[0].fits["far"]
        assert min(routes[2].fits.values()) > 1

    def test_a_narrow_task_keeps_its_prompts_inside_a_broad_one(self) -> None:
        built = router(64, broad=6 * cloud(0), narrow=cloud(1) / 6)
        routes = built.route(cloud(2, count=40) / 6)
        assert all(route.fits["broad"] < 0.5 for route in routes)
        assert sum(route.task == "narrow" for route in routes) >= 37
        assert sum(route.task == "broad" for route in built.route(6 * cloud(3, count=40))) >= 37

    def test_a_router_without_tasks_sends_all_to_the_base(self) -> None:
        assert Router("revision", 4).route(torch.zeros(2, 4)) == [RoutedPrompt(None, {})] * 2

    def test_a_state_that_is_not_a_number_goes_to_the_base(self) -> None:
        assert router(64, a=cloud(0)).route(torch.full((1, 64), math.nan))[0].task is None

    def test_a_state_alone_is_routed_as_in_a_batch(self) -> None:
        built = router(64, a=cloud(0), b=cloud(1, at=1))
        states = cloud(2, count=9, at=0.5)
        assert [built.route(state[None])[0].task for state in states] == [r.task for r in built.route(states)]

    def test_adding_a_task_equals_fitting_all_at_once(self, backbone: Backbone) -> None:
        clouds = {"a": cloud(0), "b": cloud(1, at=3), "c": cloud(2, at=-3)}
        together = Router.fit(backbone, clouds)
        one_by_one = Router(backbone.revision, backbone.hidden_size)
        for task, states in clouds.items():
            one_by_one = one_by_one.with_task(task, states)
        assert same(together, one_by_one)

    def test_tasks_do_not_touch_each_other(self) -> None:
        alone = router(64, a=cloud(0))
        grown = alone.with_task("b", cloud(1, at=3)).with_task("b", cloud(2, at=3))
        assert same(alone, grown.without_task("b"))
        assert list(alone.regions) == ["a"]
        assert grown.regions["b"].mean.equal(fit_region(cloud(2, at=3)).mean)

    def test_refuses_states_of_another_width(self) -> None:
        built = router(64, a=cloud(0))
        with pytest.raises(ArtifactMismatch, match=r"\(3, 32\).*\(N, 64\)"):
            built.route(torch.zeros(3, 32))
        with pytest.raises(ArtifactMismatch):
            built.with_task("b", cloud(1, size=32))

    def test_an_error_names_the_task(self) -> None:
        with pytest.raises(ConfigError, match="task 'calls': 3 prompts"):
            router(64, calls=cloud(0, count=3))


class TestFile:
    def test_round_trip_is_exact(self, backbone: Backbone, tmp_path: Path) -> None:
        saved = Router.fit(backbone, {"tool calls": cloud(0), "größer/2": cloud(1, at=2)})
        saved.save(tmp_path / "router.safetensors")
        loaded = Router.load(tmp_path / "router.safetensors", backbone)
        assert same(saved, loaded)
        states = cloud(2, at=1)
        assert saved.route(states) == loaded.route(states)

    def test_an_empty_router_round_trips(self, backbone: Backbone, tmp_path: Path) -> None:
        Router.fit(backbone, {}).save(tmp_path / "router")
        assert not Router.load(tmp_path / "router", backbone).regions

    @pytest.mark.parametrize("field", ["format", "state", "base_revision", "hidden_size"])
    def test_refuses_what_was_made_for_something_else(self, backbone: Backbone, tmp_path: Path, field: str) -> None:
        path = tmp_path / "router"
        Router.fit(backbone, {"a": cloud(0)}).save(path)
        rewrite(path, {field: "another"})
        with pytest.raises(ArtifactMismatch, match=f"{field} is 'another'"):
            Router.load(path, backbone)

    def test_refuses_a_file_that_is_not_there(self, backbone: Backbone, tmp_path: Path) -> None:
        with pytest.raises(ArtifactMissing):
            Router.load(tmp_path / "router", backbone)

    def test_refuses_other_files(self, backbone: Backbone, tmp_path: Path) -> None:
        path = tmp_path / "router"
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(ArtifactCorrupt):
            Router.load(path, backbone)
        save_file({"weight": torch.zeros(2)}, path)
        with pytest.raises(ArtifactCorrupt):
            Router.load(path, backbone)

    def test_refuses_tensors_that_do_not_fit_its_header(self, backbone: Backbone, tmp_path: Path) -> None:
        path = tmp_path / "router"
        Router.fit(backbone, {"a": cloud(0)}).save(path)
        rewrite(path, {}, mean=torch.zeros(3))
        with pytest.raises(ArtifactCorrupt, match=r"mean is \(3,\)"):
            Router.load(path, backbone)


def rewrite(path: Path, changes: dict[str, object], **tensors: Tensor) -> None:
    """Change fields of a saved router's header, and tensors of its first task."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["router"])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    kept |= {f"0.{name}": tensor for name, tensor in tensors.items()}
    save_file(kept, path, metadata={"router": json.dumps({**header, **changes})})


class TestStates:
    def test_a_state_is_the_hidden_state_of_the_last_token_but_one(self, backbone: Backbone) -> None:
        ids = prompt(backbone, "say yes")
        hidden = backbone.model.base_model(torch.tensor([ids])).last_hidden_state
        assert torch.allclose(prompt_states(backbone, [ids])[0], hidden[0, -2], atol=1e-5)

    def test_padding_changes_nothing(self, backbone: Backbone) -> None:
        prompts = [prompt(backbone, "say " + "no " * count) for count in (9, 0, 3, 40, 1)]
        together = prompt_states(backbone, prompts, batch_size=3)
        alone = torch.cat([prompt_states(backbone, [ids]) for ids in prompts])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_it_is_the_state_that_serving_has_already(self, backbone: Backbone) -> None:
        first, second = prompt(backbone, "say yes 1"), prompt(backbone, "say yes 2, please")
        cache = PromptCache(backbone.decoder, max_bytes=10**8)
        cache.read([first[:-1]])
        prefixes = cache.read([second[:-1], first[:-1]])
        assert cache.reused_tokens > len(first)
        expected = prompt_states(backbone, [second, first])
        assert torch.allclose(torch.stack([prefix.state for prefix in prefixes]), expected, atol=1e-5)

    def test_edges(self, backbone: Backbone) -> None:
        assert prompt_states(backbone, []).shape == (0, backbone.hidden_size)
        assert torch.equal(prompt_states(backbone, [(5,)]), torch.zeros(1, backbone.hidden_size))
        with pytest.raises(PromptTooLong, match=f"{backbone.max_tokens + 1} tokens"):
            prompt_states(backbone, [[5] * (backbone.max_tokens + 1)])

    def test_end_to_end(self, backbone: Backbone) -> None:
        """Even a random base tells the forms of prompts apart."""

        def adding(numbers: range) -> Tensor:
            return prompt_states(backbone, [prompt(backbone, f"add {n} and {n * 7 % 50}") for n in numbers])

        def spelling(numbers: range) -> Tensor:
            return prompt_states(backbone, [prompt(backbone, f"spell item number {n} aloud???") for n in numbers])

        built = Router.fit(backbone, {"adding": adding(range(60)), "spelling": spelling(range(60))})
        right = [route.task == "adding" for route in built.route(adding(range(60, 100)))]
        right += [route.task == "spelling" for route in built.route(spelling(range(60, 100)))]
        assert sum(right) >= 0.9 * len(right)
        foreign = prompt_states(backbone, [prompt(backbone, text * 3) for text in ("{}[]", "ÄÖÜ ", "\n\n", "zzzz")])
        assert [route.task for route in built.route(foreign)] == [None] * 4
