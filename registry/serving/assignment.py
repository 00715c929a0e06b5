"""Assignment of sessions to the versions of a route: a pure function of salt, weights and the session's id.

The same in every process, on every machine, at any time. For each version

    u = (n + 1/2) / 2^53,   n = the first 53 bits of sha256(json([salt, key, version]))

and the version with the least `-log(u) / weight` answers (weighted rendezvous hashing: those are exponential clocks,
and a clock of rate w rings first with probability w / sum of weights). When weights change under one salt, only
sessions that have to move do: each version's clock is its own. The JSON is ASCII without spaces, e.g. `["s","anna",7]`.
"""

import hashlib
import json
import math
from collections.abc import Mapping


def choose_version(salt: str, key: str, weights: Mapping[int, float]) -> int:
    """The version's number. `key` is the session's id, or the completion's where a request has no session.

    Args:
        weights: by version number, at least one above 0.
    """
    return min(
        (number for number, weight in weights.items() if weight > 0),
        key=lambda number: (-math.log(uniform(salt, key, number)) / weights[number], number),
    )


def is_sampled(salt: str, key: str, share: float) -> bool:
    """Whether the key belongs to the `share` of all keys, in [0, 1]. A key stays in when the share grows."""
    return uniform(salt, key, 0) < share


def uniform(salt: str, key: str, number: int) -> float:
    """A number in (0, 1), uniform over keys and independent for each number and salt."""
    text = json.dumps([salt, key, number], separators=(",", ":"))
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
    return min((bits + 0.5) / 2**53, math.nextafter(1.0, 0.0))
