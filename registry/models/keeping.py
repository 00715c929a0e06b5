"""What is kept of versions and data, and what was let go: labels, archives, imports, retention, deletions."""
