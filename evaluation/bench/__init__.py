"""What `archivist bench` measures: one file a part, each of which starts what it measures and returns figures."""
