"""Where the API's nouns are: paths of URLs. Names of users are quoted, so that none can leave its place in a path."""

from urllib.parse import quote

CHAMPION = "champion"
"""The alias that calls are about unless they name another. The client imports no registry, which has its own."""


def adapter_path(name: str) -> str:
    return f"/v1/adapters/{_quoted(name)}"


def version_path(adapter: str, number: int) -> str:
    return f"{adapter_path(adapter)}/versions/{number}"


def alias_path(adapter: str, alias: str) -> str:
    return f"{adapter_path(adapter)}/aliases/{_quoted(alias)}"


def route_path(adapter: str, number: int) -> str:
    return f"{adapter_path(adapter)}/routes/{number}"


def schedule_path(name: str) -> str:
    return f"/v1/schedules/{_quoted(name)}"


def upstream_path(name: str) -> str:
    return f"/v1/upstreams/{_quoted(name)}"


def loop_path(name: str) -> str:
    return f"/v1/loops/{_quoted(name)}"


def judge_path(name: str) -> str:
    return f"/v1/judges/{_quoted(name)}"


def task_path(name: str) -> str:
    return f"/v1/tasks/{_quoted(name)}"


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{_quoted(job_id)}"


def key_path(key_id: str) -> str:
    return f"/v1/keys/{_quoted(key_id)}"


def trajectory_path(trajectory_id: str) -> str:
    return f"/v1/trajectories/{_quoted(trajectory_id)}"


def deletion_path(deletion_id: str) -> str:
    return f"/v1/deletions/{_quoted(deletion_id)}"


def tag_path(adapter: str, number: int, label: str) -> str:
    return f"{version_path(adapter, number)}/tags/{_quoted(label)}"


def webhook_path(name: str) -> str:
    return f"/v1/webhooks/{_quoted(name)}"


def delivery_path(webhook: str, delivery_id: str) -> str:
    return f"{webhook_path(webhook)}/deliveries/{_quoted(delivery_id)}"


def run_path(run_id: str) -> str:
    return f"/v1/runs/{_quoted(run_id)}"


def recording_policy_path(adapter: str | None) -> str:
    """The policy of an adapter, or of the whole project."""
    return "/v1/recordings/policy" if adapter is None else f"/v1/recordings/policies/{_quoted(adapter)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")
