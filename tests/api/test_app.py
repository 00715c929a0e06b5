"""The application as a whole."""

from api.app import ENDPOINTS, create_app
from registry.settings import Settings


def test_it_serves_the_very_routes_that_the_endpoints_declare() -> None:
    """Each is built once in a process: to build all of them takes a good part of a second."""
    app = create_app(Settings(database_url=None), serve_model=False)
    declared = [route for module in ENDPOINTS for route in module.router.routes]
    assert [route for route in app.routes if route in declared] == declared
