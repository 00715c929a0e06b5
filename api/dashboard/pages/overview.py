"""The first page: what waits for a person, what failed, what was learned, and how the loops are."""

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import Visit
from api.endpoints import adapters, loops
from api.endpoints.adapters import AdapterList
from api.endpoints.loop_bodies import LoopList
from api.http.schemas import AliasMoveOut, JobOut, VersionOut
from registry.clock import utc_now
from registry.database import transaction
from registry.gates.verdict import gates_of
from registry.overview import SHOWN_DAYS, overview_of

pages = Pages()


@pages.get("")
def overview(visit: Visit) -> Response:
    with transaction(visit.services.sessions) as session:
        found = overview_of(session, visit.caller.project_id, utc_now())
        gates = gates_of(session, [*found.waiting, *found.learned])
        waiting, learned = (
            [VersionOut.of(row, gates.get(row.id)) for row in rows] for rows in (found.waiting, found.learned)
        )
        moves = [(row.to_version.adapter.name, AliasMoveOut.of(row)) for row in found.moves]
        failed = [JobOut.of(row) for row in found.failed]
    known: AdapterList = adapters.index(visit.services, visit.caller)
    looping: LoopList = loops.index(visit.services, visit.caller)
    return show(
        visit,
        "overview.html",
        days=SHOWN_DAYS,
        waiting=waiting,
        learned=learned,
        moves=moves,
        failed=failed,
        adapters=known.data,
        loops={loop.adapter: loop for loop in looping.data},
        troubled=[loop for loop in looping.data if loop.state not in ("running", "paused")],
    )
