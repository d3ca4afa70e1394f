"""Errors meant for the person at the keyboard: one line, no traceback, a telling exit status."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence


class DomainBedError(Exception):
    """Base of all errors that a script reports in one line; `exit_status` is the script's."""

    exit_status = 1

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)


class RunError(DomainBedError):
    """A run that was asked for correctly could not be finished (exit status 1)."""


class UsageError(DomainBedError, ValueError):
    """What was asked for makes no sense (exit status 2)."""

    exit_status = 2


class UnknownName(UsageError, KeyError, NotImplementedError):
    """A name that nobody registered; its note lists the nearest names.

    It is a `KeyError` for users of a registry as a mapping, and a `NotImplementedError` because
    upstream's `get_algorithm_class` and `get_dataset_class` raise that.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"{kind} not found: {name}")
        self.kind = kind
        self.name = name
        self.add_note(hint(name, known))


def misspelt(message: str, name: str, known: Iterable[str]) -> UsageError:
    """The error to raise for a `name` that is none of `known`; its note says which are near."""
    error = UsageError(message)
    error.add_note(hint(name, known))
    return error


def check_choice(sentence: str, value: object, allowed: Iterable[str]) -> None:
    """Raise "`sentence` one of ..., not ..." unless `value` is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise UsageError(f"{sentence} one of {', '.join(allowed)}, not {value!r}")


def hint(name: str, known: Iterable[str]) -> str:
    """'Did you mean ...?' with up to three names nearest to `name`, or a list of all if none is near."""
    spelling = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelling, n=3, cutoff=0.55)
    if near:
        return f"Did you mean {' or '.join(spelling[each] for each in near)}?"
    return f"Known: {', '.join(spelling.values()) or 'none'}."


def run_script(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a script's `main(argv)` and end the process with its status.

    A `DomainBedError` becomes one line on stderr and its exit status; Ctrl-C becomes status 130.
    """
    try:
        status = main(None) or 0
    except DomainBedError as error:
        print(describe(error), file=sys.stderr)  # noqa: T201 - the one place where a script's error is shown
        status = error.exit_status
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # noqa: T201
        status = 130
    except BrokenPipeError:
        # The reader of our output has left (`... | head`): nothing to say, and nobody to say it to.
        sys.stderr.close()
        status = 141
    sys.exit(status)


def describe(error: DomainBedError) -> str:
    """`error: message note...` in one line."""
    notes: list[str] = getattr(error, "__notes__", [])
    return " ".join([f"error: {error}".rstrip(".") + ".", *notes])
