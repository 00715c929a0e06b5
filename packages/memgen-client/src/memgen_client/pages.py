"""The pages that a service has for people, beside its API: they have no noun, no key and no JSON."""

import httpx

from memgen_client.retries import Retries
from memgen_client.wire import Terms, connection_options, failure


def has_page(base_url: str, path: str, *, timeout: float) -> bool:
    """Whether the service has a page for a browser at `path`, or sends a browser on from there.

    Args:
        timeout: seconds.

    Raises:
        ApiUnreachable: nobody answers, or the URL is none.
    """
    options = connection_options(Terms(base_url, "", timeout, Retries(0)))
    try:
        with httpx.Client(**options, timeout=timeout) as http:
            reply = http.get(path)
    except httpx.HTTPError as error:
        raise failure(base_url, error, timeout) from error
    return reply.is_success or reply.is_redirect
