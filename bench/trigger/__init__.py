"""`python -m bench.trigger`: whether a trained trigger weaves where memory helps, and not where it hurts."""
