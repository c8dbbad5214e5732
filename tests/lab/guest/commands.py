"""Runs the tools of the guest's system, with a deadline and with what they said on failure."""

from __future__ import annotations

import subprocess

COMMAND_SECONDS = 30.0


def run(*command: str, given: str | None = None) -> str:
    """What *command* printed, fed with *given*.

    Raises:
      AssertionError: it failed; the message has its output.
    """
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout
