"""Adapters: the list, and one with its versions as a graph, its scores, its aliases, and their moves."""

from dataclasses import asdict

from starlette.responses import Response

from api.dashboard.curves import metric_rows, metrics_by_version, scores_by_version
from api.dashboard.lineage import draw_lineage
from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.settings_fields import setting_fields
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import adapters, jobs, routes
from api.endpoints.adapters import PromoteIn, RollbackIn
from api.endpoints.job_bodies import JobIn
from api.endpoints.scores import scores_of
from api.http.idempotency import Idempotency
from api.http.pagination import decode_cursor, make_page
from api.http.schemas import AdapterOut, AliasMoveOut, VersionOut
from memgen.errors import ConfigError
from registry.adapters import AdapterSettings, get_adapter
from registry.database import transaction
from registry.gates.verdict import gates_of
from registry.job_requests import JobKind
from registry.models import CANARY_PROMOTIONS, GATE_POLICIES, GATE_RULES, STRATEGIES
from registry.serving.aliases import list_aliases, newest_moves
from registry.tasks import list_tasks
from registry.versions.records import newest_versions

SHOWN_VERSIONS = 30
_SHOWN_MOVES = 50
SETTINGS = setting_fields(
    AdapterSettings,
    {"gate_rule": GATE_RULES, "gate_policy": GATE_POLICIES, "canary_promotion": CANARY_PROMOTIONS},
)
"""The settings of replay and gates."""

pages = Pages()


@pages.get("/adapters")
def index(visit: Visit) -> Response:
    return show(
        visit,
        "adapters.html",
        adapters=adapters.index(visit.services, visit.caller).data,
        strategies=STRATEGIES,
        settings=SETTINGS,
        values=asdict(AdapterSettings()),
    )


@pages.get("/adapters/{name}")
def one(visit: Visit, name: str) -> Response:
    older_than = visit.request.query_params.get("moves") or None
    before = decode_cursor(older_than) if older_than else None
    with transaction(visit.services.sessions) as session:
        adapter = get_adapter(session, visit.caller.project_id, name)
        rows = newest_versions(session, adapter, before=_before(visit), limit=SHOWN_VERSIONS + 1)
        shown, gates = rows[:SHOWN_VERSIONS], gates_of(session, rows)
        versions = [VersionOut.of(row, gates.get(row.id)) for row in shown]
        scores = scores_of(session, adapter, shown[::-1])
        values = {
            "adapter": AdapterOut.of(adapter, list_aliases(session, adapter)),
            "tasks": [task.name for task in list_tasks(session, visit.caller.project_id)],
            "moves": make_page(
                newest_moves(session, adapter, _SHOWN_MOVES + 1, before=before),
                _SHOWN_MOVES,
                seq=lambda row: row.seq,
                render=AliasMoveOut.of,
            ),
        }
    live = next(iter(routes.index(name, visit.services, visit.caller, limit=1).data), None)
    return show(
        visit,
        "adapter.html",
        **values,
        versions=versions,
        older=versions[-1].number if len(rows) > SHOWN_VERSIONS else None,
        graph=draw_lineage(versions),
        scores=scores,
        metric_rows=metric_rows(scores),
        metric_curves=metrics_by_version(metric_rows(scores)),
        score_curves=scores_by_version(scores),
        route=live if live and live.state == "live" else None,
    )


@pages.post("/adapters/{name}/aliases/{alias}/promote", scope="promote")
def promote(visit: Visit, name: str, alias: str) -> Response:
    version = visit.number("version")
    body = PromoteIn.model_validate(
        {"version": version, "expected_version": visit.number("expected_version"), "reason": visit.text("reason")}
    )
    move = adapters.promote_alias(name, alias, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/adapters/{name}", f"{alias} of {name} is version {move.to_version} now.")


@pages.post("/adapters/{name}/aliases/{alias}/rollback", scope="promote")
def roll_back(visit: Visit, name: str, alias: str) -> Response:
    body = RollbackIn.model_validate(
        {
            "to_version": visit.number("to_version"),
            "expected_version": visit.number("expected_version"),
            "reason": visit.text("reason"),
        }
    )
    move = adapters.roll_back_alias(name, alias, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/adapters/{name}", f"{alias} of {name} is version {move.to_version} again.")


@pages.post("/adapters/{name}/train", scope="train", again=one, places={ConfigError: "settings"})
def train(visit: Visit, name: str) -> Response:
    steps = visit.number("steps")
    body = JobIn.model_validate(
        {
            "kind": JobKind.TRAIN_WEAVER,
            "adapter": name,
            "task": visit.text("task"),
            "training": visit.pairs("settings") | ({} if steps is None else {"steps": steps}),
            "promote": visit.text("promote") == "yes",
        }
    )
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/adapters/{{name}}/train")
    job = jobs.create(body, visit.request, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/jobs/{job.id}", "The training is queued.")


def _before(visit: Visit) -> int | None:
    text = visit.request.query_params.get("before", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
