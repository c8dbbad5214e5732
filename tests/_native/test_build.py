"""What the compiled module must be, whatever it does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from novacron._native import _nc
from novacron._native.ffi import ABI, CLASSES, native


def symbols(*options: str) -> list[str]:
    text = subprocess.run(
        ["nm", "-D", *options, _nc.__file__], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return [line.split()[-1] for line in text.splitlines()]


@pytest.mark.parametrize(
    ("library", "prefixes"),
    [
        ("libibverbs", ("ibv_",)),
        ("libzstd", ("ZSTD_",)),
        ("liblz4", ("LZ4_",)),
        ("libcrypto", ("EVP_", "HMAC", "ERR_", "OPENSSL_", "OpenSSL_", "CRYPTO_")),
    ],
)
def test_no_symbol_has_to_be_there_when_the_module_loads_of(
    library: str, prefixes: tuple[str, ...]
) -> None:
    undefined = symbols("--undefined-only")
    assert "dlopen" in {name.partition("@")[0] for name in undefined}
    assert not [name for name in undefined if name.startswith(prefixes)]


def test_the_module_exports_nothing_but_its_init_function() -> None:
    assert symbols("--defined-only", "--extern-only") == ["PyInit__nc"]


def test_the_module_keeps_to_the_stable_abi_of_python() -> None:
    assert _nc.__file__.endswith(".abi3.so")


def test_the_module_needs_no_library_of_rdma_cryptography_or_compression() -> None:
    text = subprocess.run(
        ["readelf", "-d", _nc.__file__], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    assert needed
    assert not [name for name in needed if re.search("ibverbs|rdma|crypto|ssl|zstd|lz4", name)]


def declared_structs() -> list[str]:
    declarations = (Path(__file__).parents[2] / "native" / "cdef").glob("*.h")
    return sorted(
        name
        for path in declarations
        for name in re.findall(r"^struct (nc_\w+) \{", path.read_text(), re.MULTILINE)
    )


def test_structs_are_declared() -> None:
    assert len(declared_structs()) >= 4


@pytest.mark.parametrize("name", declared_structs())
def test_the_compiler_and_the_declaration_agree_on_each_field_of(name: str) -> None:
    # cffi compares the layouts when a struct is first used, not when the module is built.
    ffi = native().ffi
    value = ffi.new(f"struct {name} *")
    fields = ffi.typeof(f"struct {name}").fields
    assert fields
    for field, _ in fields:
        assert getattr(value, field) is not None


def test_every_error_code_of_the_table_has_a_class() -> None:
    loaded = native()
    names = {loaded.text(loaded.lib.nc_err_name(code)) for code in range(loaded.lib.nc_err_count())}
    assert names == {"OK", *CLASSES}


def test_the_interface_number_is_the_same_on_both_sides(repository: Path) -> None:
    header = (repository / "native" / "include" / "nc_err.h").read_text()
    assert f"#define NC_ABI {ABI}\n" in header
    assert native().lib.nc_abi() == ABI
