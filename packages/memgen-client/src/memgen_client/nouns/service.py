"""`client.judges`, `.keys`, `.webhooks`, `.upstreams`, `.base`, `.health`: what the service runs with."""

from collections.abc import Sequence
from typing import Literal, Unpack

from memgen_client.answers import count, one, page, rows
from memgen_client.calls import Call, ModeT, Noun, Pages, many, once
from memgen_client.models.jobs import Job
from memgen_client.models.rows import Page, Rows
from memgen_client.models.service import (
    Base,
    Delivery,
    Judge,
    JudgeDetail,
    Judgement,
    Key,
    Liveness,
    NewKey,
    Readiness,
    Upstream,
    UpstreamCheck,
    Webhook,
    WebhookSecret,
)
from memgen_client.nouns.jobs import create as create_job
from memgen_client.options import JudgementFilter, JudgeSettings, JudgingOptions, WebhookChange
from memgen_client.paths import path

_CHECK_SECONDS = 60.0
DeliveryState = Literal["pending", "delivered", "given_up"]


class Judges(Noun[ModeT]):
    @once
    def create(
        self,
        name: str,
        model: str,
        rubric: str,
        *,
        kind: Literal["pointwise", "relative"] = "pointwise",
        **settings: Unpack[JudgeSettings],
    ) -> Call[Judge]:
        """Creating an equal one again is harmless; one that differs is refused (Conflict)."""
        body = {"name": name, "kind": kind, "model": model, "rubric": rubric, **settings}
        return Call("POST", path("judges"), one(Judge), body=body, harmless=True)

    @once
    def list(self) -> Call[Rows[Judge]]:
        return Call("GET", path("judges"), rows(Judge))

    @once
    def get(self, name: str) -> Call[JudgeDetail]:
        """The judge, what it has judged, and how it agrees with rewards from elsewhere."""
        return Call("GET", path("judges", name), one(JudgeDetail))

    @once
    def change(self, name: str, *, daily_calls: int) -> Call[Judge]:
        """How many calls it may make in 24 hours by itself. All else of a judge stays."""
        return Call("PATCH", path("judges", name), one(Judge), body={"daily_calls": daily_calls}, harmless=True)

    @once
    def run(
        self, name: str, task: str, *, idempotency_key: str | None = None, **options: Unpack[JudgingOptions]
    ) -> Call[Job]:
        """Queue a job that judges what waits in a task."""
        return create_job({"kind": "judge", "judge": name, "task": task, **options}, idempotency_key)

    @once
    def judgements(
        self, *, limit: int = 50, cursor: str | None = None, **wanted: Unpack[JudgementFilter]
    ) -> Call[Page[Judgement]]:
        """A page of what judges said, newest first."""
        return _judgements(wanted).at(cursor, limit)

    @many
    def all_judgements(self, **wanted: Unpack[JudgementFilter]) -> Pages[Judgement]:
        """All that judges said, newest first."""
        return Pages(_judgements(wanted))


class Keys(Noun[ModeT]):
    @once
    def create(self, name: str, scopes: Sequence[str]) -> Call[NewKey]:
        """`key` in the reply is shown this once. Scopes: read, write, train, promote, admin."""
        return Call("POST", path("keys"), one(NewKey), body={"name": name, "scopes": [*scopes]})

    @once
    def list(self) -> Call[Rows[Key]]:
        return Call("GET", path("keys"), rows(Key))

    @once
    def revoke(self, key_id: str) -> Call[Key]:
        return Call("DELETE", path("keys", key_id), one(Key))


class Webhooks(Noun[ModeT]):
    """Where a project's events are sent. Keys of scope `admin` only."""

    @once
    def create(self, name: str, url: str, *, events: Sequence[str] | None = None) -> Call[WebhookSecret]:
        """Its `secret` is in this reply and in no other. `events`: None for all."""
        body = {"name": name, "url": url, "events": [*(events or ())]}
        return Call("POST", path("webhooks"), one(WebhookSecret), body=body)

    @once
    def list(self) -> Call[Rows[Webhook]]:
        return Call("GET", path("webhooks"), rows(Webhook))

    @once
    def get(self, name: str) -> Call[Webhook]:
        return Call("GET", path("webhooks", name), one(Webhook))

    @once
    def change(self, name: str, **changes: Unpack[WebhookChange]) -> Call[Webhook]:
        """What is left out stays. What waits goes to the new URL; while it is disabled, nothing new is queued."""
        return Call("PATCH", path("webhooks", name), one(Webhook), body=changes, harmless=True)

    @once
    def delete(self, name: str) -> Call[Webhook]:
        """Its deliveries go too, also those that wait."""
        return Call("DELETE", path("webhooks", name), one(Webhook))

    @once
    def rotate(self, name: str, *, overlap_hours: float = 24.0) -> Call[WebhookSecret]:
        """A new `secret`, in this reply only; the former one signs beside it for `overlap_hours`."""
        body = {"overlap_hours": float(overlap_hours)}
        return Call("POST", path("webhooks", name, "rotate"), one(WebhookSecret), body=body)

    @once
    def test(self, name: str) -> Call[Delivery]:
        """Queue an event `webhook.test`; the reply is its delivery."""
        return Call("POST", path("webhooks", name, "test"), one(Delivery))

    @once
    def deliveries(
        self, name: str, *, state: DeliveryState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Call[Page[Delivery]]:
        """A page, newest first."""
        return _deliveries(name, state).at(cursor, limit)

    @many
    def all_deliveries(self, name: str, *, state: DeliveryState | None = None) -> Pages[Delivery]:
        """Every delivery, newest first."""
        return Pages(_deliveries(name, state))

    @once
    def delivery(self, name: str, delivery_id: str) -> Call[Delivery]:
        return Call("GET", path("webhooks", name, "deliveries", delivery_id), one(Delivery))

    @once
    def redeliver(self, name: str, delivery_id: str) -> Call[Delivery]:
        """Send it again now, under the same message id."""
        return Call("POST", path("webhooks", name, "deliveries", delivery_id, "redeliver"), one(Delivery))

    @once
    def redeliver_given_up(self, name: str) -> Call[int]:
        """Send all that were given up again. Returns how many."""
        return Call("POST", path("webhooks", name, "redeliver"), count("redelivered"))


class Upstreams(Noun[ModeT]):
    @once
    def list(self) -> Call[Rows[Upstream]]:
        return Call("GET", path("upstreams"), rows(Upstream))

    @once
    def check(self, name: str) -> Call[UpstreamCheck]:
        """Ask it for its models, from where the API runs; `ok` says whether it can be used."""
        return Call("POST", path("upstreams", name, "check"), one(UpstreamCheck), seconds=_CHECK_SECONDS, harmless=True)


class Bases(Noun[ModeT]):
    @once
    def get(self) -> Call[Base]:
        """Name, revision, longest context, and `profile`, how it reads conversations; `refused` says why it can't be
        worked with."""
        return Call("GET", path("base"), one(Base))


class Health(Noun[ModeT]):
    @once
    def live(self) -> Call[Liveness]:
        """The process answers."""
        return Call("GET", "/healthz", one(Liveness))

    @once
    def ready(self) -> Call[Readiness]:
        """Whether every part is reachable and the model is loaded; `checks` says what is not."""
        return Call("GET", "/readyz", one(Readiness), also=(503,))


def _judgements(wanted: JudgementFilter) -> Call[Page[Judgement]]:
    return Call("GET", path("judgements"), page(Judgement), params=wanted)


def _deliveries(name: str, state: str | None) -> Call[Page[Delivery]]:
    return Call("GET", path("webhooks", name, "deliveries"), page(Delivery), params={"state": state})
