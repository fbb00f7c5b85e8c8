"""outputs/gallery/pitch.png, the picture of the first page, from a finished run on the bundled sentences:  python docs/gallery.py outputs/demo"""
import dataclasses
import sys
from pathlib import Path

from minicoil.run import open_run
from minicoil.senses import cosine_distances, umap_layout, word_targets
from minicoil.store import drawn_sentences
from minicoil.views import headline, in_words, told_apart, word_figure, word_views

ROOT = Path(__file__).resolve().parents[1]


def draw(run, word, path):
    """The figure of a word, laid out by UMAP here if the run has no layout of it."""
    index = next(i for i, (name, *_) in enumerate(drawn_sentences(run)) if name == word)
    whole = dataclasses.replace(run, params=dataclasses.replace(run.params, pictures=index + 1))
    view = next(word_views(whole, index, index + 1))
    if view.before is None:
        ids = drawn_sentences(run)[index][2]
        view = dataclasses.replace(view, before=umap_layout(cosine_distances(word_targets(run, index, ids)), 2, run.params.seed))
    word_figure(view).savefig(path, metadata={"Software": None})
    print(f"{path}: {headline(view)}. {in_words(view)}. {told_apart(view)}.")


if __name__ == "__main__":
    draw(open_run(sys.argv[1]), "pitch", ROOT / "outputs" / "gallery" / "pitch.png")
