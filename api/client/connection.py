"""What an API answers to anybody; and the former client's errors under the module that they were in."""

import httpx

from memgen_client import ApiError, ApiUnreachable, ClientError

__all__ = ["ApiError", "ApiUnreachable", "ClientError", "ask"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ask(url: str, path: str, *, seconds: float) -> httpx.Response:
    """What an API answers to anybody who asks for a path, whatever its status. Raises ApiUnreachable."""
    base_url = url.rstrip("/")
    try:
        # Whatever proxy the environment names, it can't reach our own machine.
        local = httpx.URL(base_url).host in _LOOPBACK
        return httpx.get(f"{base_url}{path}", timeout=seconds, trust_env=not local)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ApiUnreachable(base_url, str(error) or type(error).__name__) from error
