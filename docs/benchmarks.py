"""The benchmark page: tables from results/*.json. A record nobody wrote a table for is shown as it is, so nothing recorded is left out."""
import json


def table(head, rows):
    """A Markdown table."""
    line = lambda cells: "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def with_interval(values):
    """A fraction with its interval, in percent."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in values))


def senses(results):
    """Telling senses apart: the main configurations, a table a collection."""
    names = {"default": "miniCOIL, 4 numbers", "dim=8": "miniCOIL, 8 numbers", "objective=fit": "fit, 4", "objective=umap": "umap, 4", "objective=triplet": "triplet, 4",
             "full_mean": "full token embedding, mean of layers", "full_last": "full token embedding, last layer", "sentence": "sentence embedding", "pca": "PCA, 4",
             "random": "random projection, 4", "lda_labels": "LDA with labels (a ceiling)", "majority": "most frequent sense"}
    measures = {"nn1": "1NN", "nn5": "5NN", "auc": "AUC", "mauc": "mAUC"}
    parts = ["Percent, with 95 % bootstrap intervals over words. The chapter [on what tells senses apart](50_research_senses.ipynb) has every configuration tried."]
    for name, data in results.items():
        rows = [[label, *(with_interval(data["rows"][key][m]) if m in data["rows"][key] else "" for m in measures)] for key, label in names.items() if key in data["rows"]]
        parts += [f"### {name}", f"{len(data['words'])} words, {data['train']:,} sentences to learn from, {data['test']:,} to test.", table(["", *measures.values()], rows)]
    return "\n\n".join(parts)


def objectives(found):
    """Search with thousands of words: the gain over BM25."""
    rows = [[name, f"{data['documents']:,}", *("{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in data["gain"][key])) for key in found["macro"] if key != "bm25")] for name, data in found["search"].items()]
    systems = [key for key in found["macro"] if key != "bm25"]
    parts = [f"nDCG@10 above BM25, in points, with 95 % intervals over queries: a model of {found['words']:,} words, {found['samples']} sentences each.",
             table(["collection", "documents", *systems], rows)]
    if "wic" in found:
        parts += [f"Whether a word means the same in two sentences ({found['wic']['pairs']:,} pairs, {found['wic']['words']:,} words; AUC):",
                  table(["", "AUC"], [[k, with_interval(v)] for k, v in found["wic"]["auc"].items()])]
    return "\n\n".join(parts)


def search(found):
    """What meaning is worth to a search: gains over BM25 a system and a collection."""
    gain = lambda g: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in g)) if g else ""
    names = list(found["collections"])
    head = ["", *(f"{n} ({found['collections'][n]['queries']} queries)" for n in names), "macro"]
    rows = [["BM25, nDCG@10", *(f"{100 * found['collections'][n]['results']['bm25']['ndcg@10']:.1f}" for n in names), ""]]
    rows += [[s, *(gain(found["collections"][n]["gain"].get(s)) for n in names), gain(g)] for s, g in found["macro"].items() if s != "bm25"]
    parts = [f"nDCG@10 above BM25, in points, with 95 % intervals over queries; macro over cranfield, medline and scifact. A model of {found['words']:,} words. The chapter [on search](57_research_search.ipynb) has more.", table(head, rows)]
    if "senses" in found:
        parts += [f"A collection of labelled senses, {found['senses']['queries']:,} queries. *adapted*: trained again on the collection's own unlabelled sentences; *told*: so trained, but told the senses of the words asked for, which is a bound and no system.", table(["", "nDCG@10 above BM25"], [[s, gain(v["gain"])] for s, v in found["senses"]["all"].items() if s != "bm25"])]
    return "\n\n".join(parts)


def training(found):
    """What training costs."""
    rows = [[name, f"{cost['cpu_seconds_a_word']:.2f}", f"{cost['ratio_to_graph']:.1f}"] for name, cost in found["one_word"].items()]
    at_once = found.get("all_at_once")
    return "\n\n".join([f"CPU seconds for one word of {found['sentences']:,} sentences, on one thread.", table(["objective", "CPU seconds", "times graph"], rows)]
                       + ([f"{at_once['words']:,} words of {at_once['sentences_each']} sentences at once: {at_once['wall_seconds']:.0f} s in {at_once['jobs']} processes, {at_once['peak_gigabytes']} GB."] if at_once else []))


def forms(results):
    """What the smaller forms of a model cost in quality."""
    columns = list(dict.fromkeys(k for row in results["forms"].values() for k in row))
    return table(["form", *columns], [[name, *(row.get(c, "") for c in columns)] for name, row in results["forms"].items()])


def faults(found):
    """What was disturbed or spoiled, how often, and with what end."""
    rows = [[row["kind"], row["how"], f"{row['count']:,}", row["lost"], row["wrong"]] for row in found["trials"]]
    return "\n\n".join(["Killed at random moments, cut off, damaged, or given generated bad input: how often work was lost, and how often a result was wrong.",
                        table(["what", "how", "times", "lost", "wrong"], [*rows, ["all", "", f"{found['total']:,}", found["lost"], found["wrong"]]])])


def flat(value, path=""):
    """[(path, value)] of everything in a record, lists of numbers on one line."""
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in flat(v, f"{path} {k}".strip())]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(path, text if len(text) <= 120 else text[:117] + "…")]


def anything(results):
    """Results as a table of their entries."""
    skipped = {"load_at_end", "per_query", "per_word"}
    return table(["", ""], [(p, v.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")) for p, v in flat({k: v for k, v in results.items() if k not in skipped})][:200])


SECTIONS = {"search": ("Does it help a search?", search), "senses": ("Telling senses apart", senses), "objectives": ("Search with thousands of words", objectives), "training": ("What training costs", training),
            "forms": ("Smaller forms", forms), "serving": ("Serving", anything), "inflections": ("Inflected forms", anything), "faults": ("Faults", faults)}


def recorded(record):
    """When, where and how a record was made, on one line."""
    return "Recorded: {date}, {machine}, commit {commit}, `{command}`.".format(**record)


def benchmark_page(folder):
    """The page as Markdown, from every record in the folder."""
    parts = ["# Benchmarks", "What was measured, from the records in `results/`; `make bench` makes them anew. Differences count where their interval leaves out 0."]
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    for name in [*(n for n in SECTIONS if n in found), *(n for n in found if n not in SECTIONS)]:
        title, draw = SECTIONS.get(name, (name.capitalize().replace("_", ", "), anything))
        try:
            drawn = draw(found[name]["results"])
        except (KeyError, TypeError, ValueError, AttributeError):   # a record of another shape than this page knows
            drawn = anything(found[name]["results"])
        parts += [f"## {title}", drawn, recorded(found[name])]
    return "\n\n".join(parts) + "\n"
