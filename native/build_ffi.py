"""Builds ``novacron._native._nc``, the C extension, with cffi in API mode.

The declarations of ``cdef/`` are checked against the headers of ``include/`` by the compiler, so a
prototype that drifts fails the build. Imports nothing of the package: setuptools runs this file
before the package can be imported.
"""

from pathlib import Path

from cffi import FFI

MODULES = (
    *("err", "clock", "tcp", "verbs", "rdma", "crc", "crypto"),
    *("codec", "delta", "zero", "cdc", "frame", "amst"),
)
"""In the order their declarations depend on each other."""

FLAGS = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wundef",
    "-Wvla",
    "-Wstrict-prototypes",
    "-Werror",
    # PyInit__nc stays the only export: a second copy of our symbols in the process cannot clash.
    "-fvisibility=hidden",
]

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
for module in MODULES:
    ffibuilder.cdef((HERE / "cdef" / f"{module}.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "novacron._native._nc",
    "".join(f'#include "nc_{module}.h"\n' for module in MODULES),
    # Relative, because setuptools refuses absolute sources when it makes a wheel.
    sources=sorted(f"native/src/{path.name}" for path in (HERE / "src").glob("nc_*.c")),
    include_dirs=["native/include"],
    depends=sorted(
        f"native/{path.relative_to(HERE)}"
        for path in [*HERE.glob("include/*.h"), *HERE.glob("src/*.h"), *HERE.glob("cdef/*.h")]
    ),
    # dlopen lives in libdl before glibc 2.34; with newer ones the flag is a no-op.
    libraries=["dl"],
    extra_compile_args=FLAGS,
    extra_link_args=["-Wl,-z,now", "-Wl,-z,relro", "-Wl,--as-needed"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
