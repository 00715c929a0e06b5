"""`python -m bench.recipe`: what makes a memory learn fast, one change of the recipe at a time."""
