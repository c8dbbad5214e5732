"""A hardware module that works, and everything that can be wrong with one."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.config.schema import SecuritySettings, Settings
from novacron.data_directory import DataDirectory
from novacron.errors import NovaCronError
from novacron.log.redaction import mask
from novacron.security import key_module
from novacron.security.errors import (
    KeyModuleAwayError,
    KeyModuleError,
    SecretReferenceError,
)
from novacron.trust.founding import found
from tests.leaks import leak_check
from tests.security.modules import Bench, bench


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def failure(scene: Bench, reference: str | None = None) -> NovaCronError:
    """What sealing something runs into; with everything an operator needs, and without the PIN."""
    with pytest.raises(NovaCronError) as caught:
        scene.key(reference).encrypt(b"secret-to-seal", "c")
    error = caught.value
    assert error.why
    assert error.remedy
    assert error.key.startswith("security.")
    assert scene.hsm.pin not in str(error)
    assert "secret-to-seal" not in str(error)
    return error


def test_the_key_cannot_leave_the_module(scene: Bench) -> None:
    found = scene.key().describe()
    assert (found["token"], found["bits"]) == ("novacron", 256)
    assert found["sensitive"]
    assert not found["extractable"]
    assert found["never_extractable"]
    assert found["made_inside"]


def test_what_is_sealed_is_bound_to_its_context(scene: Bench) -> None:
    sealed = scene.key().encrypt(b"payload", "one")
    assert scene.key().decrypt([sealed], "one") == [b"payload"]
    assert scene.key().decrypt([sealed], "another") == [None]
    assert b"payload" not in sealed


def test_a_key_is_found_by_its_id_and_by_its_serial_number_alone(scene: Bench) -> None:
    about = scene.key().describe()
    made = scene.key("pkcs11:object=other;id=%01%02").generate()
    assert base64.b64decode(made["id"]) == b"\x01\x02"
    by_id = scene.key(f"pkcs11:serial={about['serial']};id=%01%02")
    sealed = by_id.encrypt(b"x", "c")
    assert scene.key("pkcs11:object=other").decrypt([sealed], "c") == [b"x"]
    assert scene.key().decrypt([sealed], "c") == [None]


def test_a_request_leaves_nothing_behind(scene: Bench) -> None:
    with leak_check():
        scene.key().describe()
        scene.hsm.remove()
        failure(scene)


def test_a_module_that_is_no_module_is_reported(scene: Bench) -> None:
    scene.module = "/nonexistent/module.so"
    error = failure(scene)
    assert isinstance(error, KeyModuleError)
    assert "cannot load the PKCS#11 module /nonexistent/module.so" in error.what
    assert error.key == "security.pkcs11_module"
    scene.module = str(scene.hsm.pin_file)
    assert isinstance(failure(scene), KeyModuleError)
    scene.module = ""
    assert "the module it is in is not configured" in failure(scene).why


def test_a_token_that_is_absent_is_worth_waiting_for_and_says_which_there_are(
    scene: Bench,
) -> None:
    scene.hsm.add("another")
    error = failure(scene, "pkcs11:token=novacrom;object=master")
    assert isinstance(error, KeyModuleAwayError)
    assert "'another'" in error.why
    assert "'novacron'" in error.why
    assert "hsm-away" in error.remedy
    scene.hsm.remove()
    assert "these tokens: none" in failure(scene).why
    scene.hsm.insert()
    assert scene.key().encrypt(b"x", "c")


def test_a_reference_that_fits_two_tokens_or_no_key_or_two_is_told_apart(scene: Bench) -> None:
    scene.hsm.add("another")
    assert "add serial=" in failure(scene, "pkcs11:object=master").remedy
    absent = failure(scene, "pkcs11:token=novacron;object=absent")
    assert "keys init --to" in absent.remedy
    scene.key("pkcs11:token=novacron;object=twin;id=%01").generate()
    # The same label under another id is another key for whoever names both.
    with pytest.raises(KeyModuleError, match="refusing to make"):
        scene.key("pkcs11:token=novacron;object=twin").generate()
    scene.key("pkcs11:token=novacron;object=twin;id=%02").generate()
    assert "add id=" in failure(scene, "pkcs11:token=novacron;object=twin").remedy


def test_a_wrong_pin_is_tried_once_and_at_no_later_start(scene: Bench) -> None:
    scene.break_it("none")
    scene.hsm.pin_file.write_text("wrong-pin-of-the-tests")
    assert "refused the PIN" in failure(scene).why
    assert scene.times() == 1
    for _ in range(3):
        error = failure(scene)
        assert "has refused this PIN before" in error.why
        assert "novacron keys status" in error.remedy
    assert scene.times() == 1, "a token counts them"
    assert scene.refusals.stat().st_mode & 0o777 == 0o600
    assert "wrong-pin-of-the-tests" not in scene.refusals.read_text()
    with pytest.raises(KeyModuleError, match="refused the PIN"):
        scene.key(insist=True).describe()
    assert scene.times() == 2, "a person asked for it"
    scene.hsm.pin_file.write_text(scene.hsm.pin)
    assert scene.key().encrypt(b"x", "c")
    assert not scene.refusals.exists()


def test_what_one_token_has_refused_another_does_not_make_good(scene: Bench) -> None:
    # As while the master key goes from one token to another, with a slip in the other's PIN: the
    # node goes on asking the one, and tries the other at each of its looks.
    wrong = scene.root / "wrong-pin"
    wrong.touch(0o600)
    wrong.write_text("wrong-pin-of-the-tests")
    scene.hsm.add("other")
    other = f"pkcs11:token=other;object=master?pin-source=file:{wrong}"
    scene.break_it("none")
    assert "refused the PIN" in failure(scene, other).why
    assert scene.times() == 1
    for _ in range(2):
        assert scene.key().encrypt(b"x", "c")
        assert "has refused this PIN before" in failure(scene, other).why
    assert scene.times() == 3, "twice by the token in use, which takes its PIN"
    # Both may have refused one, and each is forgiven on its own.
    right = scene.hsm.pin_file.read_text()
    scene.hsm.pin_file.write_text("wrong-pin-of-the-tests")
    assert "refused the PIN" in failure(scene).why
    scene.hsm.pin_file.write_text(right)
    assert scene.key().encrypt(b"x", "c")
    assert "has refused this PIN before" in failure(scene, other).why


def test_a_missing_pin_is_reported(scene: Bench) -> None:
    scene.pin = f"file:{scene.root / 'nowhere'}"
    assert isinstance(failure(scene), SecretReferenceError)
    scene.hsm.pin_file.chmod(0o644)
    scene.pin = f"file:{scene.hsm.pin_file}"
    assert "chmod 600" in failure(scene).remedy
    scene.hsm.pin_file.chmod(0o600)
    scene.hsm.pin_file.write_bytes(b"\xff\xfe pin")
    assert "it is not text" in failure(scene).why


def test_without_a_configured_pin_the_key_to_set_is_named(scene: Bench) -> None:
    options = scene.options()
    options.pin = None
    key = key_module.KeyModule(scene.key().uri, options, scene.environ)
    with pytest.raises(KeyModuleError, match="it wants a PIN, and none is configured") as caught:
        key.describe()
    assert caught.value.key == "security.pkcs11_pin"


@pytest.mark.parametrize(
    ("fault", "why", "tries"),
    [
        ("pin-locked", "its PIN is locked", 0),
        ("pin-final-try", "one more wrong PIN locks it", 0),
        ("pin-locks-now", "its PIN is locked", 1),
        ("pin-expired", "its PIN has expired", 1),
    ],
)
def test_a_pin_that_is_locked_or_nearly_so_is_not_risked(
    scene: Bench, fault: str, why: str, tries: int
) -> None:
    scene.break_it(fault)
    error = failure(scene)
    assert isinstance(error, KeyModuleError)
    assert why in error.why
    assert scene.times() == tries


def test_a_module_without_the_mechanism_is_reported(scene: Bench) -> None:
    scene.break_it("no-gcm")
    error = failure(scene)
    assert isinstance(error, KeyModuleError)
    assert "CKM_AES_GCM" in error.remedy


def test_a_module_that_cannot_start_is_worth_waiting_for(scene: Bench) -> None:
    scene.break_it("initialize-fails")
    error = failure(scene)
    assert isinstance(error, KeyModuleAwayError)
    assert "FunctionFailed" in error.why


@pytest.mark.parametrize("fault", ["hang-in-initialize", "hang-in-encrypt"])
def test_a_module_that_hangs_is_ended_with_its_process(scene: Bench, fault: str) -> None:
    scene.break_it(fault)
    scene.timeout = 0.5
    with leak_check():
        error = failure(scene)
    assert isinstance(error, KeyModuleAwayError)
    assert "did not answer within 0.5 s" in error.why
    assert error.key == "security.pkcs11_timeout"


def test_a_module_that_crashes_takes_nobody_with_it(scene: Bench) -> None:
    scene.break_it("crash-in-encrypt")
    error = failure(scene)
    assert isinstance(error, KeyModuleAwayError)
    assert "status -6" in error.why


def test_hardware_that_was_restarted_meanwhile_is_asked_once_more(scene: Bench) -> None:
    scene.break_it("removed-once")
    assert scene.key().decrypt([scene.key().encrypt(b"x", "c")], "c") == [b"x"]
    scene.break_it("removed")
    error = failure(scene)
    assert isinstance(error, KeyModuleAwayError)
    assert "DeviceRemoved" in error.why


def test_what_a_module_prints_is_no_answer(scene: Bench) -> None:
    scene.break_it("prints")
    assert scene.key().decrypt([scene.key().encrypt(b"x", "c")], "c") == [b"x"]


def test_trouble_of_the_module_is_not_taken_for_a_wrong_key(scene: Bench) -> None:
    sealed = scene.key().encrypt(b"x", "c")
    scene.break_it("seals-wrong")
    # The tag does not fit, and the module does not open what it seals itself either.
    with pytest.raises(KeyModuleAwayError):
        scene.key().decrypt([sealed[:-1] + bytes((sealed[-1] ^ 1,))], "c")
    assert scene.key().decrypt([sealed], "c") == [b"x"]


def test_the_pin_is_masked_in_any_text_and_on_no_command_line(
    scene: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    real = subprocess.Popen

    def watched(*arguments: object, **named: object) -> object:
        started.append((arguments, named.get("env")))
        return real(*arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", watched)
    scene.key().describe()
    assert started
    assert scene.hsm.pin not in repr(started)
    # Nor is it where the module's own crash report would have it.
    scene.environ["NOVACRON_TEST_PIN"], scene.pin = scene.hsm.pin, "env:NOVACRON_TEST_PIN"
    scene.key().describe()
    assert len(started) == 2
    assert scene.hsm.pin not in repr(started)
    assert scene.hsm.pin not in mask(f"somebody logs {scene.hsm.pin}")


def test_a_process_whose_starter_is_gone_ends_by_itself(scene: Bench) -> None:
    scene.break_it("hang-in-initialize")
    program = (
        "import sys, os, json\n"
        "from novacron.security import key_module\n"
        "from tests.security.modules import parse, ModuleOptions\n"
        f"o = ModuleOptions({scene.module!r}, {scene.pin!r}, 1.0)\n"
        "real = key_module.subprocess.Popen\n"
        "def popen(*a, **n):\n"
        "    p = real(*a, **n)\n"
        "    print(p.pid, flush=True)\n"
        "    return p\n"
        "key_module.subprocess.Popen = popen\n"
        f"key_module.KeyModule(parse({scene.hsm.reference!r}), o).describe()\n"
    )
    node = subprocess.Popen(
        [sys.executable, "-c", program], env=scene.environ, stdout=subprocess.PIPE, text=True
    )
    assert node.stdout is not None
    with node:
        child = int(node.stdout.readline())
        # Once it has read the request: it sets its own alarm first thing.
        deadline = time.monotonic() + 30
        while b"module_process" not in _command_line(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        node.send_signal(signal.SIGKILL)
    while _command_line(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _command_line(child)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_two_processes_at_once_are_two_sessions(scene: Bench) -> None:
    import threading

    results: list[bytes | None] = []

    def work() -> None:
        results.extend(scene.key().decrypt([scene.key().encrypt(os.urandom(32), "c")], "c"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(result or b"") for result in results] == [32] * 3


def test_an_authority_is_founded_on_a_key_in_a_module(
    scene: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scene.hsm.environment.items():
        monkeypatch.setenv(name, value)
    security = SecuritySettings(
        master_key=scene.hsm.reference, pkcs11_module=scene.module, pkcs11_pin=scene.pin
    )
    directory = DataDirectory(scene.root / "data")
    assert found(directory, Settings(security=security), "berlin")
    assert (directory.pki / "ca.key").exists()
