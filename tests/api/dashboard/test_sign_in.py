"""Signing in, what ends it, and what a page of another site can't do."""

import uuid
from itertools import takewhile

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.dashboard.visits import COOKIE
from registry import jobs
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.keys import revoke_key
from registry.models import SignIn
from registry.settings import Settings
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with
from tests.api.live_api import serve
from tests.registry.conftest import Rows


def test_a_stranger_signs_in_and_comes_where_they_wanted(stranger: Visitor, rows: Rows, api_key: str) -> None:
    page = stranger.open("/adapters/bot?before=7")
    form = forms_of(page)["/ui/sign-in"]
    assert form["next"] == "/ui/adapters/bot?before=7"
    answer = stranger.send(page, "/ui/sign-in", key=api_key)
    assert (answer.status_code, str(answer.url.path)) == (200, "/ui/adapters/bot")
    assert "<h1>bot</h1>" in answer.text


def test_a_wrong_key_is_refused_in_words(stranger: Visitor) -> None:
    for wrong in ("mg_wrong", "", "\N{SNOWMAN}"):
        answer = stranger.sign_in(wrong)
        assert answer.status_code == 401
        assert "No such key, or it was revoked." in answer.text
        assert COOKIE not in stranger.http.cookies


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/ui", "//evil.example/ui", "/\\evil.example", "/v1/jobs", "/uix", "//[", ""]
)
def test_nobody_is_led_elsewhere(stranger: Visitor, api_key: str, wanted: str) -> None:
    answer = stranger.sign_in(api_key, to=wanted)
    assert (answer.status_code, answer.url.path) == (200, "/ui")


def test_the_cookie_is_no_key_and_no_script_reads_it(stranger: Visitor, services: Services, api_key: str) -> None:
    answer = stranger.http.post("/ui/sign-in", data={"key": api_key}, follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert api_key not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Path=/ui"))
    with transaction(services.sessions) as session:
        row = session.query(SignIn).one()
        assert row.token_hash not in cookie


def test_every_page_says_what_a_browser_may_load(visitor: Visitor, stranger: Visitor) -> None:
    for path in ("", "/sign-in", "/adapters", "/no/such/page"):
        answer = visitor.http.get(f"/ui{path}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert " style=" not in answer.text
        assert "<script>" not in answer.text


def test_whatever_is_answered_is_kept_by_nobody(visitor: Visitor, rows: Rows) -> None:
    """Downloads, streams and refusals as well: what one may see may be another's to see."""
    rows.task("a")
    version, job = "/ui/adapters/bot/versions/1", rows.version("a").job_id
    with transaction(rows.services.sessions) as session:
        # A stream of a job that waits would not end.
        jobs.request_cancel(session, rows.project_id, job)
    for path in (f"{version}/export", f"{version}/analysis/files", f"/ui/jobs/{job}/live", "/ui/jobs/x/live", "/ui/"):
        answer = visitor.http.get(path, follow_redirects=False)
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path


def test_it_ends_with_the_key_by_signing_out_and_in_time(
    stranger: Visitor, services: Services, project_id: uuid.UUID
) -> None:
    key_id, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    page = stranger.open()
    token = stranger.http.cookies[COOKIE]
    answer = stranger.send(page, "/ui/sign-out")
    assert answer.url.path == "/ui/sign-in"
    stranger.http.cookies.set(COOKIE, token, path="/ui")
    assert stranger.http.get("/ui").url.path == "/ui/sign-in", "the token is dead on the server too"
    stranger.http.cookies.clear()
    stranger.sign_in(key)
    with transaction(services.sessions) as session:
        session.query(SignIn).update({SignIn.ends_at: SignIn.created_at})
    assert stranger.http.get("/ui").url.path == "/ui/sign-in"
    stranger.http.cookies.clear()
    stranger.sign_in(key)
    with transaction(services.sessions) as session:
        assert session.query(SignIn).count() == 1, "what has ended is forgotten by the next sign-in"
        revoke_key(session, project_id, key_id)
    assert stranger.http.get("/ui").url.path == "/ui/sign-in"


def test_a_form_that_comes_too_late_is_kept(visitor: Visitor, services: Services, rows: Rows, api_key: str) -> None:
    rows.task("a")
    rows.version("a")
    page = visitor.open("/adapters/bot")
    promote = "/ui/adapters/bot/aliases/champion/promote"
    with transaction(services.sessions) as session:
        session.query(SignIn).delete()
    late = visitor.send(page, promote, version="1", reason="it is <good>")
    assert late.status_code == 401
    assert "What you sent is kept" in late.text
    again = visitor.send(late.text, "/ui/sign-in", key="mg_mistyped")
    assert again.status_code == 401
    kept = visitor.send(again.text, "/ui/sign-in", key=api_key)
    assert "it is &lt;good&gt;" in kept.text
    assert "kept, and not carried out" in kept.text
    assert "No alias was ever set" in visitor.open("/adapters/bot")
    done = visitor.http.post(promote, data=forms_of(kept.text)[promote])
    assert "champion of bot is version 1 now" in done.text
    assert "it is &lt;good&gt;" in done.text


def test_a_form_that_has_no_field_is_kept_too(visitor: Visitor, services: Services, rows: Rows, api_key: str) -> None:
    with transaction(services.sessions) as session:
        job_id = jobs.create_job(session, rows.project_id, TrainWeaver.from_json({"task": "a"})).id
    page, cancel = visitor.open(f"/jobs/{job_id}"), f"/ui/jobs/{job_id}/cancel"
    with transaction(services.sessions) as session:
        session.query(SignIn).delete()
    late = visitor.send(page, cancel)
    assert "What you sent is kept" in late.text
    mistyped = visitor.send(late.text, "/ui/sign-in", key="mg_mistyped")
    kept = visitor.send(mistyped.text, "/ui/sign-in", key=api_key)
    assert f"<code>{cancel}</code>" in kept.text, "a person sees what they would do"
    done = visitor.http.post(cancel, data=forms_of(kept.text)[cancel])
    assert "The job is cancelled." in done.text


def test_another_sites_form_is_not_kept_for_a_sign_in(stranger: Visitor) -> None:
    """To its POST a browser adds no cookie, so that it looks like a form that came too late."""
    form = {"name": "evil", "scope.admin": "yes"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = stranger.http.post("/ui/keys", data=form, headers=headers)
        assert answer.status_code == 403
        assert "evil" not in forms_of(answer.text).get("/ui/sign-in", {}).values()
        assert "by a page of another site" in answer.text


def test_a_stream_tells_nothing_more_once_its_sign_in_has_ended(
    settings: Settings, services: Services, project_id: uuid.UUID
) -> None:
    key_id, key = key_with(services, project_id, "read")
    with transaction(services.sessions) as session:
        job_id = jobs.create_job(session, project_id, TrainWeaver.from_json({"task": "a"})).id
    with serve(settings) as url, httpx.Client(base_url=url, follow_redirects=True, timeout=60) as http:
        assert Visitor(http).sign_in(key).status_code == 200
        with http.stream("GET", f"/ui/jobs/{job_id}/live") as live:
            lines = live.iter_lines()
            assert any("Cancel it" in line or "queued" in line for line in takewhile(bool, lines))
            with transaction(services.sessions) as session:
                revoke_key(session, project_id, key_id)
                jobs.add_event(session, job_id, "progress", "not for them")
            rest = list(lines)
    assert not [line for line in rest if "not for them" in line]
    assert any("you are not signed in" in line for line in rest)
    assert "event: ended" in rest


def test_whoever_signs_in_can_sign_out(stranger: Visitor, services: Services, project_id: uuid.UUID) -> None:
    _, key = key_with(services, project_id, "write")
    refused = stranger.sign_in(key)
    assert refused.status_code == 403
    assert stranger.send(refused.text, "/ui/sign-out").url.path == "/ui/sign-in"
    with transaction(services.sessions) as session:
        assert session.query(SignIn).count() == 0


def test_a_form_from_elsewhere_changes_nothing(visitor: Visitor, rows: Rows) -> None:
    rows.task("a")
    rows.version("a")
    action = "/ui/adapters/bot/aliases/champion/promote"
    form = forms_of(visitor.open("/adapters/bot"))[action]
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        assert visitor.http.post(action, data=form, headers=headers).status_code == 403
    for token in ("", "0" * 64, "\N{SNOWMAN}"):
        assert visitor.http.post(action, data={**form, "csrf": token}).status_code == 403
    assert "No alias was ever set" in visitor.open("/adapters/bot")
    assert visitor.http.post(action, data=form, headers={"Origin": "http://testserver"}).status_code == 200


def test_forms_that_no_page_has(visitor: Visitor, rows: Rows) -> None:
    action = "/ui/adapters/bot/aliases/champion/promote"
    csrf = forms_of(visitor.open())["/ui/sign-out"]["csrf"]
    for body in (b"\xff\xfe", b"&".join(b"a%d=1" % n for n in range(1000)), b"reason=%00&csrf=" + csrf.encode()):
        answer = visitor.http.post(action, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 422
        assert "<h1>That did not work</h1>" in answer.text
    for version in ("one", "-1", "1.5", "9" * 30):
        answer = visitor.http.post(action, data={"csrf": csrf, "version": version})
        assert answer.status_code == 422, version
    answer = visitor.http.post(action, data={"csrf": csrf, "version": "1", "reason": "x" * 3000})
    assert (answer.status_code, "reason" in answer.text) == (422, True)


def test_what_is_refused_before_it_is_looked_at_is_a_page(visitor: Visitor) -> None:
    """For a person; a script gets the problem that it can read."""
    send, person = visitor.http.request, {"Accept": "text/html,*/*;q=0.8"}
    for method, path, body, status in (
        ("GET", "/ui/trajectories?text=%00", None, 422),
        ("POST", "/ui/no/such/form", {"a": "b"}, 405),
        ("POST", "/ui/keys", {"name": "x" * 2_000_000}, 413),
    ):
        answer = send(method, path, data=body, headers=person)
        assert (answer.status_code, "<h1>That did not work</h1>" in answer.text) == (status, True), path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert send(method, path, data=body).json()["status"] == status
    assert send("GET", "/v1/jobs", headers=person).json()["status"] == 401


def test_a_key_sees_and_does_what_it_may(
    stranger: Visitor, services: Services, project_id: uuid.UUID, rows: Rows
) -> None:
    rows.task("a")
    rows.version("a")
    _, key = key_with(services, project_id, "read")
    stranger.sign_in(key)
    page = stranger.open("/adapters/bot")
    action = "/ui/adapters/bot/aliases/champion/promote"
    assert action not in forms_of(page)
    csrf = forms_of(page)["/ui/sign-out"]["csrf"]
    forced = stranger.http.post(action, data={"csrf": csrf, "version": "1"})
    assert forced.status_code == 403
    assert "lacks the scope &#39;promote&#39;" in forced.text
    _, key = key_with(services, project_id, "write")
    stranger.http.cookies.clear()
    assert stranger.sign_in(key).status_code == 403, "a key that may read nothing sees why"


def test_without_the_dashboard_there_is_none(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"dashboard": False}), serve_model=False)) as client:
        assert client.get("/ui").status_code == 404


def test_odd_headers_are_no_bug(visitor: Visitor, rows: Rows) -> None:
    for headers in ({"Referer": "http://[nothing"}, {"Referer": "https://evil.example/ui/keys"}):
        answer = visitor.http.get("/ui/adapters/nobody", headers=headers)
        assert answer.status_code == 404
        assert "evil" not in answer.text
    csrf = forms_of(visitor.open())["/ui/sign-out"]["csrf"]
    for origin in ("http://[", "null", "://testserver/x"):
        assert visitor.http.post("/ui/sign-out", data={"csrf": csrf}, headers={"Origin": origin}).status_code == 403
