"""The benchmark page: tables from results/*.json.

A record nobody wrote a table for is shown as it is, so nothing recorded is left out."""
import json


def table_line(cells):
    """A line of a Markdown table."""
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def table(head, rows):
    """A Markdown table."""
    return "\n".join([table_line(head), table_line(["---"] * len(head)), *map(table_line, rows)])


def with_interval(values):
    """A fraction with its interval, in percent."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in values))


def gain_of(values):
    """A gain with its interval, in points; empty where there is none."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in values)) if values else ""


CONFIGURATIONS = {
    "default": "miniCOIL, 4 numbers",
    "dim=8": "miniCOIL, 8 numbers",
    "objective=fit": "fit, 4",
    "objective=umap": "umap, 4",
    "objective=triplet": "triplet, 4",
    "full_mean": "full token embedding, mean of layers",
    "full_last": "full token embedding, last layer",
    "sentence": "sentence embedding",
    "pca": "PCA, 4",
    "random": "random projection, 4",
    "lda_labels": "LDA with labels (a ceiling)",
    "majority": "most frequent sense",
}
MEASURES = {"nn1": "1NN", "nn5": "5NN", "auc": "AUC", "mauc": "mAUC"}


def sense_rows(measured):
    """A row for each configuration that was measured, a column a measure."""
    rows = []
    for key, label in CONFIGURATIONS.items():
        if key in measured:
            found = measured[key]
            rows.append([label, *(with_interval(found[m]) if m in found else "" for m in MEASURES)])
    return rows


def senses(results):
    """Which sense a word has: the main configurations, a table a collection."""
    parts = ["Percent, with 95 % bootstrap intervals over words. "
             "The chapter [on what tells senses apart](50_research_senses.ipynb) has every configuration "
             "tried."]
    for name, data in results.items():
        counts = f"{len(data['words'])} words, {data['train']:,} sentences to learn from, {data['test']:,} "
        rows = table(["", *MEASURES.values()], sense_rows(data["rows"]))
        parts += [f"### {name}", counts + "to test.", rows]
    return "\n\n".join(parts)


def objectives(found):
    """Search with thousands of words: the gain over BM25."""
    systems = [key for key in found["macro"] if key != "bm25"]
    rows = [[name, f"{data['documents']:,}", *(gain_of(data["gain"][key]) for key in systems)]
            for name, data in found["search"].items()]
    parts = ["nDCG@10 above BM25, in points, with 95 % intervals over queries: "
             f"a model of {found['words']:,} words, {found['samples']} sentences each.",
             table(["collection", "documents", *systems], rows)]
    if "wic" in found:
        wic = found["wic"]
        parts += ["Whether a word means the same in two sentences "
                  f"({wic['pairs']:,} pairs, {wic['words']:,} words; AUC):",
                  table(["", "AUC"], [[k, with_interval(v)] for k, v in wic["auc"].items()])]
    return "\n\n".join(parts)


def search_rows(collections, macro):
    """BM25's score a collection, and the gain of each other system over it."""
    scores = [f"{100 * data['results']['bm25']['ndcg@10']:.1f}" for data in collections.values()]
    rows = [["BM25, nDCG@10", *scores, ""]]
    for system, overall in macro.items():
        if system != "bm25":
            gains = [gain_of(data["gain"].get(system)) for data in collections.values()]
            rows.append([system, *gains, gain_of(overall)])
    return rows


def labelled_search(found):
    """The gains in a collection whose words' senses are labelled."""
    rows = [[name, gain_of(data["gain"])] for name, data in found["all"].items() if name != "bm25"]
    said = (f"A collection of labelled senses, {found['queries']:,} queries. "
            "*adapted*: trained again on the collection's own unlabelled sentences; "
            "*told*: so trained, but given the senses of the words asked for, "
            "which is a bound and not a system.")
    return [said, table(["", "nDCG@10 above BM25"], rows)]


def search(found):
    """What meaning is worth to a search: gains over BM25 a system and a collection."""
    collections = found["collections"]
    head = ["", *(f"{name} ({data['queries']} queries)" for name, data in collections.items()), "macro"]
    parts = ["nDCG@10 above BM25, in points, with 95 % intervals over queries; "
             f"macro over cranfield, medline and scifact. A model of {found['words']:,} words. "
             "The chapter [on search](57_research_search.ipynb) has more.",
             table(head, search_rows(collections, found["macro"]))]
    return "\n\n".join(parts + (labelled_search(found["senses"]) if "senses" in found else []))


def training(found):
    """What training costs."""
    rows = [[name, f"{cost['cpu_seconds_a_word']:.2f}", f"{cost['ratio_to_graph']:.1f}"]
            for name, cost in found["one_word"].items()]
    parts = [f"CPU seconds for one word of {found['sentences']:,} sentences, on one thread.",
             table(["objective", "CPU seconds", "times graph"], rows)]
    at_once = found.get("all_at_once")
    if at_once:
        parts.append(f"{at_once['words']:,} words of {at_once['sentences_each']} sentences at once: "
                     f"{at_once['wall_seconds']:.0f} s in {at_once['jobs']} processes, "
                     f"{at_once['peak_gigabytes']} GB.")
    return "\n\n".join(parts)


def forms(results):
    """What the smaller forms of a model cost in quality."""
    measured = results["forms"]
    columns = list(dict.fromkeys(column for row in measured.values() for column in row))
    rows = [[name, *(row.get(c, "") for c in columns)] for name, row in measured.items()]
    return table(["form", *columns], rows)


def faults(found):
    """What was disturbed or spoiled, how often, and with what end."""
    rows = [[row["kind"], row["how"], f"{row['count']:,}", row["lost"], row["wrong"]]
            for row in found["trials"]]
    rows.append(["all", "", f"{found['total']:,}", found["lost"], found["wrong"]])
    return "\n\n".join(["Killed at random moments, cut off, damaged, or given generated bad input: "
                        "how often work was lost, and how often a result was wrong.",
                        table(["what", "how", "times", "lost", "wrong"], rows)])


def engines(found):
    """Other search engines with the same vectors."""
    measured = {name: row for name, sizes in found["engines"].items() for row in sizes.values()}
    rows = [
        [name, n, "yes",
         f"{row['same_top_10']} of {row['queries']}" if "queries" in row else "",
         f"{row['index_bytes'] / 1e6:.1f}", f"{row['ms_a_query']:.1f}"] if row["loads"] else [name, n, "no"]
        for name, sizes in found["engines"].items() for n, row in sizes.items()
    ]
    rows += [[name, "", "format only"] for name in ("elasticsearch", "opensearch")]
    more = ""
    if "words_a_passage" in found:
        more = (f" 100,000 documents are passages: {found['words_a_passage']} words of a document each, "
                "drawn at random with their numbers.")
    loads = [load for row in measured.values() for load in row.get("load", [])]
    if loads:
        more += f" The machine's load was {min(loads)} to {max(loads)}."
    return "\n\n".join([
        f"{found['collection']}, {found['numbers_a_word']} numbers a word.{more} "
        "How many queries have the ten "
        "documents of exact scoring, ties aside; the index in MB; milliseconds a query, without embedding "
        "it. Lucene and Tantivy round a document's numbers: their ten "
        "are those of exact scoring with the rounded numbers. "
        "Elasticsearch and OpenSearch could not be installed here: their files are checked by the documented "
        "rules, and Lucene, which both are made of, takes and ranks them. "
        "[How to load the others](howto/other-engines.md)",
        table(["engine", "documents", "loads", "same ten", "MB", "ms a query"], rows)])


def serve(found):
    """How long callers of `minicoil serve` wait, beside `embed` in the process."""
    inside = found["in_process"]
    rows = []
    for kind, label in (("queries", "a query"), ("texts", "a text")):
        took = inside[kind]
        rate = took.get("texts_per_second", "")
        rows.append([f"in the process, {label}", 1, 1, "", "", took["p50_ms"], took["p99_ms"], rate])
    keys = ("clients", "texts_a_request", "requests", "errors", "p50_ms", "p99_ms", "texts_per_second")
    rows += [[name, *(row[key] for key in keys)] for name, row in found["served"].items()]
    head = ["", "clients", "texts a request", "requests", "errors", "ms p50", "ms p99", "texts a second"]
    return table(head, rows)


def million_row(name, row):
    """A line for an engine at one size."""
    if "ended" in row:
        return [name, row["ended"]]
    took = {way: f"{p['p50']:.1f}, {p['p99']:.0f}" for way, p in row["search_ms"].items()}
    kept = [f"{row['put_s']:.0f}", f"{row['optimize_s']:.0f}", f"{row['open_s']:.1f}", f"{row['disk_mb']:,}",
            f"{row['peak_own_mb']:,}"]
    return [name, *kept, *(took.get(way, "") for way in ("minicoil", "dense", "hybrid"))]


def million(found):
    """What a search collection costs as it grows."""
    rows = [million_row(name, row) for name, row in found.items() if isinstance(row, dict)]
    head = ["", "put, s", "settled, s", "opened, s", "MB on disk", "most MB of its own",
            "minicoil, ms p50, p99", "dense", "hybrid"]
    return "\n\n".join([
        "Vectors are made up: 20 words of 8 numbers a document, and 384 dense numbers; for BM25 words of one "
        "number, and hardly a dense vector. Queries have three words; their embedding is not counted. "
        "Everything ran on a machine busy with other work.",
        table(head, sorted(rows, key=lambda row: (int(row[0].split()[-2]), row[0])))])


def non_negative(found):
    """What it costs that no number is negative."""
    rows = [[name, gain_of(gain)] for name, gain in found["macro"].items()]
    cost = [[f"{rule}, over signed", gain_of(gain["all"])] for rule, gain in found["cost"].items()]
    names = ", ".join(found["collections"])
    return "\n\n".join([f"nDCG@10 above BM25, in points, macro over {names}, by form and numbers a word:",
                        table(["", "points"], rows + cost)])


def flat(value, path=""):
    """[(path, value)] of everything in a record, lists of numbers on one line."""
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in flat(v, f"{path} {k}".strip())]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(path, text if len(text) <= 120 else text[:117] + "…")]


def plain(text):
    """`text` as it stands in a Markdown table."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def anything(results):
    """Results as a table of their entries."""
    kept = {k: v for k, v in results.items() if k not in ("load_at_end", "per_query", "per_word")}
    return table(["", ""], [(path, plain(value)) for path, value in flat(kept)][:200])


SECTIONS = {
    "search": ("Does it help a search?", search),
    "senses": ("Which sense a word has", senses),
    "objectives": ("Search with thousands of words", objectives),
    "training": ("What training costs", training),
    "forms": ("Smaller forms", forms),
    "serving": ("Serving", anything),
    "engines": ("Other search engines", engines),
    "serve": ("The endpoint", serve),
    "million": ("A million documents", million),
    "non_negative": ("Vectors without a sign", non_negative),
    "inflections": ("Inflected forms", anything),
    "faults": ("Faults", faults),
}


def recorded(record):
    """When, where and how a record was made, on one line."""
    return "Recorded: {date}, {machine}, commit {commit}, `{command}`.".format(**record)


def section(name, record):
    """A record's part of the page; one of another shape than this page knows is shown as it is."""
    title, draw = SECTIONS.get(name, (name.capitalize().replace("_", ", "), anything))
    try:
        drawn = draw(record["results"])
    except (KeyError, TypeError, ValueError, AttributeError):
        drawn = anything(record["results"])
    return [f"## {title}", drawn, recorded(record)]


def benchmark_page(folder):
    """The page as Markdown, from every record in the folder."""
    parts = ["# Benchmarks",
             "What was measured, from the records in `results/`; `make bench` makes them anew. "
             "A difference counts where its interval leaves out 0."]
    records = sorted(folder.glob("*.json"))
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in records}
    order = [*(name for name in SECTIONS if name in found), *(name for name in found if name not in SECTIONS)]
    for name in order:
        parts += section(name, found[name])
    return "\n\n".join(parts) + "\n"
