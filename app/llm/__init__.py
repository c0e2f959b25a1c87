"""LLM backends: one file a wire format, and the gateway that chooses between them."""
