"""The program that runs a GGUF file: llama.cpp's own HTTP server, on a loopback port of its choosing. Imports nothing of ours.

It is run by its path, as a process of its own, so that a model too large for the machine takes nobody with it. One JSON
object on one line of stdin says what to run (no argument and no environment variable, which others could read); one on
stdout says where it listens, or what went wrong. It ends when stdin does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
"""Source: prctl(2)."""

ONLY_ERRORS = 1
PROCESSOR_BATCH = 64
"""Tokens of a prompt worked through at a time where there is no GPU: whoever leaves meanwhile is noticed between two
batches. Measured with a 270M model: 195 tokens/s of prompt at 64 and at 512; the next call begins 1 s sooner."""


def serve(wanted: dict[str, Any]) -> Any:
    """The server, loaded and listening. Raises: ImportError, OSError, RuntimeError (xllamacpp's only one)."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = wanted["model_path"]
    params.model_alias = {wanted["model"]}  # otherwise the file's path is in every answer
    params.n_parallel = wanted["concurrency"]
    params.n_ctx = wanted["context_tokens"] * wanted["concurrency"]  # llama.cpp shares it out
    if wanted["threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["threads"]
    if wanted["chat_template"] is not None:
        with open(wanted["chat_template"], encoding="utf-8") as file:
            params.chat_template = file.read()
    params.use_jinja = True
    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    if not any(device["type"] in gpus for device in xllamacpp.get_device_info()):
        params.n_batch = params.n_ubatch = PROCESSOR_BATCH
    params.warmup = False

    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [wanted["api_key"]]  # other users of this machine reach the port too
    params.cors_origins = ""
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    # Nothing of a prompt is kept for the next one: how fast that came would tell what others have asked.
    params.cache_prompt = params.cache_idle_slots = False
    params.cache_ram_mib = params.n_ctx_checkpoints = 0
    params.verbosity = ONLY_ERRORS
    return xllamacpp.Server(params)


def main() -> None:
    """Read what to run, run it, say where, and end with whoever started this."""
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # while a model loads, the end of stdin goes unnoticed
        prctl(PR_SET_DUMPABLE, 0)  # a core file would hold prompts
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints is not an answer
    line = sys.stdin.buffer.readline()
    wanted = json.loads(line) if line.endswith(b"\n") else {}
    if os.getppid() != wanted.get("parent_pid"):
        return  # it died before its death would have been noticed
    try:
        server = serve(wanted)
    except Exception as error:  # noqa: BLE001 - the top of this program: whatever it is, its parent is told
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)  # not at once: a thread of the library's is still writing what was wrong
    # From here on there are prompts, and an error message may quote one.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    _say(answers, {"address": server.listening_address})
    sys.stdin.buffer.read()
    os._exit(0)  # at once, whatever it is writing


def _say(descriptor: int, answer: dict[str, str]) -> None:
    os.write(descriptor, json.dumps(answer).encode("ascii") + b"\n")


if __name__ == "__main__":
    main()
