"""Lists of images in formats of other projects: what to do to convert them."""

from __future__ import annotations

import shlex
from pathlib import Path

_READ = "a list is a .csv file with the columns path, label, environment, or a .jsonl file with these keys"


def conversion_hint(path: Path) -> str:
    """One line about a file that is no list that we read, with a command that converts common formats."""
    csv, json_lines = path.with_suffix(".csv"), path.with_suffix(".jsonl")
    match path.suffix.lower():
        case ".txt":
            what = "lines 'path label' of the environment NAME"
            program = 'BEGIN {print "path,label,environment"} {print $1 "," $2 ",NAME"}'
            command = f"awk '{program}' {shlex.quote(str(path))} > {shlex.quote(str(csv))}"
        case ".tsv" | ".tab":
            what = "a table with these columns"
            command = _pandas(f"pd.read_csv({str(path)!r}, sep='\\t').to_csv({str(csv)!r}, index=False)")
        case ".json":
            what = "an array of objects with these keys"
            target = f"{str(json_lines)!r}, orient='records', lines=True"
            command = _pandas(f"pd.read_json({str(path)!r}, dtype=False).to_json({target})")
        case _:
            return f"{path} is neither a folder nor a list of images; {_READ}"
    return f"{path} is not read: {_READ}; convert {what} with: {command}"


def _pandas(code: str) -> str:
    return f"python -c {shlex.quote(f'import pandas as pd; {code}')}"
