#!/usr/bin/env python3
"""Fuzz the parsers of untrusted files with Atheris: ``python tools/fuzz.py [PARSER …]``.

Requires the extras ``test`` and ``fuzz``. Each parser is fuzzed in a separate process for
``--seconds``, starting from valid files; new inputs are saved in ``--corpus`` and reused. Any
result but a value or an ``FssbenchError`` of one line is a crash; its input is written to the
corpus folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one parser in this process, which exits afterwards."""
    import atheris

    # Instrumenting pandas and torch would take minutes.
    with atheris.instrument_imports(include=["fssbench"]):
        import parsers_for_fuzz

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    seeds = corpus / name
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(parsers_for_fuzz.PARSERS[name].seeds):
        (seeds / f"seed{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as folder:

        def one(data: bytes) -> None:
            parsers_for_fuzz.parse(name, data, Path(folder))

        options = [
            f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=4096", "-timeout=30",
            f"-artifact_prefix={corpus}/{name}-", "-print_final_stats=1",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(seeds)], one)
        atheris.Fuzz()


def main() -> int:
    """Parse the options, and fuzz each parser in a separate process."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("parsers", nargs="*", help="names; all of them by default")
    reader.add_argument("--seconds", type=int, default=60, help="for each parser")
    reader.add_argument("--corpus", type=Path, help="folder of inputs; a temporary one by default")
    reader.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = reader.parse_args()
    sys.path.insert(0, str(TESTS))
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fssbench-fuzz-"))
    if options.inside:
        fuzz(options.parsers[0], options.seconds, corpus)
        return 0
    from parsers_for_fuzz import PARSERS

    unknown = set(options.parsers) - PARSERS.keys()
    if unknown:
        reader.error(f"no parser {', '.join(sorted(unknown))}; there are {', '.join(PARSERS)}")
    failed = []
    for name in options.parsers or PARSERS:
        print(f"{name}: {options.seconds} s", flush=True)
        arguments = ["--inside", "--seconds", str(options.seconds), "--corpus", str(corpus)]
        if subprocess.run([sys.executable, __file__, name, *arguments], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}; inputs in {corpus}" if failed else "fine")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
