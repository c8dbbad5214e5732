from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from novacron._native import ffi
from novacron._native.ffi import CLASSES, NativeFailureError, NativeUnavailableError, native
from novacron.errors import NativeError, UnavailableError


def test_a_missing_module_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffi, "_native", None)
    monkeypatch.setattr(ffi, "MODULE", "novacron._native._never_built")
    with pytest.raises(NativeUnavailableError) as caught:
        native()
    assert isinstance(caught.value, NativeError)
    assert isinstance(caught.value, UnavailableError)
    assert "novacron._native._nc" in caught.value.what
    assert "_never_built" in caught.value.why
    assert "make install" in caught.value.remedy


def test_a_module_built_from_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("other")
    other.lib = SimpleNamespace(nc_abi=lambda: 99)  # type: ignore[attr-defined]
    monkeypatch.setattr(ffi, "_native", None)
    monkeypatch.setitem(sys.modules, ffi.MODULE, other)
    with pytest.raises(NativeUnavailableError, match=r"built from other sources \(interface 99"):
        native()


def test_a_module_that_is_not_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("other")
    other.lib = SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setattr(ffi, "_native", None)
    monkeypatch.setitem(sys.modules, ffi.MODULE, other)
    with pytest.raises(NativeUnavailableError, match="interface None"):
        native()


def test_a_truncated_module_is_refused_and_not_a_crash(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # In another process: the interpreter keeps what it once loaded.
    directory = tmp_path_factory.mktemp("broken")
    (directory / "broken_nc.abi3.so").write_bytes(b"\x7fELF" + bytes(60))
    text = (
        "from novacron._native import ffi\n"
        "ffi.MODULE = 'broken_nc'\n"
        "try:\n ffi.native()\n"
        "except ffi.NativeUnavailableError as exc:\n print(exc.code, exc.why)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(directory)!r})\n{text}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert answer.stdout.startswith("native.unavailable ")
    assert "broken_nc.abi3.so" in answer.stdout


def test_importing_the_wrappers_does_not_load_the_compiled_module() -> None:
    text = (
        "import sys; import novacron._native.tcp, novacron._native.verbs, novacron._native.clock; "
        "print([name for name in sys.modules if name.endswith('_nc') or 'cffi' in name])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_code_becomes_its_class_with_reason_and_errno(name: str) -> None:
    loaded = native()
    numbers = {
        loaded.text(loaded.lib.nc_err_name(code)): code for code in range(loaded.lib.nc_err_count())
    }
    error = loaded.new_error()
    error.reason = b"the reason"
    error.os_errno = 13
    with pytest.raises(CLASSES[name]) as caught:
        loaded.check(numbers[name], error, "the thing")
    assert caught.value.what == "the thing"
    assert caught.value.why == "the reason (Permission denied, errno 13)"


def test_success_raises_nothing_and_an_unknown_code_is_a_failure() -> None:
    loaded = native()
    loaded.check(0, loaded.new_error(), "fine")
    with pytest.raises(NativeFailureError, match="odd: unknown error"):
        loaded.check(10_000, loaded.new_error(), "odd")


def test_the_codes_of_all_classes_differ() -> None:
    assert len({kind.code for kind in CLASSES.values()}) == len(CLASSES)
