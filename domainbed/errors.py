"""Errors for users: one line on stderr and an exit status, without a traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence

from domainbed.escaping import escaped_output, visible


class DomainBedError(Exception):
    """Base class of errors that scripts report in one line. `exit_status` is the script's exit status."""

    exit_status = 1

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)


class RunError(DomainBedError):
    """A valid command failed while it ran (exit status 1)."""


class UsageError(DomainBedError, ValueError):
    """Invalid arguments, settings or input files (exit status 2)."""

    exit_status = 2


class UnknownName(UsageError, KeyError, NotImplementedError):
    """A name that is not registered. Its note suggests similar names.

    It is a `KeyError` because a registry is a mapping, and a `NotImplementedError` because upstream's
    `get_algorithm_class` and `get_dataset_class` raise that.

    Args:
        kind: kind of the thing, as in "Algorithm not found: AgrSun".
        name: the unknown name.
        known: all registered names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"{kind} not found: {name}")
        self.kind = kind
        self.name = name
        self.add_note(hint(name, known))


class UndeclaredHparam(UsageError, KeyError):
    """Code reads a hyper-parameter that no class declares. A `KeyError` since it looks it up in a dict."""


class NameConflict(UsageError):
    """Two plugins, or a plugin and this project, use one name for different things."""


def misspelt(message: str, name: str, known: Iterable[str], synonym: str | None = None) -> UsageError:
    """A `UsageError` with `message` and a note that suggests names from `known` similar to `name`.

    Args:
        message: what is wrong.
        name: the unknown name.
        known: all names.
        synonym: what others call by the name, which the note suggests in place of similar names.
    """
    error = UsageError(message)
    error.add_note(hint(name, known) if synonym is None else f"Did you mean {synonym}?")
    return error


def check_choice(sentence: str, value: object, allowed: Iterable[str]) -> None:
    """Check that `value` is one of `allowed`.

    Raises: UsageError "<sentence> one of <allowed>, not <value>".
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise UsageError(f"{sentence} one of {', '.join(allowed)}, not {value!r}")


def hint(name: str, known: Iterable[str]) -> str:
    """Suggestion of up to three names similar to `name`, or a list of all names if none is similar."""
    known = list(known)
    near = nearest(name, known)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(known) or 'none'}."


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names similar to `name`, the most similar first."""
    spelling = {each.lower(): each for each in known}
    return [spelling[each] for each in difflib.get_close_matches(name.lower(), spelling, n=3, cutoff=0.55)]


def run_script(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> None:
    """Call `main(argv)` and exit with the status it returns.

    A `DomainBedError` is printed to stderr in one line and sets the exit status. Ctrl-C exits with 130.
    Control characters in what is printed reach neither a terminal nor stderr (see `escaped_output`).

    Args:
        main: a script's main function.
        argv: its arguments; None: those of the process.
    """
    with escaped_output():
        status = _status(main, argv)
    sys.exit(status)


def _status(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None) -> int:
    try:
        return main(argv) or 0
    except DomainBedError as error:
        print(describe(error), file=sys.stderr)  # noqa: T201 - the one place where a script's error is shown
        return error.exit_status
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "Interrupted.", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed the pipe. Closing stderr keeps Python from
        # printing a second error when it flushes stdout.
        sys.stderr.close()
        return 141


def describe(error: DomainBedError) -> str:
    """The error and its notes in one line: "error: <message>. <notes>"."""
    notes: list[str] = getattr(error, "__notes__", [])
    return visible(" ".join([f"error: {error}".rstrip(".") + ".", *notes]))
