"""A chat's body as the question that it is. The other APIs of conversations are read as such a body too."""

from api.endpoints.answering import Question
from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_reply import Reply
from api.inference.requests import ChatRequest
from api.recording.note import RecordingNote
from registry.serving.resolution import Resolution
from registry.settings import Settings
from registry.trajectories.conversations import check_prompt


def chat_question(body: ChatIn, completion_id: str, session_id: str | None, settings: Settings) -> Question:
    """Takes time linear in the body's length.

    Args:
        session_id: the header's; None takes the body's.

    Raises:
        InvalidTrajectory, ConfigError: a message, a tool or a number that can't be answered.
    """
    check_prompt(body.messages, body.tools)
    prompt = ChatRequest(body.messages, body.callable_tools, body.samplings(settings.max_new_tokens), None)
    return Question(
        completion_id,
        body.model,
        (prompt,),
        session_id or body.session_id,
        bool(body.stream),
        store=body.store,
        user=(body.metadata or {}).get("user") or body.user or None,
        metadata=dict(body.metadata or {}),
    )


def chat_reply(
    body: ChatIn, resolution: Resolution, completion_id: str, recording: RecordingNote, *, include_usage: bool
) -> Reply:
    return Reply(resolution, body.callable_tools is not None, include_usage, completion_id, recording=recording)
