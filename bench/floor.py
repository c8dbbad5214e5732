"""The import floor: a process that imports third-party modules and does nothing else.

Run as ``python -m bench.floor FILE``, FILE holding a JSON list of module names. The clock stops
before anything of the measuring itself is imported.
"""

from __future__ import annotations

import gc

# As the node does, and for the same reason.
gc.disable()

import sys  # noqa: E402


def third_party(names: list[str]) -> list[str]:
    """Those of *names* (keys of ``sys.modules``) that are neither the standard library's, nor ours,
    nor the interpreter's or the installer's own doing."""
    ours = {"novacron", "bench", "__main__", "__mp_main__", "_distutils_hack", "cython_runtime"}
    found = []
    for name in names:
        top = name.partition(".")[0]
        if top in ours or top in sys.stdlib_module_names:
            continue
        # An editable installation's finder; Cython's shared types; the build's own constants.
        if top.startswith(("__editable__", "_cython_", "_sysconfigdata_")):
            continue
        found.append(name)
    return found


def main() -> None:
    import json

    with open(sys.argv[1], encoding="utf-8") as file:
        wanted = json.load(file)
    failed = []
    for name in wanted:
        try:
            __import__(name)
        except ImportError:
            failed.append(name)

    import resource
    import time

    ended = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    loaded = third_party(sorted(sys.modules))
    from novacron.boot.process_start import process_start

    print(
        json.dumps(
            {
                "seconds": ended - process_start().monotonic,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "failed": failed,
                "missing": sorted(set(wanted) - set(loaded)),
                "extra": sorted(set(loaded) - set(wanted)),
            }
        )
    )


if __name__ == "__main__":
    main()
