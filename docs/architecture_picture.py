"""Draws docs/architecture.svg: the rooms of each package in their layers, and which package imports which.

    python docs/architecture_picture.py            # writes the picture
    python docs/architecture_picture.py --check    # fails if the committed picture is another

Layers are those of the import contracts in pyproject.toml, which CI holds; arrows are the imports that the import graph
really has. The picture knows no other source, so it can't tell of a house that is not there.
"""

import sys
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")
COLUMNS = (("api",), ("workers", "bench"), ("registry",), ("memgen",))
"""Packages from left to right; bench stands below, because it may import all of them and nothing imports it."""

COLUMN, GAP, LINE, PAD, TITLE, LANE = 250, 64, 17, 12, 34, 18
"""Widths and heights in pixels."""
CHARACTERS = 34
"""How many characters of rooms' names fit in one line of a package."""
COLOURS = {"api": "#dbeafe", "workers": "#dcfce7", "registry": "#fef3c7", "memgen": "#fce7f3", "bench": "#e5e7eb"}
STYLE = """
text { font-family: ui-sans-serif, system-ui, sans-serif; font-size: 12px; fill: #111827 }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 11px; fill: #374151 }
.arrow { stroke: #374151; stroke-width: 1.6; fill: none; marker-end: url(#head) }
"""


@dataclass(frozen=True)
class Package:
    name: str
    layers: tuple[tuple[str, ...], ...]
    """Rooms that may import what stands below them; rooms of one row never import each other."""

    @property
    def bands(self) -> list[list[str]]:
        """For each layer the lines of text that name its rooms."""
        return [wrap(" · ".join(layer), CHARACTERS) for layer in self.layers]

    @property
    def height(self) -> int:
        return TITLE + sum(_band_height(lines) + 4 for lines in self.bands) + PAD


@dataclass(frozen=True)
class Box:
    """Where a package stands in the picture, in pixels."""

    left: int
    top: int
    height: int

    @property
    def bottom(self) -> int:
        return self.top + self.height


def packages(pyproject: str) -> dict[str, Package]:
    """The packages and their layers, as the contracts of this pyproject.toml have them."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layered = {c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers" and "containers" in c}
    return {
        name: Package(name, tuple(tuple(sorted(layer.split(" | "))) for layer in layered[name]))
        for column in COLUMNS
        for name in column
    }


def arrows(names: list[str]) -> list[tuple[str, str]]:
    """Pairs (importer, imported) of packages, as the import graph has them."""
    graph = grimp.build_graph(*names, cache_dir=None)
    children = {name: {name, *graph.find_descendants(name)} for name in names}
    owner = {module: name for name, modules in children.items() for module in modules}
    found = {
        (owner[module], owner[target])
        for module in owner
        for target in graph.find_modules_directly_imported_by(module)
        if target in owner
    }
    return sorted(pair for pair in found if pair[0] != pair[1])


def draw(house: dict[str, Package], imports: list[tuple[str, str]]) -> str:
    """The picture as SVG text, equal for equal input."""
    column_of = {name: number for number, column in enumerate(COLUMNS) for name in column}
    above = [pair for pair in imports if "bench" not in pair and column_of[pair[1]] - column_of[pair[0]] > 1]
    below = [pair for pair in imports if "bench" in pair and abs(column_of[pair[1]] - column_of[pair[0]]) > 1]
    boxes: dict[str, Box] = {}
    for number, column in enumerate(COLUMNS):
        top = GAP // 2 + LANE * len(above)
        for name in column:
            boxes[name] = Box(GAP // 2 + number * (COLUMN + GAP), top, house[name].height)
            top += house[name].height + GAP
    width = len(COLUMNS) * (COLUMN + GAP)
    bottom = max(box.bottom for box in boxes.values())
    height = bottom + LANE * len(below) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="The rooms of each package in layers, and which package imports which">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#374151"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for name, box in boxes.items():
        lines += _package(house[name], box)
    for pair in imports:
        source, target = boxes[pair[0]], boxes[pair[1]]
        if pair in above:
            lane = above.index(pair)
            lines.append(_around(source, target, GAP // 2 + LANE * lane - 6, 40 + 24 * lane, from_top=True))
        elif pair in below:
            lane = below.index(pair)
            lines.append(_around(source, target, bottom + LANE * (lane + 1), 40 + 24 * lane, from_top=False))
        else:
            lines.append(_beside(source, target))
    note = (
        "In a package, a room may import those in rows below it and none beside it. Arrows: imports between packages."
    )
    lines.append(f'<text class="note" x="{GAP // 2}" y="{height - PAD}">{escape(note)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _package(package: Package, box: Box) -> list[str]:
    left, top, height = box.left, box.top, box.height
    colour = COLOURS[package.name]
    lines = [
        f'<rect x="{left}" y="{top}" width="{COLUMN}" height="{height}" rx="8" fill="{colour}" stroke="#9ca3af"/>',
        f'<text class="title" x="{left + PAD}" y="{top + 23}">{package.name}</text>',
    ]
    y = top + TITLE
    for band in package.bands:
        lines.append(
            f'<rect x="{left + PAD}" y="{y}" width="{COLUMN - 2 * PAD}" height="{_band_height(band)}" rx="4" '
            'fill="#ffffff" stroke="#d1d5db"/>'
        )
        for number, text in enumerate(band):
            middle = left + COLUMN // 2
            lines.append(f'<text x="{middle}" y="{y + 16 + LINE * number}" text-anchor="middle">{escape(text)}</text>')
        y += _band_height(band) + 4
    return lines


def _band_height(lines: list[str]) -> int:
    return LINE * len(lines) + 8


def _around(source: Box, target: Box, lane: int, inset: int, *, from_top: bool) -> str:
    """Past the packages between two: over them, or under them."""
    x1, x2 = source.left + COLUMN - inset, target.left + COLUMN - inset
    y1, y2 = (source.top, target.top - 4) if from_top else (source.bottom, target.bottom + 4)
    return f'<path class="arrow" d="M{x1} {y1} L{x1} {lane} L{x2} {lane} L{x2} {y2}"/>'


def _beside(source: Box, target: Box) -> str:
    """To a package in the next column, or to the one above."""
    if source.left == target.left:
        x = source.left + COLUMN // 2
        return f'<path class="arrow" d="M{x} {source.top} L{x} {target.bottom + 4}"/>'
    if source.left > target.left:
        y, x = source.top + 20, target.left + COLUMN // 2
        return f'<path class="arrow" d="M{source.left} {y} L{x} {y} L{x} {target.bottom + 4}"/>'
    y = source.top + 20
    return f'<path class="arrow" d="M{source.left + COLUMN} {y} L{target.left - 4} {y}"/>'


def main() -> int:
    house = packages((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    picture = draw(house, arrows(list(house)))
    if "--check" in sys.argv[1:]:
        same = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture
        print("the picture is that of the house" if same else f"{PICTURE.name} is out of date: make architecture")
        return 0 if same else 1
    PICTURE.write_text(picture, encoding="utf-8")
    print(f"wrote {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
