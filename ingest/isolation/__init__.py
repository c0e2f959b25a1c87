"""Readers run in processes of their own: with limits, without a network, and killed where a file takes them too far."""
