"""What are senses called, and is it what one would say of their sentences?

    python tests/bench/sense_names.py --run outputs/demo --english outputs/en

Every sense of a run of the bundled sentences gets two names: by counts alone (the three words with the
greatest log odds, as the atlas had them before), and as today (counts times nearness, see 20_naming). `APT`
lists the names that a reader accepted: the sentences' topic is recognised from at least two of the three
words, and none leads elsewhere. The reader knew which rule had made a name. A name that is not listed counts
as refused, so a new rule has to be read anew.

`--english` is a run of a model of many words. Twenty of its words with several senses, drawn by hash, are
named both ways too. The reader, who is the author of the rule, read each name beside the two sentences that
are nearest to the cluster's centre, which `--read` prints; `APT_ENGLISH` has the verdicts.
"""

import argparse
import collections
import hashlib
import textwrap

from record import save_record

from minicoil.runs.files import load_json
from minicoil.runs.run import open_run
from minicoil.stages.naming import log_odds, typical_rows
from minicoil.stages.senses import FoundSenses, facts_of, senses_of, word_senses, word_targets
from minicoil.stages.sentences import sentence_texts
from minicoil.stages.store import drawn_sentences
from minicoil.text.vocabulary import stemmer, stop_words

APT = {
    "arm": ["shoulder, wrist, bones", "elbow, shoulder, wrist"],
    "ball": ["club, drops, green", "bat, touches, player", "guests, supper, ices"],
    "bank": ["manager, account, cell", "along, river, mud", "lenders, savings, funds", "river, mud, lake"],
    "bass": ["dropped, played, recording", "choirs, guitar, drum", "fish, eels, carp"],
    "bat": ["pitch, ball, baseball", "species, fly, trees"],
    "cell": ["inmates, prisoner, phone", "tissue, chloroplasts, nucleus"],
    "club": ["bars, guests, rowing"],
    "court": ["tennis, sitting, emperors", "conviction, defendant, sentenced"],
    "crane": ["broken, cab, lifted", "lifted, folded, hoisted", "birds, flocks, birdwatching"],
    "current": ["wire, winding, direction"],
    "draw": ["ends, points, wins", "likeness, curtains, needle", "wins, England, goal"],
    "jam": ["jar, sugar, boiling", "motorway, cars, taxis"],
    "match": ["tins, flares, smoking", "refereeing, pitch, chess"],
    "mouse": ["button, keyboard, use", "grass, fur, harvest", "keyboard, double-clicking, scrolling"],
    "organ": ["lungs, body, ribs"],
    "oxygen": ["lungs, blood, water"],
    "pitch": ["string, tune, could", "fixtures, hurling, bowling", "tune, microphone, oboe",
              "venture capitalists, business, profits"],
    "plant": ["leaf, fruit, grew"],
    "port": ["galleys, ferry, boats", "phones, plugged, adapters"],
    "seal": ["lid, rubber, escape", "sea, tide, species", "rubber, lid, jars"],
    "spring": ["damper, drilled, steel", "autumn, April, leaves"],
    "trunk": ["tree, tail, bark"],
    "vector": ["mosquito, breeds, infection", "scalar, velocity, rotate", "mosquito, malaria, parasite"],
}
APT_ENGLISH = {
    "amor": ["also, instruments, oboe", "oboe, instruments, Opera"],
    "angelique": ["angélique, merasty, times", "kerber, lost, reached", "Angélique, Merasty, Marie",
                  "Widjaja defeated, Kerber, quarterfinals"],
    "anita": ["wife, married, children", "wife, married, Ingrao"],
    "balloon": ["inflate, gas, pressure", "exhibition, Art Gallery, project"],
    "cellular": ["molecular, processes, proteins", "RNA, biology, proteins",
                 "telecommunications, Telecom, phone"],
    "consciousness": ["loses, cause, regain", "social, studies, cultures"],
    "cultivation": ["land, many, crops", "plant, temperate, soil", "agricultural, farmers, crops",
                    "plant, cultivars, temperate"],
    "grady": ["commander, united, admiral", "admiral, naval, commander"],
    "heard": ["music, song, rap"],
    "lima": ["group, government, president", "government, elections, Peruvian capital"],
    "miroslav": ["marček, szabó, tomáš", "Kuciak, Tomáš Szabó, Marček"],
    "monkey": ["species, genus, africa", "game, island, business", "species, plasmodium brasilianum, genus",
               "studio, Secret, title"],
    "mustafa": ["kemal, boulevard, coastal", "Kemal Coastal, west Konak, Atatürk"],
    "pope": ["appointed, bishop, benedict", "John Paul, Martin, Innocent", "appointed, bishop, Benedict XVI"],
    "starboard": ["side, ship, bombs", "value, board, ceo", "sank, ship, lifeboats",
                  "shareholders, merger, stock"],
    "steamship": ["company, owned, also", "great, lakes, passengers", "company, owned, Pittsburgh"],
    "toed": ["acanthodactylus, commonly, lacertidae", "gecko, gekkonidae, cyrtodactylus",
             "fringe-fingered lizard, acanthodactylus, Lacertidae", "gecko, Gekkonidae, sloths"],
}


def words_in(text):
    """The words of a text as the old rule counted them: letters alone, three or more, without punctuation."""
    words = {w.strip(".,;:!?\"'()[]").lower() for w in text.split()}
    return {w for w in words if w.isalpha() and len(w) > 2}


def counted_names(texts, clusters, forms, language, top=3):
    """For each cluster the words with the greatest log odds, as one text: the old rule."""
    stem = stemmer(language).stem_word
    own = set(map(stem, forms))
    counters = [collections.Counter() for _ in range(max(clusters) + 1)]
    spelled = collections.defaultdict(collections.Counter)
    for text, c in zip(texts, clusters):
        for word in words_in(text) - stop_words(language):
            if stem(word) not in own:
                counters[c][stem(word)] += 1
                spelled[stem(word)][word] += 1
    total = sum(counters, collections.Counter())
    names = []
    for inside in counters:
        rest = total - inside
        score = log_odds(inside, rest) if rest else dict.fromkeys(inside, 0.0)
        best = sorted(inside, key=lambda found: (-score[found], -inside[found], found))[:top]
        words = [max(spelled[found], key=lambda form: (spelled[found][form], form)) for found in best]
        names.append(", ".join(words))
    return names


def named_words(run):
    """{word: [{sentences, before, after}]} of a run, a row a sense."""
    recorded, found = load_json(run.stage("senses").path / "senses.json"), {}
    for (word, forms, ids), (_, senses) in zip(drawn_sentences(run), word_senses(run)):
        texts = sentence_texts(run, ids)
        own = [texts[i] for i in ids.tolist()]
        before = counted_names(own, senses["clusters"].tolist(), forms, run.params.language)
        found[word] = [
            {"sentences": sense["sentences"], "before": name, "after": sense["name"]}
            for name, sense in zip(before, recorded[word]["clusters"])
        ]
    return found


def drawn_words(run, most):
    """Words of a run with several senses, so many, drawn by the hash of their letters."""
    recorded = load_json(run.stage("senses").path / "senses.json")
    several = [word for word, facts in recorded.items() if len(facts["clusters"]) > 1]
    return set(sorted(several, key=lambda word: hashlib.sha256(word.encode()).hexdigest())[:most])


def named_anew(run, words, read):
    """{word: [{sentences, before, after}]} of some words of a run, clustered and named by today's code."""
    members = [(i, *drawn) for i, drawn in enumerate(drawn_sentences(run)) if drawn[0] in words]
    targets = word_targets(run, [(i, ids) for i, _, _, ids in members])
    parts = [(rows, senses_of(rows, run.params.seed)) for rows in targets]
    kept = [FoundSenses(senses, typical_rows(rows, senses["clusters"])) for rows, senses in parts]
    facts, found = facts_of(run, members, kept), {}
    for (_, word, forms, ids), (_, senses) in zip(members, parts):
        texts = sentence_texts(run, ids)
        own = [texts[i] for i in ids.tolist()]
        before = counted_names(own, senses["clusters"].tolist(), forms, run.params.language)
        clusters = facts[word]["clusters"]
        found[word] = [
            {"sentences": sense["sentences"], "before": name, "after": sense["name"]}
            for name, sense in zip(before, clusters)
        ]
        for sense in clusters if read else ():
            nearest = [textwrap.shorten(own[row], 300) for row in sense["typical"]]
            print(word, "|", sense["name"], *nearest, sep="\n    ")
    return found


def judged(found, accepted):
    """The table with the reader's verdicts, and how many names were accepted."""
    table = {
        word: [
            row | {f"{when}_apt": row[when] in accepted.get(word, ()) for when in ("before", "after")}
            for row in rows
        ]
        for word, rows in found.items()
    }
    rows = [row for some in table.values() for row in some]
    apt = {when: sum(row[f"{when}_apt"] for row in rows) for when in ("before", "after")}
    return {"words": table, "senses": len(rows), "apt": apt}


def shown(results):
    """Print a table of names, and how many were accepted."""
    for word, rows in results["words"].items():
        for row in rows:
            marks = ["yes" if row[f"{when}_apt"] else "no" for when in ("before", "after")]
            print(f"{word:14}{row['before']:40}{marks[0]:5}{row['after']:48}{marks[1]}")
    print(f"accepted of {results['senses']}: {results['apt']}")


def main():
    """Name the senses of both runs, print them, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", default="outputs/demo")
    parser.add_argument("--english", default="outputs/en")
    parser.add_argument("--read", action="store_true", help="print the sentences nearest to each centre")
    parser.add_argument("--out", default="results/sense_names.json")
    args = parser.parse_args()
    results = judged(named_words(open_run(args.run)), APT)
    run = open_run(args.english)
    found = named_anew(run, drawn_words(run, 20), args.read)
    results["english"] = judged(found, APT_ENGLISH) | {"judge": "the author of the rule"}
    shown(results)
    shown(results["english"])
    save_record(args.out, results)


if __name__ == "__main__":
    main()
