"""`python -m archivist` is the command line."""

from __future__ import annotations

from archivist.cli import main

main()
