"""The method: memories for a frozen base, trained, judged and run. Knows no service."""

import os

# How often a thread of torch's pool looks again before it sleeps until the others are done. By libgomp's own 300,000
# it burns its core for milliseconds at each of a step's hundreds of meetings; where another process wants that core
# (a training beside the API), both then get ten times slower (research/threads.md). It is read as torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
