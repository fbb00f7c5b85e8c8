"""README.md from nbs/index.ipynb. `--write` writes it, otherwise exit 1 if the file differs from what the
notebook says, decimals apart.

Cells are run; their text output is shown below them. Of cells marked `#| hide` only what they display as
Markdown is shown."""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


def render():
    """The README's text."""
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        extra_arguments=["--IPKernelApp.log_level=50"],
        resources={"metadata": {"path": str(ROOT / "nbs")}},
    ).execute()
    parts = ["<!-- made from nbs/index.ipynb by make readme: edit the notebook -->"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source.startswith("#| hide"):
            parts += [
                o.data["text/markdown"]
                for o in cell.outputs
                if o.output_type == "display_data" and "text/markdown" in o.data
            ]
        else:
            printed = "".join(
                o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"
            ).rstrip()
            parts.append(f"```python\n{cell.source}\n```\n\n```\n{printed}\n```")
    text = "\n\n".join(parts).replace("](../", "](")
    return re.sub(r"\]\((\d\d_\w+\.ipynb)\)", r"](nbs/\1)", text) + "\n"


def without_decimals(text):
    """Another processor may round the last digit differently; words and layout must agree."""
    return re.sub(r"[+-]?\d+\.\d+", "0.0", text)


if __name__ == "__main__":
    path, text = ROOT / "README.md", render()
    if "--write" in sys.argv:
        path.write_text(text, encoding="utf-8")
    elif without_decimals(path.read_text(encoding="utf-8")) != without_decimals(text):
        sys.exit("README.md differs from nbs/index.ipynb: run make readme")
