"""The pictures of the first page, in outputs/gallery:  python docs/gallery.py [outputs/demo]

`house.png` is drawn from the packages and the table of stages; `pitch.png` from a finished run on the bundled
sentences, where one is named."""
import dataclasses
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from reference import FLOORS

from minicoil.pictures.views import in_words, told_apart, word_views
from minicoil.pictures.word_figure import headline, word_figure
from minicoil.runs.plots import plot_style
from minicoil.runs.run import STAGES, open_run
from minicoil.stages.clusters import cosine_distances
from minicoil.stages.layouts import umap_layout
from minicoil.stages.senses import word_targets
from minicoil.stages.store import drawn_sentences

ROOT = Path(__file__).resolve().parents[1]
INK, LINE, DATA = "#222222", "#666666", "#0072B2"


class Box(NamedTuple):
    """A stage in the figure: what it makes stands in it, at a column and a row of its floor."""
    column: float
    row: int
    makes: str
    reads: tuple[str, ...]


# The data's way: above, the target model says what a meaning is; below, the input model, which serving runs.
HOUSE = {
    "corpus": Box(0, 1, "documents", ()),
    "sentences": Box(1, 1, "sentences, and\nwords' places", ("corpus",)),
    "targets": Box(2, 0, "target model's\nembeddings", ("sentences",)),
    "store": Box(3, 0, "a random draw\nfor each word", ("targets",)),
    "senses": Box(4, 0, "a word's clusters,\nneighbours", ("store",)),
    "tokens": Box(3, 1, "input model's\ntoken embeddings", ("sentences", "store")),
    "training": Box(4, 1, "a small matrix\na word", ("tokens", "senses")),
    "model": Box(5, 1, "one directory\nthat serves", ("training",)),
    "atlas": Box(4, 0, "a page for\nevery word", ("senses",)),
    "export": Box(6, 1, "int8, and parity\nwith FastEmbed", ("model",)),
    "search": Box(5, 0, "hits, and what\nearned them", ("model",)),
    "benchmark": Box(6, 0, "does it work?", ("model",)),
}
SAYS = {
    "commands": "command line and chain",
    "pictures": "pages, the atlas,\na run's report",
    "retrieval": "search, engines,\nmeasures and rivals",
    "stages": "from raw text to a\nfinished model, one\nmodule a stage",
    "learning": "what an encoder learns",
    "serving": "a finished model at work",
    "text": "documents and words",
    "runs": "files, folders, shards",
}
COLOURS = {"commands": "#f4f4f4", "pictures": "#fbeef5", "retrieval": "#fdf5e6", "stages": "#eaf3fa",
           "learning": "#eaf6f1", "serving": "#eaf6f1", "text": "#f4f4f4", "runs": "#f4f4f4"}
HEIGHTS = {"stages": 2.14, "pictures": 1.0, "retrieval": 1.3}   # of floors that have boxes, at least
PLAIN, LINE_HIGH, GAP = .6, .25, .1                # of the others, of a line of modules, and between floors
ROOM = {"stages": 36, "retrieval": 90, "pictures": 70}   # characters in a line, where boxes stand on a floor
WIDE, HIGH, STEP, ROW = 1.62, .78, 1.86, 1.12      # a box, and the distance to the next
LEFT, RIGHT = 2.6, 15.5                            # where modules begin, and where a floor ends


class Floor(NamedTuple):
    """Where a package is drawn."""
    bottom: float
    top: float


def floors():
    """{package: Floor}, the lowest first, from 0 upwards."""
    found, bottom = {}, 0.0
    for name in FLOORS:
        lines = module_lines(name).count("\n") + 1
        top = bottom + max(HEIGHTS.get(name, PLAIN), LINE_HIGH * lines + .14)
        found[name] = Floor(bottom, top)
        bottom = top + GAP
    return found


def home_of(stage):
    """The package and the module that have a stage's function."""
    return STAGES[stage][1].split(":")[0].split(".")[1:]


def other_modules(package):
    """The modules of a package that are no stages, in the order of their notebooks."""
    found, drawn = [], [home_of(stage)[1] for stage in HOUSE if home_of(stage)[0] == package]
    for path in (ROOT / "minicoil" / package).glob("[a-z]*.py"):
        source = re.search(r"File to edit: (?:\.\./)+nbs/(\w+)\.ipynb", path.read_text(encoding="utf-8"))
        found.append((source[1] if source else "", path.stem))
    return [name for _, name in sorted(found) if name not in drawn]


def module_lines(package):
    """The names of a floor's modules, in lines that end before its boxes."""
    return "\n".join(textwrap.wrap("   ".join(other_modules(package)), ROOM.get(package, 124)))


def corner(stage, rooms):
    """The lower left corner of a stage's box."""
    box, floor = HOUSE[stage], rooms[home_of(stage)[0]]
    return LEFT + box.column * STEP, floor.top - .11 - HIGH - box.row * ROW


def draw_floor(ax, plt, name, floor):
    """A package: its name, what it does, and its modules that are no stages."""
    high = floor.top - floor.bottom
    ax.add_patch(plt.Rectangle((0, floor.bottom), RIGHT, high, facecolor=COLOURS[name], edgecolor="#c8c8c8"))
    ax.text(.1, floor.top - .07, name, va="top", weight="bold", fontsize=12.5, color=INK)
    ax.text(.1, floor.top - .32, SAYS[name], va="top", fontsize=9.5, color=LINE, linespacing=1.2)
    ax.text(LEFT, floor.top - .08, module_lines(name), va="top", fontsize=10, color=INK, linespacing=1.4)


def draw_box(ax, plt, stage, rooms):
    """A stage: its number and name, and what it makes."""
    x, y = corner(stage, rooms)
    fill = "#cfe6d8" if stage == "model" else "white"
    ax.add_patch(plt.Rectangle((x, y), WIDE, HIGH, facecolor=fill, edgecolor=DATA, linewidth=1))
    title = f"{STAGES[stage][0].split('_')[0]} {stage}"
    ax.text(x + .07, y + HIGH - .07, title, va="top", weight="bold", fontsize=10.5, color=INK)
    ax.text(x + .07, y + HIGH - .31, HOUSE[stage].makes, va="top", fontsize=9.2, color=INK, linespacing=1.15)


def draw_way(ax, source, stage, rooms):
    """An arrow from one stage to the next: sideways on one floor, else up or down."""
    (sx, sy), (x, y) = corner(source, rooms), corner(stage, rooms)
    if sx < x and home_of(source)[0] == home_of(stage)[0]:
        start, end = (sx + WIDE, sy + HIGH / 2), (x, y + HIGH / 2)
    elif y > sy:
        start, end = (sx + WIDE / 2, sy + HIGH), (x + WIDE / 2, y)
    else:
        start, end = (sx + WIDE / 2, sy), (x + WIDE / 2, y + HIGH)
    style = {"arrowstyle": "-|>", "color": DATA, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def draw_house(path):
    """The packages as floors with their modules, and the data's way through the stages."""
    plt, rooms = plot_style(), floors()
    top = rooms[FLOORS[-1]].top
    fig, ax = plt.subplots(figsize=(12.6, 12.6 * (top + .5) / (RIGHT + .75)))
    for name, floor in rooms.items():
        draw_floor(ax, plt, name, floor)
    for stage in HOUSE:
        draw_box(ax, plt, stage, rooms)
        for source in HOUSE[stage].reads:
            draw_way(ax, source, stage, rooms)
    down = {"arrowstyle": "-|>", "color": LINE, "linewidth": 2.4}
    ax.annotate("", (RIGHT + .3, 0), (RIGHT + .3, top), arrowprops=down)
    ax.text(RIGHT + .45, top / 2, "imports point down", rotation=270, va="center", fontsize=11, color=LINE)
    ax.text(LEFT, top + .12, "blue: the data's way through the stages", fontsize=11, color=DATA)
    ax.set_xlim(-.03, RIGHT + .72)
    ax.set_ylim(-.05, top + .42)
    ax.set_aspect("equal")
    ax.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=160, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)


def draw_word(run, word, path):
    """The figure of a word, laid out by UMAP here if the run has no layout of it."""
    drawn = drawn_sentences(run)
    index = [name for name, *_ in drawn].index(word)
    whole = dataclasses.replace(run, params=dataclasses.replace(run.params, pictures=index + 1))
    view = next(word_views(whole, index, index + 1))
    if view.before is None:
        distances = cosine_distances(next(word_targets(run, [(index, drawn[index][2])])))
        view = dataclasses.replace(view, before=umap_layout(distances, 2, run.params.seed))
    word_figure(view).savefig(path, metadata={"Software": None})
    print(f"{path}: {headline(view)}. {in_words(view)}. {told_apart(view)}.")


if __name__ == "__main__":
    draw_house(ROOT / "outputs" / "gallery" / "house.png")
    for folder in sys.argv[1:]:
        draw_word(open_run(folder), "pitch", ROOT / "outputs" / "gallery" / "pitch.png")
