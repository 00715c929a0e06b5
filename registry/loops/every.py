"""How often a loop learns, in a word: `night`, `hour`, `6h`, `30m`, `day`, `week`, or a cron expression. Pure."""

import re

from registry.errors import InvalidSchedule
from registry.json_text import show

WORDS = {"night": "0 3 * * *", "day": "0 12 * * *", "hour": "0 * * * *", "week": "0 3 * * 0"}
_INTERVAL = re.compile(r"([1-9]\d{0,3})(h|m)\Z")
_PARTS = {"h": 24, "m": 60}


def read_every(text: str) -> str:
    """The cron expression that is meant: `night` is `0 3 * * *`, `6h` is `0 */6 * * *`, `15m` is `*/15 * * * *`.

    Raises:
        InvalidSchedule: it is none, or an interval that does not divide a day or an hour evenly.
    """
    text = text.strip()
    if text in WORDS:
        return WORDS[text]
    if len(text.split()) == 5:
        return text
    found = _INTERVAL.match(text)
    if found is None:
        raise InvalidSchedule(
            f"every {show(text)}; expected one of {', '.join(WORDS)}, an interval such as 6h or 30m, or a cron "
            "expression of five fields"
        )
    count, unit = int(found[1]), found[2]
    if _PARTS[unit] % count:
        divisors = [number for number in range(1, _PARTS[unit] + 1) if _PARTS[unit] % number == 0]
        raise InvalidSchedule(
            f"every {text} does not divide {'a day' if unit == 'h' else 'an hour'} evenly; expected one of "
            f"{', '.join(f'{number}{unit}' for number in divisors)}"
        )
    if unit == "m":
        return "0 * * * *" if count == 60 else f"*/{count} * * * *"
    return WORDS["day"] if count == 24 else f"0 */{count} * * *"
