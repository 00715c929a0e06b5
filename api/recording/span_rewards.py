"""Rewards that agents' tracing tells of: attributes `memgen.reward` of a trace's spans, most often of the last one.

They are feedback on the runs of the trace's calls, and close them, whichever exports calls and reward come in.
"""

from collections.abc import Mapping, Sequence

from api.recording.recorder import Recorder
from api.recording.span_calls import TakenSpans, TraceSender, run_of_trace
from registry.database import transaction
from registry.errors import FeedbackDiffers, Invalid
from registry.json_text import show
from registry.serving.feedback import USER, Rating
from registry.serving.run_feedback import receive_run_feedback
from registry.trajectories.formats.otlp_spans.calls import SpanCall, TraceFacts
from registry.wiring import Services

INVALID = "reward_invalid"
DIFFERS = "feedback_differs"


def reward_traces(
    services: Services,
    recorder: Recorder,
    sender: TraceSender,
    calls: Sequence[SpanCall],
    facts: Mapping[str, TraceFacts],
    outcome: TakenSpans,
) -> None:
    """Give the rewards of an export's traces, behind its calls. Blocks."""
    rewarded = {
        trace_id: found.of_spans
        for trace_id, found in facts.items()
        if trace_id and not found.of_spans.keys().isdisjoint(("reward", "success"))
    }
    if not rewarded:
        return
    if calls:
        recorder.flush()  # what is to be closed had better be there
    for trace_id, stated in rewarded.items():
        try:
            report = _rating(stated, sender.actor)
            with transaction(services.sessions) as session:
                receive_run_feedback(session, sender.project_id, run_of_trace(sender.project_id, trace_id), report)
        except FeedbackDiffers as error:
            outcome.reject(DIFFERS, str(error))
        except Invalid as error:
            outcome.reject(INVALID, f"memgen.reward of trace {trace_id[:64]}: {error}")


def _rating(stated: Mapping[str, object], actor: str) -> Rating:
    """Raises Invalid."""
    reward, source = stated.get("reward"), stated.get("reward_source", USER)
    if reward is None and isinstance(success := stated.get("success"), bool):
        reward = float(success)
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        got = show(stated.get("reward", stated.get("success")))
        raise Invalid(f"got {got}; expected a number from 0 (bad) to 1 (good)")
    if not isinstance(source, str):
        raise Invalid(f"memgen.reward_source is {show(source)}; expected a name such as `user`")
    return Rating(reward, actor, source)
