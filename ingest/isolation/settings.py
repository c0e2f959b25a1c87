"""What a reader's process may use. A frozen section of the configuration."""

from __future__ import annotations

import os

from pydantic import Field

from corpus.settings import Settings


class IsolationSettings(Settings):
    """Limits of the processes that read files. A file that breaks one is listed as failed; the job goes on with the next."""

    workers: int = Field(default=0, ge=0, le=64, description="Processes that read; 0 = one for every two processors.")
    memory_bytes: int = Field(default=1 << 30, ge=1 << 28, description="Address space of one process, in bytes.")
    cpu_s: int = Field(default=60, ge=1, description="Processor time for one file, in seconds.")
    wall_s: float = Field(default=120.0, gt=0, description="Time for one file by the clock, in seconds.")
    open_files: int = Field(default=64, ge=16, description="Files a process may have open.")
    text_bytes: int = Field(default=1 << 28, ge=1 << 16, description="What one document may come to, in bytes.")
    files_per_worker: int = Field(default=1000, ge=1, description="Files after which a process is replaced by a new one.")

    def processes(self) -> int:
        """How many processes read."""
        return self.workers or max(1, (os.cpu_count() or 1) // 2)
