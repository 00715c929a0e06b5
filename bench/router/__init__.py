"""`python -m bench.router`: whether each prompt reaches its task's memory, and the rest the bare base."""
