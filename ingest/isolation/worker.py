"""The program that reads files: it gets their bytes, never their paths, and says what is in them.

It is run by its path, as a process of its own. The first frame on stdin says where the modules are and what it may use; the
first one on stdout what the kernel really withholds from it. Then, until stdin ends: a frame with a name, a frame with the
bytes; back come a frame for every document and one that says that the file is through.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

LENGTH_BYTES = 8
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")


def main() -> None:
    """Import the readers, give up everything else, and read what comes."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints is not an answer, and may be what stands in a file.
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    settings = json.loads(next(_frames(requests), b"null"))
    if settings is None:
        return
    sys.path[:] = settings["path"]
    from ingest.isolation import kernel

    if not kernel.die_with_parent(settings["parent_pid"]):
        return
    _import_what_is_imported_late()
    holds = kernel.isolate(
        memory_bytes=settings["memory_bytes"],
        open_files=settings["open_files"],
        readable=[*SYSTEM, *settings["readable"], *_imported()],
    )
    _say(answers, json.dumps({"holds": holds}).encode())
    frames = _frames(requests)
    for name in frames:
        kernel.allow_processor_time(settings["cpu_s"])
        _read(answers, name.decode("utf-8", "surrogatepass"), next(frames))


def _read(answers: BinaryIO, name: str, data: bytes) -> None:
    from corpus.errors import DocumentError
    from ingest.isolation.wire import encoded
    from ingest.readers.read import read

    spent = False
    try:
        for found in read(name, data):
            _say(answers, encoded(found))
    except DocumentError as error:
        _say(answers, encoded(error))
    except MemoryError:
        spent = True
    except Exception as error:  # noqa: BLE001 - the boundary around one document: a reader's bug must not stop the night
        # Where it happened, and not the error's words: they may quote the document.
        reason = f"the reader failed ({type(error).__name__} at {_place(error)})"
        _say(answers, encoded(DocumentError(name, reason, "report it; the file is left out")))
    # What a failed allocation left behind is not known: the job starts a new process.
    _say(answers, json.dumps({"end": "memory" if spent else "done"}).encode())


def _place(error: BaseException) -> str:
    """The last place in one of our readers that an error came through."""
    place = "?"
    trace = error.__traceback__
    while trace is not None:
        folder, name = os.path.split(trace.tb_frame.f_code.co_filename)
        if os.path.basename(folder) == "readers":
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _import_what_is_imported_late() -> None:
    """Modules that are imported when they are first needed, such as encodings: from files that may not be readable then."""
    import codecs
    from contextlib import suppress
    from encodings.aliases import aliases

    import ingest.isolation.wire
    import ingest.readers.read  # noqa: F401

    for encoding in sorted(set(aliases.values())):
        with suppress(LookupError):
            codecs.lookup(encoding)


def _imported() -> list[str]:
    """The folders of the packages that are imported, the files of the modules: wherever an installation has put them."""
    found: list[str] = []
    for name, module in list(sys.modules.items()):
        if "." not in name and name != "__main__":
            found += getattr(module, "__path__", None) or [getattr(module, "__file__", None) or ""]
    return sorted({path for path in found if os.path.isabs(path)})


def _frames(stream: BinaryIO) -> Iterator[bytes]:
    while len(length := stream.read(LENGTH_BYTES)) == LENGTH_BYTES:
        payload = stream.read(int.from_bytes(length, "big"))
        yield payload


def _say(answers: Any, payload: bytes) -> None:
    answers.write(len(payload).to_bytes(LENGTH_BYTES, "big") + payload)
    answers.flush()


if __name__ == "__main__":
    main()
