"""Builds the C extension; everything else stands in pyproject.toml."""

from setuptools import setup

# The extension keeps to Python's stable ABI: one wheel serves 3.11 and everything after it.
setup(
    cffi_modules=["native/build_ffi.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
