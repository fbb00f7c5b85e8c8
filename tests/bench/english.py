"""The model of the package, measured again: are its card's figures still true?

    python tests/bench/english.py --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                  --senses coarsewsd10.jsonl.gz --cache outputs/cache

Every figure of the card must be found again, to `TOLERANCE`. One that is not ends the bench with exit 1, once
the record is written. MODEL may name another model, e.g. one that is not packed yet; it has no card to hold.
With --before, what is not measured now is taken from an earlier record: senses need no search.
"""

import argparse
import sys
from pathlib import Path

from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.comparison import benchmark_collections
from minicoil.retrieval.sense_scores import benchmark_senses
from minicoil.runs.files import load_json
from minicoil.serving.names import DEFAULT, box

TOLERANCE = 0.002  # of 1: another processor's rounding moves a rank here and there
MEASURES = ("ndcg@10", "mauc", "nn1")


def brief(found):
    """{system: {measure: value}} with the measures of the record only."""
    return {system: {m: scores[m] for m in MEASURES if m in scores} for system, scores in found.items()}


def held(card, measured):
    """The card's figures beside today's: [{data, system, metric, card, measured, equal}]."""
    rows = []
    for figure in card:
        today = measured.get(figure["data"], {}).get(figure["system"], {}).get(figure["metric"])
        if today is None:
            continue
        equal = abs(today - figure["value"]) <= TOLERANCE
        rows.append({**figure, "measured": round(today, 4), "equal": equal})
    return rows


def main():
    """Measure, compare with the card, write the record."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", default=DEFAULT)
    ask.add_argument("--beir", action="append", default=[])
    ask.add_argument("--senses", action="append", default=[])
    ask.add_argument("--cache", default="outputs/cache")
    ask.add_argument("--before", help="a record whose figures stay where nothing is measured now")
    ask.add_argument("--out", default="results/english.json")
    given = ask.parse_args()
    model = MiniCOIL.load(given.model)
    found = benchmark_collections(model, given.beir, cache=given.cache) if given.beir else {}
    alone = {Path(name).name: found for name in given.beir}  # one collection comes without its name
    collections = found.get("collections", alone)
    measured = load_json(given.before)["results"]["measured"] if given.before else {}
    measured |= {name: brief(one["results"]) for name, one in collections.items()}
    for file in given.senses:
        measured[Path(file).name] = brief(benchmark_senses(model, file)["results"])
    info = box() / given.model / "minicoil.json"
    card = load_json(info).get("figures", []) if info.exists() else []
    rows = held(card, measured)
    gains = {
        name: {s: g for s, g in one["gain"].items() if s in measured[name]}
        for name, one in collections.items()
    }
    queries = {name: one["queries"] for name, one in collections.items()}
    save_record(
        given.out,
        {
            "words": len(model.vocabulary.words),
            "measured": measured,
            "gain": gains,
            "queries": queries,
            "macro": found.get("macro", {}),
            "card": rows,
        },
    )
    wrong = [row for row in rows if not row["equal"]]
    if wrong:
        sys.exit(f"{len(wrong)} of {len(rows)} figures of the card are not found again, e.g. {wrong[0]}")


if __name__ == "__main__":
    main()
