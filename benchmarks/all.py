"""Run all benchmarks, one after the other, and write what they print to docs/performance.md.

    python benchmarks/all.py [--device cpu] [scripts, to measure these again and keep the other sections]

Takes half an hour on two cores, on which nothing else should run.
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
    "step_time": "What a step costs",
    "surgery_kernel": "The consensus of signs against a copy",
    "peak_memory": "Memory",
    "scaling": "Number of environments",
    "loader": "Images per second",
    "evaluation": "Evaluation",
    "run_overhead": "Starting runs",
    "collect": "Collecting results",
    "similarity": "Similarity of gradients",
}
ON_DEVICE = ("step_time", "surgery_kernel", "peak_memory", "scaling", "similarity")
HEAD = """# Performance

Each section is what a script of `benchmarks/` printed; its first lines say what is compared, with which goal.
What is compared ran in turns in one process (or in processes in turns); a ratio is the median over rounds.
A figure that misses its goal stands as it was measured.
All of it again: `python benchmarks/all.py`.

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
        # After each, so that no figures are lost to another script's error.
        text = "\n".join(sections[title] for title in SCRIPTS.values() if title in sections)
        args.output.write_text(HEAD + "\n".join(lines) + "\n\n" + text, encoding="utf-8")


def kept(path):
    """Title and text of each section that was measured before."""
    for section in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        yield section.splitlines()[0].removeprefix("## "), section.rstrip() + "\n"


if __name__ == "__main__":
    main()
