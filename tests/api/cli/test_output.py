"""Words of the output that depend on what is counted."""

from api.cli.output import counted


def test_one_is_no_plural() -> None:
    shown = [counted(1, "answer"), counted(0, "answer"), counted(2, "answer"), counted(2, "trajectory")]
    assert shown == ["1 answer", "0 answers", "2 answers", "2 trajectories"]
