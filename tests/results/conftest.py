"""A synthetic sweep with the structure of upstream's test sweep."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

STEPS = (0, 300, 600, 900, 1000)
ENVIRONMENTS = 4
TARGETS = [(i,) for i in range(ENVIRONMENTS)] + [
    (i, j) for i in range(ENVIRONMENTS) for j in range(i + 1, ENVIRONMENTS)
]

Key = tuple[int, tuple[int, ...], int]
"""Trial seed, target environments, hparams seed."""

METHODS = {
    "iid": "training-domain validation set",
    "loo": "leave-one-domain-out cross-validation",
    "oracle": "test-domain validation set (oracle)",
}

ABOUT = {
    "iid": "Selected by the best mean validation accuracy of the sources (out-splits) over all steps; "
    "reported: the accuracy on the target's in-split at that step",
    "loo": "Selected by the best mean accuracy over all steps on each source when it is held out as well; "
    "reported: the accuracy on the target's in-split at that step",
    "oracle": "Selected by the accuracy on the target's own out-split at the last step; reported: the "
    "accuracy on the target's in-split at that step",
}


LATEX_HEAD = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{adjustbox}
\begin{document}
\section{Full DomainBed results}
"""

LATEX_METHOD = r"""
\subsection{Model selection: NAME}

\subsubsection{VLCS}

\begin{center}
\adjustbox{max width=\textwidth}{%
\begin{tabular}{lccccc}
\toprule
HEADER \\
\midrule
ROW \\
\bottomrule
\end{tabular}}
\end{center}

\noindent{\footnotesize FIRST}

\subsubsection{Averages}

\begin{center}
\adjustbox{max width=\textwidth}{%
\begin{tabular}{lcc}
\toprule
LABELS \\
\midrule
AVERAGES \\
\bottomrule
\end{tabular}}
\end{center}

\noindent{\footnotesize SECOND}
"""


@dataclass
class SyntheticSweep:
    """One algorithm on one dataset: 2 trials x 10 sets of targets x 2 hparams seeds.

    `runs[key]` has shape (2, steps, environments): accuracies on in-splits and out-splits. `evaluate` is the
    flag of `train`.
    """

    dataset: str = "VLCS"
    algorithm: str = "ERM"
    evaluate: str = "all"
    runs: dict[Key, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.RandomState(20260000)
        for trial in range(2):
            for targets in TARGETS:
                for seed in range(2):
                    # Multiples of 0.25 %, so that steps and seeds tie.
                    self.runs[trial, targets, seed] = (
                        random.randint(200, 400, (2, len(STEPS), ENVIRONMENTS)) / 400
                    )

    def drop(self, *keys: Key) -> None:
        for key in keys:
            del self.runs[key]

    def drop_some(self) -> None:
        """Drop target 1, trial 1 of target 2, pair (0, 3) in trial 1, and one hparams seed of target 0."""
        self.drop(*[(trial, (1,), seed) for trial in (0, 1) for seed in (0, 1)])
        self.drop((1, (2,), 0), (1, (2,), 1), (1, (0, 3), 0), (1, (0, 3), 1), (0, (0,), 1))

    def records(self, key: Key, output_dir: str) -> list[dict[str, object]]:
        trial, targets, seed = key
        args = {
            "algorithm": self.algorithm,
            "checkpoint_freq": None,
            "data_dir": "/data",
            "dataset": self.dataset,
            "holdout_fraction": 0.2,
            "hparams": None,
            "hparams_seed": seed,
            "output_dir": output_dir,
            "save_model_every_checkpoint": False,
            "seed": 0,
            "skip_model_save": False,
            "steps": 1001,
            "task": "domain_generalization",
            "test_envs": list(targets),
            "trial_seed": trial,
            "uda_holdout_fraction": 0,
        }
        hparams = {"lr": [5e-05, 0.0001][seed], "batch_size": [32, 17][seed], "resnet18": False}
        inside = range(ENVIRONMENTS) if self.evaluate == "all" else targets
        return [
            {
                "args": args,
                "hparams": hparams,
                "step": step,
                "epoch": step / 40,
                "step_time": 0.1,
                "loss": 0.5,
            }
            | {f"env{i}_in_acc": float(self.runs[key][0, s, i]) for i in inside}
            | {f"env{i}_out_acc": float(self.runs[key][1, s, i]) for i in range(ENVIRONMENTS)}
            for s, step in enumerate(STEPS)
        ]

    def folder(self, key: Key) -> str:
        """Name of the run's folder: a hash, as in a real sweep, so that folders sort at random."""
        return hashlib.md5(repr((self.dataset, self.algorithm, key)).encode()).hexdigest()

    def write(self, root: Path) -> Path:
        for key in self.runs:
            run = root / self.folder(key)
            run.mkdir(parents=True)
            lines = [
                json.dumps(record, sort_keys=True) + "\n" for record in self.records(key, f"sweep/{run.name}")
            ]
            (run / "results.jsonl").write_text("".join(lines))
            (run / "done").write_text("done")
        return root

    # The expected tables, computed from the arrays without the code under test.

    def chosen(self, trial: int, target: int, method: str) -> float | None:
        """Accuracy of the better hparams seed, the larger seed of equals; None without a usable run."""
        best = None
        for seed in (0, 1):
            run = self.runs.get((trial, (target,), seed))
            if run is None:
                continue
            inside, outside = run
            sources = [e for e in range(ENVIRONMENTS) if e != target]
            if method == "iid":
                val = np.mean(outside[:, sources], axis=1)
            elif method == "oracle":
                val = np.full(len(STEPS), -1.0)
                val[-1] = outside[-1, target]
            else:
                pairs = [self.runs.get((trial, tuple(sorted((target, v))), seed)) for v in sources]
                if any(pair is None for pair in pairs):
                    continue
                val = sum(pair[0][:, v] for pair, v in zip(pairs, sources, strict=True)) / 3
            step = int(np.argmax(val))
            if best is None or val[step] >= best[0]:
                best = (val[step], inside[step, target])
        return None if best is None else best[1]

    def trials(self, method: str) -> list[list[float | None]]:
        """Accuracies of the targets in each trial that has some."""
        table = [[self.chosen(trial, target, method) for target in range(ENVIRONMENTS)] for trial in (0, 1)]
        return [trial for trial in table if any(acc is not None for acc in trial)]

    def complete_trials(self, method: str) -> list[list[float | None]]:
        """Those of the trials with every target that some trial has."""
        table = self.trials(method)
        wanted = [any(trial[i] is not None for trial in table) for i in range(ENVIRONMENTS)]
        return [t for t in table if all(acc is not None or not w for acc, w in zip(t, wanted, strict=True))]

    def expected_cells(
        self, method: str, sign: str = "+/-", upstream: bool = True
    ) -> tuple[list[str], list[str]]:
        """Cells of a row in the dataset's table, and of a row in the table of averages, without marks.

        The averages are upstream's, of every trial over its targets, or else those of complete trials.
        """
        table, complete = self.trials(method), self.complete_trials(method)
        cells = [_cell([trial[target] for trial in table], sign) for target in range(ENVIRONMENTS)]
        means = [mean for _, mean in cells]
        row = [text for text, _ in cells] + ["X" if None in means else f"{np.mean(means):.1f}"]
        averaged = table if upstream else complete
        per_trial = [np.mean([acc for acc in trial if acc is not None]) for trial in averaged]
        average, mean = _cell(per_trial, sign)
        if not upstream and len(complete) < len(table):
            average += f" ({len(complete)} of {len(table)} trials)"
        return row, [average, "X" if mean is None else f"{mean:.1f}"]

    def footer(self, method: str, averages: bool, sign: str = "+/-") -> str:
        """The footer of the dataset's table, or of the table of averages."""
        averaged = ", averaged over the targets in each trial" if averages else ""
        return f"{ABOUT[method]} in %{averaged}, mean {sign} standard error over trials (ddof=0)."

    def incomplete(self, method: str, upstream: bool = True, sign: str = "+/-") -> str:
        """The sentence on trials that lack targets which another trial has; empty if there are none."""
        table, complete = self.trials(method), self.complete_trials(method)
        lacking = [
            f"{name} (trial {trial})"
            for i, name in enumerate("CLSV")
            for trial, accs in enumerate(table)
            if accs[i] is None and any(each[i] is not None for each in table)
        ]
        if not lacking:
            return ""
        over = "over the targets that each trial has"
        over = over if upstream else "over the trials that have all targets of the table"
        mean, _ = _cell([np.mean([acc for acc in trial if acc is not None]) for trial in complete], sign)
        counted = f"{len(complete)} of {len(table)} trials complete: {mean}"
        return f"Averages {over}. ERM on VLCS lacks {', '.join(lacking)}; {counted}."

    def absent(self, method: str) -> str:
        """The sentence on targets that no trial has; empty if there are none."""
        table = self.trials(method)
        names = [name for i, name in enumerate("CLSV") if all(trial[i] is None for trial in table)]
        listed = f"VLCS without {', '.join(names)}"
        return f"Averaged over the targets with results of some algorithm: {listed}." if names else ""

    def expected_text(self) -> str:
        lines = [f"Total records: {5 * len(self.runs)}"]
        for short, name in METHODS.items():
            row, averages = self.expected_cells(short)
            lines += [
                "",
                f"-------- Dataset: VLCS, model selection method: {name}",
                _pad(["Algorithm", "C", "L", "S", "V", "Avg"], 20) + " ",
                _pad(["ERM", *row], 20) + " ",
                "",
                f"-------- Averages, model selection method: {name}",
                _pad(["Algorithm", "VLCS", "Avg"], 25) + " ",
            ]
            incomplete = self.incomplete(short)
            averages = [f"{average}*" if incomplete else average for average in averages]
            lines.append(_pad(["ERM", *averages], 25) + " ")
            if incomplete:
                lines += textwrap.wrap(f"* {incomplete}", 118, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines) + "\n"

    def expected_latex(self) -> str:
        text = LATEX_HEAD + f"% Total records: {5 * len(self.runs)}\n"
        for short, name in METHODS.items():
            row, averages = self.expected_cells(short, r"$\pm$", upstream=False)
            header = [rf"\textbf{{{label}}}" for label in ("Algorithm", "C", "L", "S", "V", "Avg")]
            part = LATEX_METHOD.replace("NAME", name).replace("HEADER", _pad(header, 20, " & "))
            part = part.replace("ROW", _pad(["ERM", *row], 20, " & "))
            for place, second in (("FIRST", False), ("SECOND", True)):
                sentence = self.footer(short, second, r"$\pm$").replace("%", r"\%")
                part = part.replace(place, sentence)
            missing = [self.incomplete(short, False, r"$\pm$"), self.absent(short)]
            for sentence in filter(None, missing):
                part += f"\n\\noindent{{\\footnotesize \\textdagger{{}} {sentence}}}\n"
            if any(missing):
                averages = [f"{average}$^\\dag$" for average in averages]
            width = max(25, *map(len, averages))
            labels = [rf"\textbf{{{label}}}" for label in ("Algorithm", "VLCS", "Avg")]
            part = part.replace("LABELS", _pad(labels, width, " & "))
            text += part.replace("AVERAGES", _pad(["ERM", *averages], width, " & "))
        return text + "\\end{document}\n"


def _cell(values: list[float | None], sign: str) -> tuple[str, float | None]:
    found = np.array([value for value in values if value is not None])
    if not len(found):
        return "X", None
    mean = 100 * found.mean()
    return f"{mean:.1f} {sign} {100 * found.std() / len(found) ** 0.5:.1f}", mean


def _pad(cells: list[str], width: int, sep: str = "  ") -> str:
    return sep.join(text + " " * (width - len(text)) for text in cells)


@pytest.fixture
def vlcs() -> SyntheticSweep:
    return SyntheticSweep()


@pytest.fixture(scope="session")
def synthetic() -> type[SyntheticSweep]:
    return SyntheticSweep
