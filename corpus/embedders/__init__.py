"""Embedding models: the protocol, how a model's name becomes a folder, and the engines that run one."""
