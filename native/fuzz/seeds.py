"""Makes the inputs fuzz_frame begins with from the test vectors: ``seeds.py FOLDER``.

A fuzzer that begins with nothing has to guess eight bytes at once to come near the largest offset.
Without the vectors (they are not part of a source archive) it begins with nothing.
"""

import itertools
import json
import sys
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "amst"


def cases(*names: str) -> list[dict[str, object]]:
    return [
        case
        for name in names
        if (path := VECTORS / f"{name}.json").exists()
        for case in json.loads(path.read_text())["cases"]
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    acks = itertools.cycle(cases("acks", "invalid_acks"))
    for number, header in enumerate(cases("headers", "invalid_headers")):
        numbers = b"".join(
            int(str(header[name])).to_bytes(4, "big") for name in ("seed", "max_chunk")
        )
        data = numbers + bytes.fromhex(f"{header['bytes']}{next(acks)['bytes']}")
        (folder / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
