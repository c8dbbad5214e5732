"""``python -m tests.chaos.metered_node FILE …``: a node whose event loop is measured into FILE.

The rest of the line is what ``python -m novacron.boot`` takes, and what runs is what that runs.
"""

from __future__ import annotations

import functools
import signal
import sys
from pathlib import Path

import trio

from novacron.boot.__main__ import leave, main
from tests.chaos.meter import Instrument

trio.run = functools.partial(trio.run, instruments=[Instrument(Path(sys.argv[1]))])
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(main(sys.argv[2:]))
