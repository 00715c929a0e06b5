"""Anthropic's client, with its own loop over tools."""

import json
import sys

from anthropic import Anthropic, beta_tool

called: list[str] = []


@beta_tool
def find_city(country: str) -> str:
    """The largest city of a country."""
    called.append(f"find_city {country}")
    return "Lima"


@beta_tool
def weather(city: str) -> str:
    """The weather in a city."""
    called.append(f"weather {city}")
    return f"fog in {city}"


def main(url: str, key: str) -> None:
    client = Anthropic(base_url=url, api_key=key, max_retries=0)
    question = {"role": "user", "content": "How is the weather in the largest city of Peru?"}
    found = {}
    for name, stream in (("whole", False), ("streamed", True)):
        called.clear()
        runner = client.beta.messages.tool_runner(
            model="base", max_tokens=300, tools=[find_city, weather], messages=[question], stream=stream
        )
        last = runner.until_done()
        found[name] = [last.content[-1].text, last.stop_reason, *called]
    print(json.dumps(found))


main(*sys.argv[2:])
