"""The lineage of an adapter's versions as a graph: parents to the left, the versions of one parent below each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.http.schemas import VersionOut

COLUMN, ROW, RADIUS = 88, 56, 18
"""Pixels between two generations, between two versions of one, and of a version's circle."""


@dataclass(frozen=True)
class Node:
    number: int
    x: int
    y: int
    verdict: str
    task: str


@dataclass(frozen=True)
class Edge:
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Graph:
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    width: int
    height: int


def draw_lineage(versions: Sequence[VersionOut]) -> Graph:
    """The graph of the versions; a parent that is not among them is left out, and its children begin a line."""
    rows = sorted(versions, key=lambda version: version.number)
    depth: dict[int, int] = {}
    line: dict[int, int] = {}
    lines = 0
    taken: set[int] = set()
    for version in rows:
        parent = version.parent if version.parent in depth else None
        depth[version.number] = depth[parent] + 1 if parent is not None else 0
        # The first child goes on in its parent's line; each further one begins a line of its own.
        if parent is not None and parent not in taken:
            taken.add(parent)
            line[version.number] = line[parent]
        else:
            line[version.number], lines = lines, lines + 1
    place = {n: (RADIUS + 4 + depth[n] * COLUMN, RADIUS + 4 + line[n] * ROW) for n in depth}
    edges = [
        Edge(*place[version.parent], *place[version.number])
        for version in rows
        if version.parent is not None and version.parent in place
    ]
    nodes = [Node(v.number, *place[v.number], v.verdict, v.task) for v in rows]
    return Graph(
        nodes,
        edges,
        width=2 * (RADIUS + 4) + COLUMN * max(depth.values(), default=0),
        height=2 * (RADIUS + 4) + ROW * max(lines - 1, 0),
    )
