"""Run all benchmarks one after the other, and write their output to docs/performance.md.

    python benchmarks/all.py [--device cpu] [scripts to run again; the other sections are kept]

Takes half an hour on two cores. Nothing else should run meanwhile.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from timing import environment
from tqdm import tqdm

HERE = Path(__file__).parent
SCRIPTS = {
    "step_time": "Time of a step",
    "method_cost": "Time of a step of further methods",
    "surgery_kernel": "Agr-Sum's rule against a copy",
    "peak_memory": "Memory",
    "scaling": "Number of environments",
    "loader": "Images per second",
    "image_cache": "Cache of decoded images",
    "evaluation": "Evaluation",
    "frozen": "Frozen stages",
    "run_overhead": "Overhead of runs",
    "collect": "Collecting results",
    "sweep_scale": "Sweeps of many runs",
    "similarity": "Similarity of gradients",
    "sharpness": "Memory of sharpness",
}
ON_DEVICE = (
    "step_time",
    "method_cost",
    "surgery_kernel",
    "peak_memory",
    "scaling",
    "frozen",
    "similarity",
    "sharpness",
)
HEAD = """# Performance

Each section is the output of a script in `benchmarks/`; its first lines say what is compared, and the goal.
The compared functions ran in turns, in one process or in one process each; a ratio is the median over rounds.
A number that misses its goal is shown as measured. To measure everything again: `python benchmarks/all.py`.

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", metavar="script", help=f"some of {', '.join(SCRIPTS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "performance.md")
    args = parser.parse_args()
    described = environment()
    lines = [f"- {name}: {value}" for name, value in described.items()]
    sections = dict(kept(args.output)) if args.scripts else {}
    for script in tqdm(args.scripts or SCRIPTS):
        path = HERE / f"{script}.py"
        flags = ["--device", args.device] if script in ON_DEVICE else []
        done = subprocess.run(
            [sys.executable, str(path), *flags], stdout=subprocess.PIPE, text=True, check=True
        )
        printed = [line.replace("###", "####") for line in done.stdout.splitlines() if line not in lines]
        about = path.read_text(encoding="utf-8").split('"""')[1].strip()
        title = SCRIPTS[script]
        sections[title] = f"## {title}\n\n```text\n{about}\n```\n" + "\n".join(printed).rstrip() + "\n"
        # After each script, so that an error in a later one loses nothing.
        text = "\n".join(sections[title] for title in SCRIPTS.values() if title in sections)
        args.output.write_text(HEAD + "\n".join(lines) + "\n\n" + text, encoding="utf-8")


def kept(path):
    """Title and text of each section that was measured before."""
    for section in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        yield section.splitlines()[0].removeprefix("## "), section.rstrip() + "\n"


if __name__ == "__main__":
    main()
