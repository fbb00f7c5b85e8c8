"""How long the atlas of a run of many words takes, how large it is, and how quickly its pages open.

    python tests/bench/atlas.py --run outputs/en --work /tmp/atlas

The stage is drawn anew, of all words, into a run of its own in `--work` that borrows the other stages of
`--run`; then its files are counted, and a real Chromium opens the index, scrolls, sorts and searches it, and
opens the pages of words drawn by chance. A page counts as open when its points can be pointed at.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import time
from pathlib import Path

from browsing import DESKTOP, FLAGS, PHONE, find_chromium, watched
from playwright.sync_api import sync_playwright
from record import save_record

from minicoil.pictures.atlas import draw_atlas
from minicoil.pictures.pages import word_address
from minicoil.runs.run import open_run

OPEN = "document.querySelectorAll('svg.plot use').length > 0 && document.getElementById('view') !== null"
SCROLL = """async steps => {
  const waits = [];
  let last = performance.now();
  const frame = () => new Promise(requestAnimationFrame);
  for (let k = 0; k <= steps; k++) {
    scrollTo(0, k / steps * (document.documentElement.scrollHeight - innerHeight));
    await frame();
    const now = performance.now();
    waits.push(now - last);
    last = now;
  }
  const rows = [...document.querySelectorAll("tbody tr")];
  return {waits, last: rows.at(-1).getAttribute("aria-rowindex"), made: rows.length};
}"""


def borrowed(source, work, jobs):
    """A run in a new folder `work` with the stages of another run, but for the atlas."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copy(source / "run.json", work)
    for stage in source.glob("[0-9][0-9]_*"):
        if stage.name != "30_atlas":
            (work / stage.name).symlink_to(stage.resolve())
    return open_run(work, jobs=jobs)


def cpu_seconds():
    """Processor seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def drawn(run):
    """Draw the atlas: seconds, processor seconds, files and bytes."""
    begin, used = time.perf_counter(), cpu_seconds()
    facts = draw_atlas(run)
    seconds, used = time.perf_counter() - begin, cpu_seconds() - used
    files = [file.stat() for file in run.stage("atlas").path.rglob("*") if file.is_file()]
    on_disk = 512 * sum(file.st_blocks for file in files)
    return {
        "words": facts["words"], "pictures": facts["pictures"], "jobs": run.jobs,
        "seconds": round(seconds, 1), "cpu_seconds": round(used, 1), "files": len(files),
        "bytes": sum(file.st_size for file in files), "bytes_on_disk": on_disk,
        "index_bytes": (run.stage("atlas").path / "index.html").stat().st_size,
    }


def milliseconds(begin):
    """Since `begin`, with one digit."""
    return round((time.perf_counter() - begin) * 1000, 1)


def pages_opened(page, folder, numbers, pictured):
    """Milliseconds that the pages of some words take to open."""
    waits = []
    for number in numbers:
        begin = time.perf_counter()
        page.goto((folder / word_address(number, number >= pictured)).as_uri().replace("%3F", "?"))
        page.wait_for_function(OPEN, polling=5)
        waits.append(milliseconds(begin))
    return {"median": statistics.median(waits), "most": max(waits), "pages": len(waits)}


def index_used(page, folder, word):
    """Milliseconds to open the index, to find a word, to sort, and of its frames while it scrolls."""
    begin = time.perf_counter()
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#find:not([hidden])")
    found = {"open": milliseconds(begin)}
    scrolled = page.evaluate(SCROLL, 200)
    waits = sorted(scrolled["waits"])
    found |= {"frame_median": round(statistics.median(waits), 1), "frame_most": round(waits[-1], 1),
              "rows_made": scrolled["made"], "last_row": int(scrolled["last"]) - 1}
    begin = time.perf_counter()
    page.get_by_role("button", name="separation").click()
    found["sort"] = milliseconds(begin)
    begin = time.perf_counter()
    page.fill("#search", word)
    page.get_by_role("link", name=word, exact=True).first.wait_for()
    return found | {"find": milliseconds(begin)}


def looked_at(run, facts, shots):
    """What a browser needs for the index and for pages, at both widths; pictures of both if asked for."""
    folder, rng, pictured = run.stage("atlas").path, random.Random(0), facts["pictures"]
    plain = [rng.randrange(pictured, facts["words"]) for _ in range(40)]
    word = run.stage("training").manifest["words"][plain[0]]
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            with watched(browser, size) as page:
                found[name] = {"plain": pages_opened(page, folder, plain, pictured),
                               "pictured": pages_opened(page, folder, range(pictured), pictured),
                               "index": index_used(page, folder, word)}
                if shots:
                    page.screenshot(path=shots / f"index-{name}.png")
                    page.goto((folder / "words" / "word.html").as_uri() + f"?{plain[0]}")
                    page.wait_for_function(OPEN)
                    page.screenshot(path=shots / f"word-{name}.png", full_page=True)
                assert page.faults == page.left == []
        browser.close()
    return found


def main():
    """Draw, count, look, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", default="outputs/en", type=Path)
    parser.add_argument("--work", default="/tmp/minicoil-atlas", type=Path)
    parser.add_argument("--keep", action="store_true", help="look at the atlas that an earlier call drew")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the pages")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", default="results/atlas.json")
    args = parser.parse_args()
    run = open_run(args.work, jobs=args.jobs) if args.keep else borrowed(args.run, args.work, args.jobs)
    facts = drawn(run)
    print(facts)
    results = {"drawn": facts, "milliseconds": looked_at(run, facts, args.shots)}
    print(results)
    save_record(args.out, results)


if __name__ == "__main__":
    main()
