"""`python -m bench.loop`: the agent's hours on a service of its own, in at most a quarter of an hour on two cores.

Writes `bench/results/loop.json`, the table and the picture of docs/loop_proof.md.
"""

import argparse
import json
import os
import platform
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.loop.games import make_games
from bench.loop.report import draw, gain, hours_json, table
from bench.loop.service import running, stop
from bench.loop.story import Plan, Story, tell
from bench.report import RESULTS, commit

_REPOSITORY = Path(__file__).parents[2]
PAGE = _REPOSITORY / "docs" / "loop_proof.md"
PICTURE = _REPOSITORY / "docs" / "loop_proof.svg"
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="empty folder for the service; by default one is made anew")
    parser.add_argument("--games", type=Path, default=_REPOSITORY / ".demo" / "games", help="folder of made games")
    parser.add_argument("--out", type=Path, default=RESULTS / "loop.json")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    home = options.home or _fresh_home()
    if options.home and home.exists() and any(home.iterdir()):
        parser.error(f"--home {home} is not empty; the proof begins where nothing was learned")

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)  # noqa: T201 - a program's progress

    plan = Plan(seed=options.seed)
    with ThreadPoolExecutor(1) as beside:
        making = beside.submit(make_games, options.games, pool=plan.pool, test=plan.test_games, seed=plan.seed)
        with running(home) as service:
            say(f"the service runs at {service.url}")
            story = tell(plan, service, making.result(), say)
            uploaded = service.uploaded_by_hand()
    document = _document(plan, story, uploaded, time.monotonic() - started)
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.out == RESULTS / "loop.json":
        draw(document, PICTURE)
        _write_page(_shown(document, story, plan))
    say(json.dumps({key: document[key] for key in ("gain_points", "interval", "poisoned_day_stopped", "seconds")}))


def _fresh_home() -> Path:
    """The program's own folder, without what an earlier run left but for the unpacked base."""
    home = _REPOSITORY / ".demo" / "loop"
    stop(home)
    for left in home.iterdir() if home.exists() else ():
        if left.name != "models":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return home


def _document(plan: Plan, story: Story, uploaded: int, seconds: float) -> dict[str, Any]:
    points, interval = gain(story.base, story.champion)
    return {
        "gain_points": round(points, 1),
        "interval": [round(limit, 1) for limit in interval],
        "uploaded_by_hand": uploaded,
        "poisoned_day_stopped": story.poison_stopped,
        "seconds": round(seconds, 1),
        "commit": commit(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "seed": plan.seed,
        "test_games": plan.test_games,
        "random": round(story.random, 4),
        "base": {"won": sum(result.won for result in story.base)},
        "champion": {"won": sum(result.won for result in story.champion)},
        "hours": hours_json(story.hours),
    }


def _shown(document: dict[str, Any], story: Story, plan: Plan) -> str:
    low, high = document["interval"]
    return (
        f"{table(story.hours, plan.test_games)}\n\n![games won by hour]({PICTURE.name})\n\n"
        f"The last champion wins {document['gain_points']:+.1f} points of the unseen games more than the bare base ("
        f"95%: "
        f"{low:+.1f} to {high:+.1f}); a random command each turn wins {100 * document['random']:.1f}%. "
        f"Uploaded by hand: {document['uploaded_by_hand']}. The whole took {document['seconds']:.0f} s, on "
        f"{document['machine']}. All numbers: `bench/results/loop.json`."
    )


def _write_page(rows: str) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, behind = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n\n{rows}\n\n{_END}{behind}", encoding="utf-8")


if __name__ == "__main__":
    main()
