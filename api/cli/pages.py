"""`memgen open`: the API's pages in a browser."""

from __future__ import annotations

import webbrowser

import typer

from api.cli.invocation import CommandFailed, invocation
from api.cli.output import JsonOption, print_json, print_line, print_note

_PAGES = ("/ui", "/docs")
"""The dashboard, where the API has one; else its documentation."""
_SECONDS = 10.0


def open_page(context: typer.Context, as_json: JsonOption = False) -> None:
    """Open the service's page in a browser: the dashboard, or the API's documentation where it has none.

    Prints the address in any case; where there is no browser, that is all.
    """
    from registry.settings import SERVICE_ENV

    settings = invocation(context).settings()
    address = _find(settings.api_url)
    is_open = webbrowser.open(address)
    if as_json:
        print_json({"url": address, "opened": is_open})
        return
    print_line(address)
    secrets = settings.home / SERVICE_ENV
    if address.endswith(_PAGES[0]) and secrets.is_file():
        print_note(f"Sign in with the API key of {secrets} (MEMGEN_API_KEY).")


def _find(api_url: str) -> str:
    """The address of the first page that the API has. Raises ApiUnreachable or CommandFailed."""
    from memgen_client.pages import has_page

    for path in _PAGES:
        if has_page(api_url, path, timeout=_SECONDS):
            return f"{api_url.rstrip('/')}{path}"
    raise CommandFailed(f"{api_url} has no page for a browser. Is MEMGEN_API_URL right?")
