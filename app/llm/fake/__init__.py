"""A stand-in LLM: one file a wire format, and the server that answers in each and can misbehave in each."""
