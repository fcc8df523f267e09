"""Create pictures of README and docs: ``python tools/readme_pictures.py RUNS BOARD.md``.

RUNS is a folder of evaluations made with ``--panels``; BOARD.md is a page that ``fssbench board
build`` wrote. Writes ``docs/images/panels.png``, ``supports.png`` (the kinds of supports) and, if
Chromium is installed, ``board.png``.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import get_args

from markdown_it import MarkdownIt
from PIL import Image

from fssbench import build
from fssbench.episodes.annotations import support_mask
from fssbench.inference.overlay import SUPPORT, painted
from fssbench.specs import SupportKind

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STYLE = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 24px; color: #1f2328; }
table { border-collapse: collapse; margin: 12px 0; }
th, td { border: 1px solid #d0d7de; padding: 5px 10px; white-space: nowrap; }
tr:nth-child(even) { background: #f6f8fa; } th { background: #f6f8fa; }
h1, h2 { border-bottom: 1px solid #d0d7de; padding-bottom: 6px; } a { color: #0969da; }
pre { background: #f6f8fa; padding: 10px; } li { max-width: 1100px; }
"""


def main() -> None:
    """Parse the arguments and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("board", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    arguments = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    _panels(sorted(arguments.runs.rglob("panels/*.png"))[: arguments.rows])
    _supports("val-000006", 1)
    _board(arguments.board.read_text())


def _panels(files: list[Path]) -> None:
    rows = [Image.open(file) for file in files]
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.quantize(200).save(IMAGES / "panels.png", optimize=True)


def _supports(image_id: str, number: int) -> None:
    """Draw the kinds of supports of one image: mask, box, points, scribbles."""
    dataset, gap, side = build.dataset("shapes"), 8, 240
    class_id = sorted(dataset.class_pixels(image_id))[number]
    kinds = get_args(SupportKind)
    sheet = Image.new("RGB", (len(kinds) * (side + gap) - gap, side), "white")
    for position, kind in enumerate(kinds):
        dataset.support_kind = kind
        mask = support_mask(dataset, image_id, class_id)
        pixels = painted(dataset.image(image_id), mask, SUPPORT).round().astype("uint8")
        tile = Image.fromarray(pixels).resize((side, side))
        sheet.paste(tile, (position * (side + gap), 0))
    sheet.quantize(200).save(IMAGES / "supports.png", optimize=True)


def _board(markdown: str) -> None:
    """Take a screenshot of the measured tables."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("Chromium is not installed: docs/images/board.png is unchanged")
        return
    measured = markdown.partition("## Published numbers")[0]
    body = MarkdownIt("commonmark").enable("table").render(measured)
    page = f"<meta charset=utf-8><title>{html.escape('board')}</title><style>{STYLE}</style>{body}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "board.html")
        source.write_text(page)
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--no-first-run", f"--user-data-dir={folder}/profile", "--window-size=1560,1000",
             f"--screenshot={IMAGES / 'board.png'}", source.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    Image.open(IMAGES / "board.png").quantize(64).save(IMAGES / "board.png", optimize=True)


if __name__ == "__main__":
    main()
