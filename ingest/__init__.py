"""The nightly job: reads documents and publishes a snapshot. Imports corpus; never app."""
