"""The answer path, in the order data passes: history, retrieve, prompt, generate, citations, grounding."""
