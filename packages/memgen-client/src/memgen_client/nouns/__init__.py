"""The nouns of the API: one class each, whose methods describe their requests."""
