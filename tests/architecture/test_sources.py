"""Rules that no linter knows, held for every source file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, files, python_files, text_of

LONGEST_FILE = 500
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

# Spelled apart, so that this file does not trip over itself.
UNFINISHED = re.compile(
    r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b"
    r"|" + "NotImplemented" + r"Error|not yet " + r"implemented",
)
FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:wo" + r"rk|fa" + r"rm)/\w",
            r"(?<![\w.])/(?:ro" + r"ot|ho" + r"me)/(?!\.\.\.)\w+/",
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"deb\.debian" + r"\.org",
            r"npm" + r"js\.org",
        ]
    )
)

# Calls that stop the event loop, and where one stands in a worker thread or before Trio runs.
BLOCKING = {
    "time.sleep",
    "os.system",
    "os.popen",
    "subprocess.run",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
    "subprocess.Popen",
    "socket.create_connection",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.getfqdn",
    "urllib.request.urlopen",
    "requests.get",
    "requests.post",
    "input",
    "asyncio.run",
}
IN_A_WORKER = "runs in a worker thread, as its caller's docstring says"
NUMERIC = "the host is a number, so no name server is asked"
ALLOWED_BLOCKING = {
    ("novacron/environment/ports.py", "socket.getaddrinfo"): IN_A_WORKER,
    ("novacron/database/connection.py", "time.sleep"): IN_A_WORKER,
    ("novacron/database/copies/sqlite_tables.py", "time.sleep"): "a command has no event loop",
    ("novacron/database/opening.py", "time.sleep"): IN_A_WORKER,
    ("novacron/database/postgresql_migrate.py", "time.sleep"): IN_A_WORKER,
    ("novacron/security/filelock.py", "time.sleep"): IN_A_WORKER,
    ("novacron/security/key_module.py", "subprocess.Popen"): IN_A_WORKER,
    ("novacron/security/key_module.py", "time.sleep"): IN_A_WORKER,
    ("novacron/network/tcp_tls.py", "socket.getaddrinfo"): NUMERIC,
    ("novacron/cli/watching.py", "time.sleep"): "a command has no event loop",
    (
        "novacron/trust/authority_client.py",
        "socket.create_connection",
    ): "a command has no event loop",
    ("novacron/cli/rotation.py", "time.sleep"): "a command has no event loop",
    ("novacron/cli/mode.py", "time.sleep"): "a command has no event loop",
}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Local name to what it stands for, for ``import a as b`` and ``from a import b``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def blocking_calls(source: str) -> list[tuple[int, str]]:
    """Line and dotted name of each call in *source* that would stop the event loop."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = _dotted(node.func).partition(".")
            name = names.get(head, head) + (f".{rest}" if rest else "")
            if name in BLOCKING:
                found.append((node.lineno, name))
    return found


def test_a_blocking_call_is_seen_under_any_name() -> None:
    source = "import time as t\nfrom subprocess import run as go\nt.sleep(1)\ngo([])\ntrio.sleep(1)"
    assert blocking_calls(source) == [(3, "time.sleep"), (4, "subprocess.run")]


def test_nothing_in_the_node_stops_the_event_loop() -> None:
    found = {
        (str(path), name): line
        for path in python_files("novacron")
        for line, name in blocking_calls((ROOT / path).read_text())
    }
    unexplained = {where: line for where, line in found.items() if where not in ALLOWED_BLOCKING}
    assert not unexplained
    assert not set(ALLOWED_BLOCKING) - set(found), "an exception nobody needs any more"


@pytest.mark.parametrize("folder", ["novacron", "tests", "bench", "native", "docs"])
def test_no_source_file_is_too_long_to_read(folder: str) -> None:
    too_long = {
        str(path): lines
        for path in files()
        if path.parts[0] == folder and path.suffix in {".py", ".c", ".h"}
        if (lines := len((ROOT / path).read_text().splitlines())) > LONGEST_FILE
    }
    assert not too_long


def test_modules_are_named_after_what_they_hold() -> None:
    assert not [
        str(path)
        for path in python_files()
        if FORBIDDEN_NAMES & {path.stem, *path.parent.parts, *path.stem.split("_")}
    ]


def _lines_matching(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in paths
        if (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_unfinished() -> None:
    written_here = [path for path in files() if path.suffix != ".lock"]
    assert not _lines_matching(UNFINISHED, written_here)


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    assert not _lines_matching(FOREIGN, list(files()))


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("see " + "/wo" + "rk/main/x", True),
        ("open('/ho" + "me/somebody/x')", True),
        ("under /var/lib/novacron", False),
        ("https://docs.python.org/3/library/ssl.html", False),
        ("the docs/home/page", False),
    ],
)
def test_machine_paths_are_told_from_others(line: str, caught: bool) -> None:
    assert bool(FOREIGN.search(line)) is caught


def test_only_the_native_package_imports_the_compiled_module() -> None:
    importers = set()
    for path in python_files("novacron"):
        if path.parent == Path("novacron/_native"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = {module, *(f"{module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            if any(name.startswith("novacron._native._nc") for name in names):
                importers.add(str(path))
    assert not importers


def test_every_test_directory_mirrors_something() -> None:
    packages = {path.parts[1] for path in files() if path.parts[0] == "novacron"}
    packages |= {Path(name).stem for name in packages}
    others = {
        "architecture",
        "contracts",
        "integration",
        "chaos",
        "lab",
        "packaging",
        "bench",
        "native",
        "configs",
        "vectors",
    }
    folders = {
        path.parts[1] for path in files() if path.parts[0] == "tests" and len(path.parts) > 2
    }
    assert folders <= packages | others
