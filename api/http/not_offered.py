"""OpenAI's paths that are not offered here, and what to do instead: agents' clients look for them."""

_BY_NOUN = {
    "embeddings": "this service computes no embeddings; take them from a server of an embedding model",
    "images": "this service makes no images; its models read and write text only",
    "videos": "this service makes no videos; its models read and write text only",
    "audio": "this service neither hears nor speaks; its models read and write text only",
    "realtime": "there are no realtime sessions; use /v1/chat/completions or /v1/responses with stream: true",
    "files": "there is no store of files; put the text into the messages, and upload what is to be learned to "
    "/v1/trajectories",
    "uploads": "there is no store of files; upload what is to be learned to /v1/trajectories",
    "vector_stores": "there is no store of vectors; search on your side, and put what is found into the messages",
    "assistants": "there are no assistants; use /v1/responses",
    "threads": "there are no threads; use /v1/responses",
    "conversations": "there are no conversations; use /v1/responses with previous_response_id",
    "moderations": "this service moderates nothing; check texts on your side",
    "fine_tuning": "OpenAI's fine-tuning is not offered; POST /v1/jobs trains a version of an adapter",
    "fine-tunes": "OpenAI's fine-tuning is not offered; POST /v1/jobs trains a version of an adapter",
    "batches": "there are no batches; send the requests at once, they are answered together",
    "evals": "OpenAI's evals are not offered; a version's gate scores it on the suites of its tasks",
    "containers": "no code of a model is run here; run tools on your side and send their results",
    "organization": "OpenAI's administration is not offered; POST /v1/keys makes keys",
    "edits": "OpenAI's edits are gone; use /v1/chat/completions",
}


def why_not_offered(path: str) -> str | None:
    """What to say instead of that there is nothing; None for a path that no API of OpenAI's has either."""
    parts = path.split("/")
    if parts[:2] != ["", "v1"] or len(parts) < 3:
        return None
    reason = _BY_NOUN.get(parts[2])
    return None if reason is None else f"/v1/{parts[2]} is not offered: {reason}"


def is_not_offered(path: str) -> bool:
    return why_not_offered(path) is not None
