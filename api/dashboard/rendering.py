"""Templates into pages: what all pages know, how values are written, and the headers that keep a page harmless."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dashboard.curves import Curves
from api.dashboard.visits import HOME, Visit, drop_notice, notice_of
from registry.wording import counted

_HEADERS = {
    # No inline script, no inline style, nothing from elsewhere, in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGES = (
    ("", "Overview", "read"),
    ("/adapters", "Adapters", "read"),
    ("/loops", "Loops", "read"),
    ("/jobs", "Jobs", "read"),
    ("/trajectories", "Trajectories", "read"),
    ("/playground", "Playground", "read"),
    ("/schedules", "Schedules", "read"),
    ("/tasks", "Tasks", "read"),
    ("/judges", "Judges", "read"),
    ("/feedback", "Feedback", "read"),
    ("/recordings", "Recordings", "read"),
    ("/deletions", "Deletions", "admin"),
    ("/keys", "Keys", "admin"),
)
"""The pages of the menu, each with the scope that it needs."""
_KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_STATE_TONES = {
    "good": ("passed", "succeeded", "running", "promoted", "live", "better", "ready", "delivered"),
    "bad": ("rejected", "failed", "stopped", "worse", "withdrawn", "rolled_back"),
    "wait": ("waiting", "queued", "unchecked", "not yet", "trying", "cancelled", "undecided"),
}
_TONES = {state: tone for tone, states in _STATE_TONES.items() for state in states}


def render(
    request: Request, template: str, *, visit: Visit | None = None, status: int = 200, **values: Any
) -> Response:
    """A page. `visit` is None where nobody is signed in."""
    text = (
        _environment()
        .get_template(template)
        .render(visit=visit, here=request.url.path, home=HOME, notice=notice_of(request) if visit else "", **values)
    )
    answer = HTMLResponse(text, status)
    drop_notice(request, answer)
    return answer


def show(visit: Visit, template: str, **values: Any) -> Response:
    status = 200 if visit.refusal is None else visit.refusal.status
    return render(visit.request, template, visit=visit, status=status, **values)


def fragment(template: str, **values: Any) -> str:
    """Part of a page, for a page that is there already."""
    return _environment().get_template(template).render(home=HOME, **values)


class Harmless:
    """What a route answers, with headers that keep it so: pages, parts of them, downloads and refusals alike."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_harmless(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kept = "immutable" in headers.get("Cache-Control", "")
                headers.update({name: value for name, value in _HEADERS.items() if name != "Cache-Control" or not kept})
            await send(message)

        await self._app(scope, receive, send_harmless)


@cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Content and kind of each static file, by the name under which it is served: with its hash, so kept for ever."""
    found = {}
    for name, content in _read(files("api.dashboard") / "static"):
        kind = _KINDS.get(name.rpartition(".")[2])
        if kind is not None:
            found[f"{hashlib.sha256(content).hexdigest()[:12]}/{name}"] = content, kind
    return found


def _read(folder: Traversable, before: str = "") -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{before}{entry.name}/")
        else:
            found.append((f"{before}{entry.name}", entry.read_bytes()))
    return found


@cache
def _static_urls() -> Mapping[str, str]:
    return {path.partition("/")[2]: f"{HOME}/static/{path}" for path in static_files()}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("api.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "percent": percent,
        "score": score,
        "short": lambda text: str(text)[:12],
        "chart": chart,
        "indented": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
        "tone": lambda state: _TONES.get(state, "plain"),
        "plain": plain,
        "words": lambda name: str(name).replace("_", " "),
    }
    environment.globals |= {
        "static": _static_urls().__getitem__,
        "counted": counted,
        "pages_shown": _PAGES,
        "new_id": lambda: uuid.uuid4().hex,
        "zip": zip,
    }
    return environment


def moment(at: datetime | None) -> Markup:
    """A time in UTC, to the minute; to the second for machines and on a hover."""
    if at is None:
        return Markup("–")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M:%S UTC"), at.strftime("%Y-%m-%d %H:%M")
    )


def plain(value: object) -> str:
    """A value as a form's field has it, and as it is read back: `0.05`, and nothing for None."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def pairs_text(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Settings that are not as usual, as `Visit.pairs` reads them: `steps=40 learning_rate=0.002`."""
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in settings.items()
        if value != usual.get(name)
    )


def chart(curves: Curves) -> str:
    """What `charts.js` draws, for a data attribute; the template escapes it."""
    return json.dumps({**curves, "x": list(curves["x"])}, separators=(",", ":"))
