"""A reader that does what a file tells it to, as one does that a hostile file has taken over. Runs as the readers' process."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = """
import sys
sys.path[:] = {path!r}
import ctypes, os, socket, subprocess, time
import ingest.readers.read as reading
from ingest.isolation import worker

honest = reading.read

def poisoned(name, data):
    order, _, argument = data.decode().strip().partition(" ")
    if order == "loop":
        while True: pass
    if order == "sleep":
        time.sleep(1000)
    if order == "bomb":
        kept = []
        while True: kept.append(bytearray(1 << 24))
    if order == "exit":
        os._exit(int(argument))
    if order == "segfault":
        ctypes.string_at(0)
    if order == "signal":
        os.kill(os.getpid(), int(argument))
    if order == "rows":
        for number in range(int(argument)):
            yield from honest(name, b"# Row " + str(number).encode() + b"\\n\\nText.\\n")
        return
    if order == "raise":
        raise ZeroDivisionError(argument)
    if order == "garbage":
        for descriptor in range(3, 30):
            try: os.write(descriptor, argument.encode() * 100)
            except OSError: pass
        return
    if order == "try":
        try:
            found = eval(argument)
        except Exception as error:
            found = type(error).__name__
        yield from honest("answer.md", b"# Answer\\n\\n" + str(found).encode() + b"\\n")
        return
    yield from honest(name, data)

reading.read = poisoned
worker.main()
"""


def poisoned_program(folder: Path) -> str:
    """The program's path. Lines that it obeys: `loop`, `bomb`, `exit 3`, `try <expression>` and so on; others are read."""
    path = folder / "poisoned.py"
    path.write_text(PROGRAM.format(path=sys.path))
    return str(path)
