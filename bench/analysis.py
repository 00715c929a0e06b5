"""`python -m bench.analysis < analysis.json`: the real run of docs/analysis.md, from what a service has found.

It reads what `memgen versions analysis ADAPTER VERSION --json` prints, and writes the last section of the page anew.
Every number of the section comes from there.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.learning.markdown import interval, points, share, table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "analysis.md"
HEADING = "## A real run"
_TOKENS = 5


def with_run(page: str, found: Mapping[str, Any]) -> str:
    """The page with this run as its last section, in place of an earlier one."""
    return f"{page.partition(HEADING)[0].rstrip()}\n\n{section(found)}"


def section(found: Mapping[str, Any]) -> str:
    parts = [HEADING, _head(found), _tasks(found), _clusters(found)]
    if found["interventions"] is not None:
        parts.append(_interventions(found["interventions"]))
    if found["ablations"] is not None:
        parts.append(_ablations(found["ablations"]))
    if found["drift"] is not None:
        drift = found["drift"]
        cka = "-" if drift["cka"] is None else f"{drift['cka']:.3f}"
        others = "-" if drift["other_items_cosine"] is None else f"{drift['other_items_cosine']:.3f}"
        parts.append(
            f"Against version {drift['against']}: cosine {drift['cosine']:.3f}, with other items' latents {others}, "
            f"CKA {cka}; {drift['meaning']}."
        )
    return "\n\n".join(parts) + "\n"


def command(found: Mapping[str, Any]) -> str:
    """The command that makes such an analysis."""
    terms = found["settings"]
    options = [
        f"--items {terms['items']}",
        f"--clusters {terms['least_clusters']}-{terms['most_clusters']}",
        f"--seed {terms['seed']}",
        "" if found["interventions"] is not None else "--no-interventions",
        "" if found["ablations"] is not None else "--no-ablations",
        f"--against {found['drift']['against']}" if found["drift"] is not None else "",
    ]
    words = ["memgen analyze", f"{found['adapter']}@{found['version']}", *options]
    return " ".join(word for word in words if word)


def _head(found: Mapping[str, Any]) -> str:
    day = str(found["analyzed_at"]).partition("T")[0]
    return (
        f"`{command(found)}` on {day}, base {found['base_model']} at {str(found['base_revision'])[:12]}: "
        f"{found['latents']} latents of {found['items']} answers. `python -m bench.analysis` writes this section."
    )


def _tasks(found: Mapping[str, Any]) -> str:
    rows = [
        [each["task"], str(each["items"]), str(each["right"]), str(each["latents"]), _counts(each["failures"])]
        for each in found["tasks"]
    ]
    return table(["task", "items", "right", "latents", "wrong, by kind"], rows)


def _clusters(found: Mapping[str, Any]) -> str:
    clusters, tokens = found["clusters"], {each["name"]: each["tokens"] for each in found["tokens"]["directions"]}
    verdict = f"{clusters['verdict'].capitalize()}: {clusters['reason']}."
    if not clusters["clusters"]:
        return verdict
    effects = found["interventions"]["effects"] if found["interventions"] is not None else []
    roles = {each["cluster"]: each["role"] for each in effects}
    rows = [
        [
            str(each["number"]),
            share(each["share"]),
            _counts(each["tasks"]),
            _counts(each["insertions"]),
            share(each["right_share"]),
            ", ".join(_token(token) for token in tokens.get(f"cluster {each['number']}", [])[:_TOKENS]),
            roles.get(each["number"], ""),
        ]
        for each in clusters["clusters"]
    ]
    explained = ", ".join(f"{name} {value:.2f}" for name, value in clusters["explained_by"].items())
    head = ["cluster", "latents", "of tasks", "woven at", "of right answers", "nearest tokens", "role"]
    return (
        f"{verdict} Explained by {explained}. A cosine that says something is above "
        f"{found['tokens']['chance_cosine']:.2f}.\n\n{table(head, rows)}"
    )


def _interventions(found: Mapping[str, Any]) -> str:
    rows = [
        [
            str(effect["cluster"]),
            move["failure"].replace("_", " "),
            *(share(move[name]) for name in ("untouched", "dropped", "random")),
            interval(move["random_interval"], share),
            "yes" if move["rises"] else "no",
        ]
        for effect in found["effects"]
        for move in effect["moves"]
        if move["untouched"] or move["dropped"] or move["random"]
    ]
    if not rows:
        return "Nothing was dropped: there are no clusters, or no answer was wrong."
    head = ["cluster", "wrong in this way", "all latents", "without it", "without as many", "by chance", "rises"]
    return table(head, rows)


def _ablations(found: Mapping[str, Any]) -> str:
    rows = [
        [
            each["name"],
            share(each["accuracy"]),
            points(each["difference"]),
            interval(each["difference_interval"], points),
            f"{each['latents_per_answer']:.1f}",
        ]
        for each in found["rows"]
    ]
    left = "".join(f" Left out, {name}: {why}." for name, why in found["skipped"].items())
    return (
        table(["memory", "right", "change, points", "95%", "latents an answer"], rows) + f"\n\n{left.strip()}".rstrip()
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "-"


def _token(token: Mapping[str, Any]) -> str:
    shown = repr(token["token"]).replace("|", "\\|").replace("`", "'")
    return f"`{shown}` {token['cosine']:.2f}"


def main() -> None:
    found = json.load(sys.stdin)
    PAGE.write_text(with_run(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
