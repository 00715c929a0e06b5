"""The local stack as `memgen up` composes it, and the program that supervises it: `python -m api.cli.stack`.

The supervisor knows no schema, key or bucket; what makes a fresh database usable is put together here.
"""

import sys

from registry.settings import Settings

SUPERVISOR = (sys.executable, "-m", "api.cli.stack")


def prepare(settings: Settings) -> None:
    """On a migrated database: the bucket is there, and the stack's own key administers the default project."""
    from registry.database import transaction
    from registry.keys import ensure_bootstrap_key
    from registry.wiring import configured, open_services

    with open_services(settings) as services:
        services.store.ensure_bucket()
        with transaction(services.sessions) as session:
            ensure_bootstrap_key(session, configured(settings.api_key, "MEMGEN_API_KEY"))


def main() -> None:
    import structlog

    from api.local.errors import LocalStackError
    from api.local.supervisor import run_supervisor
    from registry.logs import configure_logs
    from registry.settings import load_settings

    settings = load_settings(service_env=False)
    configure_logs(settings)
    log = structlog.get_logger("api.local")
    try:
        run_supervisor(
            settings,
            prepare=prepare,
            on_event=lambda event: log.info(event.state, name=event.name, detail=event.detail),
        )
    except LocalStackError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
