"""What pyproject.toml cannot say: the sweep files, which lie beside the packages, are installed in one."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSweeps(build_py):
    """Copies sweeps/*.toml to domainbed/sweeps, where `--config NAME` finds them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a checkout needs no copy
            folder = str(Path(self.build_lib) / "domainbed" / "sweeps")
            self.mkpath(folder)
            for path in sorted(Path("sweeps").glob("*.toml")):
                self.copy_file(str(path), folder)


setup(cmdclass={"build_py": BuildWithSweeps})
