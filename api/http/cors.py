"""Cross-origin requests: which web pages may call the API from a browser, by a setting. By default none may."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import problem

_EXPOSED = (
    "Allow",
    "Content-Disposition",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Memgen-Run",
    "X-Memgen-Version",
    "X-Request-ID",
)


class Cors(CORSMiddleware):
    """Middleware. The key travels in a header and never in a cookie, so any request header may be sent."""

    def __init__(self, app: ASGIApp, allow_origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=[method for method in ALL_METHODS if method != "QUERY"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                refused = self.preflight_response(headers)
                if refused.status_code == 400:
                    await _as_problem(scope, refused)(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def _as_problem(scope: Scope, refused: Response) -> Response:
    kept = {name: value for name, value in refused.headers.items() if not name.startswith("content-")}
    detail = f"{bytes(refused.body).decode()}; MEMGEN_CORS_ORIGINS of the API names the origins that may call it"
    return problem(Request(scope), 400, "http_400", detail, headers=kept)
