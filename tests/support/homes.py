"""A user's folder, with everything that the commands of the README and of the how-to pages speak of."""

import gzip
import json
import os
import shutil

from minicoil.text.readers import bundled_sentences

TEXTS = {
    "a.txt": "The bats hang from the ceiling of the cave until dusk.",
    "b.txt": "He broke his bat in the third inning.",
    "c.txt": "A cave explorer found paintings of bulls.",
    "d.txt": "The river bank was covered with reeds.",
}  # what the first command of the README searches
PAPERS = ("The growth of a tumour was slow.", "A carcinoma is a tumour.", "Growth of the economy slowed.") * 4


def linked(source, target):
    """Link a file, as `copy_function` of `shutil.copytree`; copy it where the other disk takes no link."""
    try:
        return os.link(source, target)
    except OSError:
        return shutil.copy2(source, target)


def letters():
    """Sentences with the new word `letter`, a line each."""
    places = [(kind, town) for kind in ("long", "first", "sad") for town in ("Rome", "Oslo", "Lima")]
    line = "He sent the {} letter to {}, and the charge was small.\n"
    return "".join(line.format(*place) for place in places)


def write_rows(path, rows):
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def judged(folder):
    """A small collection in BEIR's format."""
    (folder / "qrels").mkdir(parents=True)
    write_rows(folder / "corpus.jsonl", [{"_id": name, "title": "", "text": t} for name, t in TEXTS.items()])
    write_rows(folder / "queries.jsonl", [{"_id": "1", "text": "bats in a cave"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta.txt\t1\n", encoding="utf-8")


def make_home(home, run_folder):
    """Fill the folder `home`: outputs/demo is a copy of the finished run, and texts are of one's own."""
    shutil.copytree(run_folder, home / "outputs" / "demo")
    rows = bundled_sentences()
    own = [row["sentence"] for row in rows if row["word"] in ("bat", "bank", "mouse")]
    for folder in ("my_documents", "my_texts", "articles"):
        (home / folder).mkdir()
    (home / "my_documents" / "own.txt").write_text("\n".join(own), encoding="utf-8")
    (home / "articles" / "own.txt").write_text("\n".join(own), encoding="utf-8")
    for name, text in TEXTS.items():
        (home / "my_texts" / name).write_text(text, encoding="utf-8")
    with gzip.open(home / "articles.jsonl.gz", "wt", encoding="utf-8") as f:
        f.writelines(json.dumps({"body": text}) + "\n" for text in own[:150])
    (home / "texts.txt").write_text(letters(), encoding="utf-8")
    (home / "words.txt").write_text("bat\nmouse/mice\n", encoding="utf-8")
    (home / "queries.txt").write_text("bat in a cave\nhe swung the bat\n", encoding="utf-8")
    write_rows(home / "papers.jsonl", [{"text": text} for text in PAPERS])
    judged(home / "my_collection")
    write_rows(home / "labelled.jsonl", [row for row in rows if row["word"] == "bat"])
    return home
