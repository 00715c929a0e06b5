"""What the service answers, typed. A field that a newer service adds is kept, as an attribute without a type."""
