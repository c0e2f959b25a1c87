"""Rerankers: the protocol, and the engines that run a model which reads a question and a passage together."""
