"""Numbers with their nouns, in texts for people."""


def counted(count: float, noun: str) -> str:
    """`1 answer`, `2 answers`, `2 trajectories`, `0.5 hours`. Of several words, the last one is put into the plural."""
    takes_ies = noun.endswith("y") and noun[-2:-1] not in "aeiou"
    several = f"{noun[:-1]}ies" if takes_ies else f"{noun}s"
    number = str(count) if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun if count == 1 else several}"
