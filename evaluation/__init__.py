"""Golden sets, metrics and benchmarks. May import every side."""
