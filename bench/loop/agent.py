"""An agent that plays text games through a service of which it knows `base_url` and a key.

It speaks the stock `openai` client's chat completions and tells what a game gave by `POST /v1/feedback`. It imports
nothing of the service: whatever makes it better happens on the other side of the address.
"""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
from openai import OpenAI

from bench.loop.games import Play
from memgen.tasks.textworld import Game

_MAX_TOKENS = 32
_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """How one game ended."""

    game: str
    won: bool
    turns: int
    version: str | None
    """Who answered, by the service's header; None is the bare base."""


class Agent:
    """Plays games at the address, several at once; as a context it closes its connections."""

    def __init__(self, base_url: str, api_key: str, model: str, *, at_once: int = 24) -> None:
        self._client = OpenAI(base_url=base_url, api_key=api_key, timeout=_SECONDS, max_retries=2)
        self._http = httpx.Client(headers={"Authorization": f"Bearer {api_key}"}, timeout=_SECONDS)
        self._feedback_url = base_url.rstrip("/") + "/feedback"
        self._model, self._at_once = model, at_once

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._http.close()

    def play(
        self, games: Sequence[Game], *, reward_of: Callable[[float], float] = float, **fields: Any
    ) -> list[Result]:
        """Play each game once and tell its reward.

        Args:
            reward_of: what is told of the game's reward; a day with flipped rewards is `lambda won: 1 - won`.
            fields: of every chat request, beside the agent's own.
        """
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(lambda game: self._play(game, reward_of, fields), games))

    def test(self, games: Sequence[Game], *, model: str, seed: int) -> list[Result]:
        """Play each game once as ever, telling nobody: nothing is recorded, no reward is given."""
        numbers = range(len(games))
        with ThreadPoolExecutor(self._at_once) as pool:
            fields = [{"model": model, "store": False, "seed": seed + number} for number in numbers]
            return list(pool.map(lambda game, own: self._play(game, None, own), games, fields))

    def _play(self, game: Game, reward_of: Callable[[float], float] | None, fields: dict[str, Any]) -> Result:
        play, session, version = Play(game), f"game-{uuid.uuid4()}", None
        while not play.over:
            reply = self._client.chat.completions.with_raw_response.create(
                **{
                    "model": self._model,
                    "messages": play.messages,
                    "temperature": 1.0,
                    "max_tokens": _MAX_TOKENS,
                    "response_format": _one_of(play.commands),
                    "extra_headers": {"X-Session-Id": session},
                    **fields,
                }
            )
            version = reply.headers.get("x-memgen-version")
            play.answer(reply.parse().choices[0].message.content or "")
        if reward_of is not None:
            self._tell(session, reward_of(play.reward))
        return Result(game.item_id, play.reward == 1.0, play.turns, version)

    def _tell(self, session: str, reward: float) -> None:
        body = {"session_id": session, "reward": reward, "source": "environment"}
        self._http.post(self._feedback_url, json=body).raise_for_status()


def _one_of(commands: Sequence[str]) -> dict[str, Any]:
    """Hold the answer to one of the commands, written as a JSON string."""
    schema = {"type": "string", "enum": list(commands)}
    return {"type": "json_schema", "json_schema": {"name": "command", "schema": schema}}
