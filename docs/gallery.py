"""The pictures of the first page, in outputs/gallery:  python docs/gallery.py [outputs/demo]

`house.png` is drawn from the table of stages; `pitch.png` from a finished run on the bundled sentences, where one is named."""
import dataclasses
import sys
from pathlib import Path

from minicoil.pictures.views import headline, in_words, told_apart, word_figure, word_views
from minicoil.runs.plots import plot_style
from minicoil.runs.run import STAGES, open_run
from minicoil.stages.senses import cosine_distances, umap_layout, word_targets
from minicoil.stages.store import drawn_sentences

ROOT = Path(__file__).resolve().parents[1]

# stage: (column, row, what it makes, the stages it reads); the columns are the data's way, the rows are what each model sees
HOUSE = {
    "corpus": (0, 1, "documents", ()),
    "sentences": (1, 1, "sentences, and where\neach word stands", ("corpus",)),
    "targets": (2, 0, "the target model's\nsentence embeddings", ("sentences",)),
    "store": (3, 0, "Qdrant: a random draw\nof sentences a word", ("targets",)),
    "senses": (4, 0, "neighbours, clusters,\nUMAP of each word", ("store",)),
    "tokens": (3, 2, "the input model's\ntoken embeddings", ("sentences", "store")),
    "training": (4, 2, "a small matrix\na word", ("tokens", "senses")),
    "model": (5, 2, "all matrices and the\ngraph: one directory", ("training",)),
    "atlas": (6, 0, "a page of senses\nfor every word", ("senses",)),
    "export": (6, 1, "int8, and parity\nwith FastEmbed", ("model",)),
    "search": (6, 2, "sparse and dense\nfrom one pass", ("model",)),
    "benchmark": (6, 3, "does it work?", ("model",)),
}
WIDE, HIGH, STEP, ROW = 1.5, .78, 1.85, 1.08


def draw_house(path):
    """The data's way through the stages: boxes from `HOUSE`, numbers from `STAGES`."""
    plt = plot_style()
    fig, ax = plt.subplots(figsize=(11.5, 4.1))
    ink, line = "#222222", "#666666"
    for stage, (column, row, makes, reads) in HOUSE.items():
        x, y = column * STEP, -row * ROW
        fill = {0: "#dbe9f6", 2: "#fdebd0"}[row] if 2 <= column <= 4 else "#e3f1e3" if stage == "model" else "#eeeeee"
        ax.add_patch(plt.Rectangle((x, y), WIDE, HIGH, facecolor=fill, edgecolor=line, linewidth=.8))
        ax.text(x + .07, y + HIGH - .09, f"{STAGES[stage][0].split('_')[0]} {stage}", va="top", weight="bold", fontsize=9, color=ink)
        ax.text(x + .07, y + HIGH - .31, makes, va="top", fontsize=7.6, color=ink, linespacing=1.2)
        for source in reads:
            sx, sy = HOUSE[source][0] * STEP, -HOUSE[source][1] * ROW
            start, end = ((sx + WIDE, sy + HIGH / 2), (x, y + HIGH / 2)) if sx < x else ((sx + WIDE / 2, sy), (x + WIDE / 2, y + HIGH))
            ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": line, "linewidth": 1.1, "shrinkA": 1, "shrinkB": 1})
    ax.text(2 * STEP, HIGH + .08, "the target model, large if you like, says what a meaning is", fontsize=8.5, style="italic", color=line)
    ax.text(3 * STEP, -2 * ROW - .09, "the input model is small: serving runs it for every text", fontsize=8.5, style="italic", color=line, va="top")
    ax.set_xlim(-.05, 6 * STEP + WIDE + .05)
    ax.set_ylim(-3 * ROW - .08, HIGH + .35)
    ax.set_aspect("equal")
    ax.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=160, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)


def draw_word(run, word, path):
    """The figure of a word, laid out by UMAP here if the run has no layout of it."""
    index = next(i for i, (name, *_) in enumerate(drawn_sentences(run)) if name == word)
    whole = dataclasses.replace(run, params=dataclasses.replace(run.params, pictures=index + 1))
    view = next(word_views(whole, index, index + 1))
    if view.before is None:
        ids = drawn_sentences(run)[index][2]
        view = dataclasses.replace(view, before=umap_layout(cosine_distances(next(word_targets(run, [(index, ids)]))), 2, run.params.seed))
    word_figure(view).savefig(path, metadata={"Software": None})
    print(f"{path}: {headline(view)}. {in_words(view)}. {told_apart(view)}.")


if __name__ == "__main__":
    draw_house(ROOT / "outputs" / "gallery" / "house.png")
    for folder in sys.argv[1:]:
        draw_word(open_run(folder), "pitch", ROOT / "outputs" / "gallery" / "pitch.png")
