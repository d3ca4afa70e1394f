"""Image files that benchmarks read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png")


def pictures_in(folder: Path, count: int) -> list[str]:
    """Paths of at most `count` images in `folder` and below, drawn at random; prints what was drawn."""
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:count]]
    kinds = sorted(Counter(Path(path).suffix for path in chosen).items())
    described = ", ".join(f"{number} {kind}" for kind, number in kinds)
    print(f"- images: {len(chosen)} of the {len(paths):,} in {folder.name} ({described})")
    return chosen
