"""What a version's memory has learned: its latents as a picture, their clusters, what answers lose without them."""

from collections.abc import Mapping, Sequence

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.scatter import HUES, SIDE, Scatter, draw_scatter
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import adapters, analyses, jobs
from api.endpoints.analyses import AnalysisOut, LatentPointOut, TokenNeighbourOut
from api.endpoints.job_bodies import JobIn
from api.http.idempotency import Idempotency
from registry.errors import AnalysisNotFound
from registry.job_requests import AnalyzeVersion, JobKind

_SHOWN_TOKENS = 6

pages = Pages()


@pages.get("/adapters/{name}/versions/{number}/analysis")
def one(visit: Visit, name: str, number: int) -> Response:
    """The newest analysis, or why there is none, and a form that starts one."""
    version = adapters.version(name, number, visit.services, visit.caller)
    found, missing = None, ""
    try:
        found = analyses.newest(name, number, visit.services, visit.caller)
    except AnalysisNotFound as error:
        missing = str(error)
    return show(
        visit,
        "analysis.html",
        version=version,
        found=found,
        missing=missing,
        items=AnalyzeVersion.items,
        **_drawn(found),
    )


@pages.get("/adapters/{name}/versions/{number}/analysis/files")
def files(visit: Visit, name: str, number: int) -> Response:
    newest = analyses.newest(name, number, visit.services, visit.caller)
    is_head = bool(getattr(visit.request.state, "is_head", False))
    return analyses.files(newest.job_id, visit.services, visit.caller, is_head)


@pages.post("/adapters/{name}/versions/{number}/analysis", scope="train")
def start(visit: Visit, name: str, number: int) -> Response:
    items = visit.number("items")
    analysis = {
        "items": AnalyzeVersion.items if items is None else items,
        "against": visit.number("against"),
        "interventions": bool(visit.text("interventions")),
        "ablations": bool(visit.text("ablations")),
    }
    body = JobIn.model_validate({"kind": JobKind.ANALYZE, "adapter": name, "version": number, "analysis": analysis})
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/adapters/{{name}}/versions/{{number}}/analysis")
    job = jobs.create(body, visit.request, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/jobs/{job.id}", f"{name}@{number} is looked into; its page shows what is found.")


def _drawn(found: AnalysisOut | None) -> dict[str, object]:
    """Pictures, and what stands beside the clusters."""
    points = found.map.points if found else []
    neighbours = {each.name: each.tokens for each in found.tokens.directions} if found else {}
    effects = found.interventions.effects if found and found.interventions else []
    return {
        "side": SIDE,
        "hues": HUES,
        "pictures": _pictures("t-SNE", points, [point.tsne for point in points]),
        "pca": _pictures("PCA", points, [point.pca for point in points]),
        "tokens": _tokens(neighbours),
        "effects": {effect.cluster: effect for effect in effects},
    }


def _pictures(axes: str, points: Sequence[LatentPointOut], places: Sequence[tuple[float, float]]) -> list[Scatter]:
    by_task = [point.task for point in points]
    by_cluster = ["no cluster" if point.cluster is None else f"cluster {point.cluster}" for point in points]
    pictures = [draw_scatter(f"{axes}, by task", places, by_task)]
    if any(point.cluster is not None for point in points):
        pictures.append(draw_scatter(f"{axes}, by cluster", places, by_cluster))
    return pictures if points else []


def _tokens(neighbours: Mapping[str, Sequence[TokenNeighbourOut]]) -> dict[str, list[tuple[str, float]]]:
    """Nearest tokens with their cosine, by name of what they are near to. Blanks and line ends can be told apart."""
    return {
        name: [(repr(each.token), each.cosine) for each in tokens[:_SHOWN_TOKENS]]
        for name, tokens in neighbours.items()
    }
