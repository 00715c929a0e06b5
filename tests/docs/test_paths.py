"""Every request that the pages name is a route of the application."""

import re

import pytest

from tests.api.http.every_route import OPERATIONS, PARAMETER
from tests.docs.pages import PAGES, page_name

ELSEWHERE = {"POST /hook", "GET /memgen/base"}
"""What receivers of webhooks answer, and vLLM's server with our plugin."""
NAMED = sorted(
    {
        (method, path)
        for page in PAGES
        for method, path in re.findall(
            r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/.{}:@%-]+)", page.read_text(encoding="utf-8")
        )
        if f"{method} {path}" not in ELSEWHERE
    }
)
CALLED = sorted(
    {
        (page_name(page), path)
        for page in PAGES
        for path in re.findall(r"MEMGEN_API_URL(/v1/[\w/-]+)", page.read_text(encoding="utf-8"))
    }
)


def _is_of(template: str, path: str) -> bool:
    """Whether a path is of a route, its parameters named as they are there, named otherwise, or filled in."""
    kinds = re.sub(PARAMETER, "[^/]+", template.replace("{model:path}", "{model}"))
    return re.fullmatch(kinds, path) is not None


def test_the_scan_finds_them() -> None:
    assert len(NAMED) > 25
    assert len(CALLED) > 3


@pytest.mark.parametrize(("method", "path"), NAMED)
def test_a_named_request_has_its_route(method: str, path: str) -> None:
    assert any(offered == method and _is_of(template, path) for offered, template, _ in OPERATIONS)


@pytest.mark.parametrize(("page", "path"), CALLED)
def test_a_called_path_is_served(page: str, path: str) -> None:
    assert any(_is_of(template, path) for _, template, _ in OPERATIONS), page
