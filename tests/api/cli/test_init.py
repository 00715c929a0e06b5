"""`memgen init` by several processes at once, on a database and a store where nothing is yet."""

import os
import subprocess
import sys
import uuid

import pytest
import sqlalchemy as sa

from registry.models import ApiKey, Project
from tests.fixtures_database import clone_database
from tests.services import Servers

INIT = (sys.executable, "-c", "from api.cli.main import run; run()", "init", "--json")


@pytest.mark.parametrize("round_", range(3))
def test_two_at_once_both_succeed(servers: Servers, tmp_path: object, round_: int) -> None:
    with clone_database(servers, "template0") as url:
        environment = os.environ | {
            "MEMGEN_HOME": str(tmp_path),
            "MEMGEN_DATABASE_URL": url,
            "MEMGEN_BROKER_URL": servers.broker_url,
            "MEMGEN_S3_URL": servers.s3_url,
            "MEMGEN_S3_BUCKET": f"init-{uuid.uuid4().hex}",
            "MEMGEN_API_KEY": "mg_the_same",
        }
        started = [
            subprocess.Popen(INIT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        ended = [(each.communicate(timeout=120), each.returncode) for each in started]
        assert [code for _, code in ended] == [0, 0], ended
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            counts = [connection.scalar(sa.select(sa.func.count()).select_from(model)) for model in (ApiKey, Project)]
        assert counts == [1, 1]
