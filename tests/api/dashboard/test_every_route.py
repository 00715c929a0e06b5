"""Each route of the dashboard, and each that will be: whom it refuses before anything is looked for."""

import re
import uuid

import pytest

from api.dashboard.urls import ROUTES
from api.dashboard.visits import CSRF_HEADER
from registry.models import SCOPES
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with
from tests.registry.conftest import Rows

_OPEN = ("/ui/sign-in", "/ui/static/{path:path}", "/ui/{path:path}")
"""For whoever comes."""
_READERS = ("/ui/sign-out", "/ui/playground/answer")
"""What is sent and changes nothing but the caller's own."""
_PARTS = {"number": "1", "text": str(uuid.UUID(int=0))}


def paths(method: str, *, but: tuple[str, ...] = ()) -> list[str]:
    open_to_all = (*_OPEN, *but)
    found = [route.path for route in ROUTES if method in (route.methods or ()) and route.path not in open_to_all]
    return [re.sub(r"{(\w+)}", lambda part: _PARTS.get(part[1], "bot"), path) for path in found]


def _token(visitor: Visitor) -> str:
    return forms_of(visitor.open())["/ui/sign-out"]["csrf"]


@pytest.mark.parametrize("path", paths("GET"))
def test_a_stranger_sees_nothing(stranger: Visitor, path: str) -> None:
    answer = stranger.http.get(path)
    assert answer.url.path == "/ui/sign-in" or "you are not signed in" in answer.text


def test_a_form_counts_with_a_sign_in_and_its_token_alone(visitor: Visitor) -> None:
    sent = paths("POST")
    assert len(sent) > 20
    token = _token(visitor)
    for path in sent:
        for wrong in ("", "0" * 64):
            answer = visitor.http.post(path, data={"csrf": wrong}, headers={CSRF_HEADER: wrong})
            assert (answer.status_code, "made for another sign-in" in answer.text) == (403, True), path
        elsewhere = {CSRF_HEADER: token, "Sec-Fetch-Site": "cross-site"}
        answer = visitor.http.post(path, data={"csrf": token}, headers=elsewhere)
        assert (answer.status_code, "by a page of another site" in answer.text) == (403, True), path
    visitor.http.cookies.clear()
    for path in sent:
        answer = visitor.http.post(path, data={"csrf": token}, headers={CSRF_HEADER: token})
        assert (answer.status_code, "you are not signed in" in answer.text) == (401, True), path


def test_a_key_that_may_only_read_changes_nothing(stranger: Visitor, services: Services, project_id: uuid.UUID) -> None:
    stranger.sign_in(key_with(services, project_id, "read")[1])
    token = _token(stranger)
    for path in paths("POST", but=_READERS):
        answer = stranger.http.post(path, data={"csrf": token}, headers={CSRF_HEADER: token})
        assert (answer.status_code, "lacks the scope" in answer.text) == (403, True), path


def test_no_page_offers_what_its_reader_may_not_do(
    stranger: Visitor, services: Services, project_id: uuid.UUID, rows: Rows
) -> None:
    """Every form of every page is one that is not refused for want of a scope."""
    rows.task("a")
    rows.version("a")
    for scope in SCOPES:
        stranger.http.cookies.clear()
        stranger.sign_in(key_with(services, project_id, *{"read", scope})[1])
        for path in paths("GET"):
            forms = forms_of(stranger.http.get(path).text)
            for action, fields in forms.items():
                # The other two would end the sign-in of who asks.
                if "csrf" in fields and action != "/ui/sign-out" and not action.endswith("/revoke"):
                    answer = stranger.http.post(action, data={"csrf": fields["csrf"]})
                    assert "lacks the scope" not in answer.text, (scope, path, action)
