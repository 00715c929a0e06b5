"""Refusals of upstreams as they are shown: bounded, and without a piece of the key."""

import json

import pytest
from pydantic import SecretStr

from api.gateway.calls import UpstreamCall
from api.gateway.refusals import read_refusal
from registry.upstreams import Upstream

KEY = "sk-proj-" + "0123456789abcdef" * 10


@pytest.mark.parametrize("start", [1700, 1850, 1960, 1990])
@pytest.mark.parametrize("as_list", [False, True], ids=["a text", "a list"])
def test_a_key_that_stands_at_the_bound_is_not_shown_in_part(start: int, as_list: bool) -> None:
    upstream = Upstream(name="strong", base_url="https://a.example/v1", models=("m",), api_key=SecretStr(KEY))
    message = "x" * start + KEY
    body = json.dumps({"detail": [message] if as_list else message}).encode()
    refused = read_refusal(UpstreamCall("id", upstream, "m", {}), 422, body)
    shown = refused.body["error"]["message"]
    assert len(shown) <= 2000
    assert KEY[:8] not in shown
