"""How many a share of the sessions takes."""

import uuid

import pytest

from registry.database import transaction
from registry.recordings.policies import NOT_SAMPLED, RecordingAsk, decide, set_policy
from registry.tasks import create_task
from registry.wiring import Services


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_takes_so_many(services: Services, project_id: uuid.UUID, share: float) -> None:
    with transaction(services.sessions) as session:
        task, _ = create_task(session, project_id, "t", grader={"kind": "exact"}, holdout_share=0.5)
        set_policy(session, project_id, None, mode="all", share=share, task=task, actor="anna")
        reasons = [
            decide(session, project_id, None, RecordingAsk(), sample_key=str(number), idle_seconds=1.0).reason
            for number in range(400)
        ]
    assert set(reasons) <= {None, NOT_SAMPLED}
    # Five standard deviations of a binomial to each side.
    assert reasons.count(None) == pytest.approx(400 * share, abs=5 * (400 * share * (1 - share)) ** 0.5)
