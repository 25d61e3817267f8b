"""A wheel with the native library is for one platform; every other wheel is pure Python.

All else is in pyproject.toml. `python dev.py native` builds the library.
"""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

FOLDER = Path(__file__).resolve().parent / "runtime" / "native" / "lib"


class WithLibrary(Distribution):
    """Code of the machine is in it where there is a library."""

    def has_ext_modules(self) -> bool:
        """Asked by setuptools."""
        return FOLDER.is_dir() and any(FOLDER.iterdir())


class PlatformWheel(bdist_wheel):
    """Names the platform, and no version of Python: the library does not link to it."""

    def get_tag(self) -> tuple[str, str, str]:
        """Asked by setuptools."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(distclass=WithLibrary, cmdclass={"bdist_wheel": PlatformWheel})
