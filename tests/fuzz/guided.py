"""Fuzzing of one target, guided by the coverage of what it runs through; `scripts/fuzz` makes all that it needs.

What is found lies in `runs/fuzz/TARGET/`, and is replayed by every test run once it is copied to
`tests/fuzz/corpus/TARGET/`.
"""

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).parent
RUNS = Path("runs/fuzz")

BYTES_MAX = 8192
"""Long enough for every sample, and for what is nested deeper than anything may be."""

WORD_BYTES_MAX = 64
"""Of a word that the fuzzer puts in."""

HANG_S = 20
"""An input that takes as long is a finding, though the machine does other things too."""

MEMORY_MIB = 2048
"""What the process may have, with all libraries loaded: an input that makes it take more is a finding."""


def arguments() -> argparse.ArgumentParser:
    """What may be asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Fuzz one thing that p2pnode reads from outside, guided by coverage.",
        epilog="examples:\n"
        "  scripts/fuzz message --minutes 10\n"
        "  scripts/fuzz journal --runs 1000000\n"
        "  scripts/fuzz message --file runs/fuzz/message/crash-0123abcd\n\n"
        "Repeated, it goes on from what the last time covered. What it finds lies in runs/fuzz/TARGET/:\n"
        "copied to tests/fuzz/corpus/TARGET/ it is a test.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", help="what to fuzz; an unknown name lists all")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--minutes", type=float, help="how long (default: 1)")
    many.add_argument("--runs", type=int, help="how many inputs")
    many.add_argument("--file", type=Path, help="one input, to see what it does")
    return parser


def main() -> None:
    """Fuzz until the time is over or something is found, which ends the process with an exit code that is not 0."""
    parser = arguments()
    asked = parser.parse_args()
    try:
        import atheris
    except ImportError:
        parser.exit(2, "atheris is not installed here. Remedy: run scripts/fuzz, which installs it into .venv-fuzz\n")
    with atheris.instrument_imports(include=["p2pnode"]):
        from tests.fuzz.targets import TARGETS
    if asked.target not in TARGETS:
        parser.exit(2, f"target = {asked.target!r}: no such target. Remedy: choose one of {', '.join(TARGETS)}\n")
    reads = TARGETS[asked.target].reads
    if asked.file is not None:
        print("accepted" if reads(asked.file.read_bytes()) else "refused")
        return
    amount = f"-runs={asked.runs}" if asked.runs is not None else f"-max_total_time={round(60 * (asked.minutes or 1))}"
    atheris.Setup([sys.argv[0], amount, *_options(asked.target)], lambda data: reads(data) and None)
    atheris.Fuzz()


def _options(name: str) -> list[str]:
    """What the fuzzer begins with, and the bounds that it holds the target to."""
    from tests.fuzz.targets import TARGETS

    target, folder = TARGETS[name], RUNS / name
    grown = folder / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(target.samples()):
        (grown / f"sample-{number}").write_bytes(sample)
    words = [word.hex(" ") for word in target.words if len(word) <= WORD_BYTES_MAX]
    (folder / "words").write_text("".join('"\\x' + word.replace(" ", "\\x") + '"\n' for word in words))
    kept = TESTS / "corpus" / name
    return [
        f"-artifact_prefix={folder}/",
        f"-max_len={BYTES_MAX}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
        *([f"-dict={folder / 'words'}"] if words else []),
        str(grown),
        *([str(kept)] if kept.is_dir() else []),
    ]


if __name__ == "__main__":
    main()
