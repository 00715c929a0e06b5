"""An adapter whose traffic can be routed: versions, a champion, answers as served, feedback on them."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from registry.adapters import get_adapter
from registry.database import transaction
from registry.models import Adapter, Route
from registry.serving.aliases import promote
from registry.serving.exposures import record_exposure
from registry.serving.feedback import Rating, Received, receive_feedback
from registry.serving.resolution import ServingRequest, resolve
from registry.serving.results import RouteResults, results_of
from registry.serving.routes import (
    Terms,
    end_route,
    get_route,
    live_route,
    start_ab,
    start_canary,
    start_shadow,
)
from registry.versions.records import get_version
from tests.registry.conftest import Rows


@dataclass
class Routed:
    """Versions 1 to 4 of `bot` passed, 5 was rejected, 6 is not checked; 1 is the champion."""

    rows: Rows
    answers: dict[str, str] = field(default_factory=dict)
    """What `bot` answered as, by completion id."""

    def move_champion(self, number: int) -> None:
        with transaction(self.rows.services.sessions) as session:
            adapter = self.adapter(session)
            promote(session, adapter, "champion", get_version(session, adapter, number), actor="boss", reason="go")

    def start_ab(self, weights: dict[int, float], *, replace: bool = False, terms: Terms | None = None) -> Route:
        with transaction(self.rows.services.sessions) as session:
            return start_ab(session, self.adapter(session), weights, terms, actor="anna", reason="why", replace=replace)

    def start_canary(self, number: int, share: float = 0.5, *, terms: Terms | None = None) -> Route:
        with transaction(self.rows.services.sessions) as session:
            return start_canary(session, self.adapter(session), number, share, terms, actor="anna", reason="try it")

    def start_shadow(self, number: int, share: float = 1.0) -> Route:
        with transaction(self.rows.services.sessions) as session:
            return start_shadow(session, self.adapter(session), number, share, actor="anna", reason="look")

    def end(self, number: int) -> Route:
        with transaction(self.rows.services.sessions) as session:
            return end_route(session, self.adapter(session), number, actor="anna", reason="enough")

    def live(self) -> Route | None:
        with transaction(self.rows.services.sessions) as session:
            return live_route(session, get_adapter(session, self.rows.project_id, self.rows.adapter))

    def route(self, number: int) -> Route:
        with transaction(self.rows.services.sessions) as session:
            return get_route(session, get_adapter(session, self.rows.project_id, self.rows.adapter), number)

    def results(self, number: int = 1) -> RouteResults:
        with transaction(self.rows.services.sessions) as session:
            adapter = get_adapter(session, self.rows.project_id, self.rows.adapter)
            return results_of(session, get_route(session, adapter, number))

    def ask(self, session_id: str | None = None, *, model: str = "bot") -> str:
        """One answer as the chat endpoint serves it; its completion id."""
        request = ServingRequest(f"chatcmpl-{uuid.uuid4().hex}", session_id)
        with transaction(self.rows.services.sessions) as session:
            served = resolve(session, self.rows.project_id, model, request)
        with transaction(self.rows.services.sessions) as session:
            record_exposure(session, self.rows.project_id, request.completion_id, served, session_id)
        self.answers[request.completion_id] = served.label
        return request.completion_id

    def rate(self, completion_id: str, reward: float, *, source: str = "user") -> Received:
        with transaction(self.rows.services.sessions) as session:
            report = Rating(reward, actor="key test", source=source)
            return receive_feedback(session, self.rows.project_id, completion_id, report)

    def rate_sessions(self, reward: Callable[[str, int], float], count: int) -> list[Received]:
        """One answer and its feedback for each of `count` sessions; `reward` of the version's label and the session."""
        received = []
        for number in range(count):
            answer = self.ask(f"s{number}")
            received.append(self.rate(answer, reward(self.answers[answer], number)))
        return received

    def adapter(self, session: object) -> Adapter:
        return get_adapter(session, self.rows.project_id, self.rows.adapter, lock=True)


def make_routed(rows: Rows) -> Routed:
    rows.task("a")
    for passed in (True, True, True, True, False, None):
        rows.version("a", passed=passed)
    routed = Routed(rows)
    routed.move_champion(1)
    return routed
