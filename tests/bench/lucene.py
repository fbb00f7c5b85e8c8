"""Lucene itself, in a process of Java: the feature fields that Elasticsearch and OpenSearch are made of.

Needs Java and Lucene's jar: `apt-get install default-jdk-headless liblucene8-java`, or LUCENE_JAR=PATH.
The package needs neither.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from minicoil.retrieval.engines import FIELD

SOURCE = Path(__file__).with_name("Lucene.java")


def find_jar():
    """The path of Lucene's jar; an `ImportError` says what to install."""
    installed = sorted(Path("/usr/share/java").glob("lucene-core-[89]*.jar"))
    named = os.environ.get("LUCENE_JAR", "")
    jar = Path(named) if named else installed[-1] if installed else None
    if jar is None or not jar.is_file() or not shutil.which("java"):
        raise ImportError("Lucene: apt-get install default-jdk-headless liblucene8-java, or set LUCENE_JAR")
    return jar


def columns(first, vector):
    """A line of the runner's: a first column, then names and numbers in turn."""
    pairs = [x for name, value in vector.items() for x in (name, repr(float(value)))]
    line = "\t".join([str(first), *pairs])
    assert "\n" not in line, "a name with a line break"
    return line + "\n"


def features(folder):
    """Yields (number, source) of the documents in bulk files, numbered in the order of the files."""
    number = 0
    for path in sorted(folder.glob("documents-*.ndjson")):
        for line in path.read_text(encoding="utf-8").split("\n")[1::2]:
            yield number, json.loads(line)
            number += 1


class Lucene:
    """An index of the documents of an export for Elasticsearch or OpenSearch, in the folder `index`."""

    def __init__(self, folder, index):
        jar, table = find_jar(), Path(f"{index}.tsv")
        self.names = []
        with open(table, "w", encoding="utf-8") as f:
            for number, source in features(folder):
                self.names.append(source["id"])
                f.write(columns(number, source.get(FIELD, {})))
        command = ["java", "-Xmx2g", "-cp", str(jar), str(SOURCE), str(table), str(index)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, encoding="utf-8", **pipes)
        assert self.process.stdout.readline() == "ready\n", "Lucene did not start"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(self, request):
        """Ids of the hits of one of the export's requests, as a feature field scores them."""
        query = request["query"]
        if "match_none" in query:
            return []
        asked = (query["sparse_vector"]["query_vector"] if "sparse_vector" in query
                 else query["neural_sparse"][FIELD]["query_tokens"])  # fmt: skip
        self.process.stdin.write(columns(request["size"], asked))
        self.process.stdin.flush()
        answer = self.process.stdout.readline().rstrip("\n")
        return [self.names[int(number)] for number in answer.split("\t") if number]
