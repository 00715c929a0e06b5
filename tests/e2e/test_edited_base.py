"""A base whose chat template was edited between two starts: what was trained before is not served on other prompts."""

import shutil
import uuid
from pathlib import Path

import httpx
import openai
import pytest
import sqlalchemy as sa

from registry.adapters import get_adapter
from registry.database import transaction
from registry.settings import Settings
from tests.api.live_api import serve
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["settings", "workshop"]


def _say(url: str, key: str, model: str) -> str | None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "y1"}], max_tokens=8, temperature=0
        )
        return reply.choices[0].message.content


def _identity(workshop: Workshop, project_id: uuid.UUID, name: str = "bot") -> dict[str, str] | None:
    with transaction(workshop.services.sessions) as session:
        return get_adapter(session, project_id, name).base_identity


def test_a_version_is_served_only_on_the_prompts_that_it_was_trained_on(
    workshop: Workshop, settings: Settings, api_key: str, project_id: uuid.UUID, tiny_base: Path, tmp_path: Path
) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    trained_on = _identity(workshop, project_id)
    assert trained_on is not None
    edited = Path(shutil.copytree(tiny_base, tmp_path / "edited"))
    template = edited / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\nSay no.\n"))

    with serve(settings.model_copy(update={"base_model": str(edited)}), serve_model=True) as url:
        with pytest.raises(openai.ConflictError, match=r"another chat template \(chat_template\.jinja") as refused:
            _say(url, api_key, "bot")
        assert refused.value.code == "base_changed"
        assert _say(url, api_key, "base") is not None
        made = httpx.post(f"{url}/v1/adapters", json={"name": "new"}, headers={"Authorization": f"Bearer {api_key}"})
        assert made.status_code == 201
        now = made.json()["base_identity"]
    assert now == _identity(workshop, project_id, "new")
    assert {name for name in now if now[name] != trained_on[name]} == {"chat_template"}

    with serve(settings, serve_model=True) as url:
        assert _say(url, api_key, "bot") == "yes"


def test_an_adapter_of_an_earlier_release_is_served_and_bound(
    workshop: Workshop, settings: Settings, api_key: str, project_id: uuid.UUID
) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    before = _identity(workshop, project_id)
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set base_identity = null"))
    with serve(settings, serve_model=True) as url:
        assert _say(url, api_key, "bot") == "yes"
    assert _identity(workshop, project_id) == before
