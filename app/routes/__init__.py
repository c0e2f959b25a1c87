"""The HTTP routes, one file a subject. They translate between the wire and the rooms below, and decide nothing else."""
