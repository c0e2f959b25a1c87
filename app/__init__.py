"""The HTTP service: answers questions from one open snapshot. Imports corpus; never ingest."""
