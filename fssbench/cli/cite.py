"""``fssbench cite``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.options import PATH


@click.command()
@click.argument("records", nargs=-1, required=True, type=PATH)
def cite(records: tuple[Path, ...]) -> None:
    """Print the BibTeX of everything that RECORDS used, each entry once.

    RECORDS are record.json files, run directories, or folders of some, such as a board.
    """
    from fssbench.results import citations
    from fssbench.results.record import RECORD_FILE, Record
    from fssbench.results.result import find_results

    files = [path for path in records if path.is_file()]
    folders = find_results([path for path in records if path not in files])
    files += [folder / RECORD_FILE for folder in folders]
    entries, notes = citations.cite([Record.read(path) for path in files])
    click.echo("\n\n".join(entries.values()))
    for note in notes:
        click.echo(f"fssbench: no citation of {note}", err=True)
