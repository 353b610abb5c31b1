"""Builds the Cython extensions; everything else about the package stands in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

EXTENSIONS = ["strict", "encode", "direct", "arrival"]

setup(
    ext_modules=cythonize(
        [Extension(f"cython_core.{name}", [f"cython_core/{name}.pyx"], extra_compile_args=["-O3"]) for name in EXTENSIONS],
        compiler_directives={"language_level": "3"},
    )
)
