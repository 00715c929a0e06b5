"""`python -m bench.speed`: speed and memory of the engine and of training, as ratios measured in one run."""
