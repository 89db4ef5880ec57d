"""One change that `benchmarks.mutation_check` makes; `benchmarks.mutations` has all of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """``text``, once in ``file``, becomes ``replacement``; one of ``tests`` (pytest arguments) must go red."""

    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]


def of(file: str, tests: str, *rows: tuple[str, str, str]) -> list[Mutation]:
    """Mutations of one file, all noticed by the same ``tests`` (separated by blanks): (name, text, replacement) each."""
    return [Mutation(name, file, text, replacement, tuple(tests.split())) for name, text, replacement in rows]
