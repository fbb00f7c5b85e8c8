"""A browser for tests: Debian's chromium, driven by playwright, cut off from the network, and watched."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def find_chromium():
    """Path of a chromium, installed with apt-get where it is missing and may be; None if none can be had."""
    names = ("chromium", "chromium-browser", "google-chrome")
    with open(
        Path(tempfile.gettempdir()) / f"minicoil-chromium-{os.getuid()}.lock", "w", encoding="utf-8"
    ) as lock:  # two test processes ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = next(filter(None, map(shutil.which, names)), None)
        if not found and os.geteuid() == 0 and shutil.which("apt-get"):
            for command in (
                ["apt-get", "update", "-qq"],
                ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
            ):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(
                        command,
                        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        timeout=300,
                    )
            found = next(filter(None, map(shutil.which, names)), None)
    return found


@contextlib.contextmanager
def watched(browser, size=DESKTOP, **options):
    """A page that remembers what went wrong:

    `page.faults` (console errors, exceptions, dialogs) and `page.left` (requests beyond this machine).
    """
    context = browser.new_context(viewport=size, has_touch=size == PHONE, **options)
    context.set_default_timeout(240_000)  # a busy machine draws slowly
    page = context.new_page()
    page.faults, page.left = [], []
    page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.faults.append(str(e)))
    page.on("dialog", lambda d: (page.faults.append(f"dialog: {d.message}"), d.dismiss()))
    page.on(
        "request",
        lambda r: (
            page.left.append(r.url)
            if not r.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1", "about:"))
            else None
        ),
    )
    try:
        yield page
    finally:
        context.close()


def wider_than_screen(page):
    """Pixels by which a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
