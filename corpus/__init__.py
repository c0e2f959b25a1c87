"""The contract between the nightly job and the service: types, indexes, the snapshot. Imports nothing of ours."""
