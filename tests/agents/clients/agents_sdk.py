"""The OpenAI Agents SDK: two tools, called one after the other, over chat and over responses, whole and streamed."""

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
QUESTION = "How is the weather in the largest city of Peru?"
called: list[str] = []


@function_tool
def find_city(country: str) -> str:
    """The largest city of a country."""
    called.append(f"find_city {country}")
    return "Lima"


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    called.append(f"weather {city}")
    return f"fog in {city}"


class Report(BaseModel):
    city: str
    fog: bool


async def typed(url: str, key: str) -> None:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    found = {}
    for name, kind in (("chat", OpenAIChatCompletionsModel), ("responses", OpenAIResponsesModel)):
        reporter = Agent(name="reporter", model=kind("base", client), output_type=Report)
        found[name] = (await Runner.run(reporter, "Say it as JSON.")).final_output.model_dump()
    print(json.dumps(found))


async def loops(url: str, key: str) -> None:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    found = {}
    for name, kind in (("chat", OpenAIChatCompletionsModel), ("responses", OpenAIResponsesModel)):
        agent = Agent(
            name="traveller", instructions="Use the tools.", tools=[find_city, weather], model=kind("base", client)
        )
        called.clear()
        whole = await Runner.run(agent, QUESTION, max_turns=5)
        found[name] = [whole.final_output, *called]
        called.clear()
        streamed = Runner.run_streamed(agent, QUESTION, max_turns=5)
        kinds = [event.type async for event in streamed.stream_events()]
        found[f"{name} streamed"] = [streamed.final_output, *called, kinds.count("run_item_stream_event")]
        again = [*whole.to_input_list(), {"role": "user", "content": "Count to three."}]
        found[f"{name} again"] = (await Runner.run(agent, again)).final_output
    stored = Agent(
        name="rememberer", model=OpenAIResponsesModel("base", client), model_settings=ModelSettings(store=True)
    )
    first = await Runner.run(stored, "My name is Ana.")
    second = await Runner.run(stored, "What is my name?", previous_response_id=first.last_response_id)
    found["previous"] = [second.final_output]
    print(json.dumps(found))


async def recorded(url: str, key: str) -> None:
    found = {}
    for name, kind in (("chat", OpenAIChatCompletionsModel), ("responses", OpenAIResponsesModel)):
        for how in ("whole", "streamed"):
            for session in (f"agents {name} {how}", None):
                headers = {"X-Memgen-Task": "trips", "X-Session-Id": session} if session else None
                client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, default_headers=headers)
                agent = Agent(
                    name="traveller",
                    instructions="Use the tools.",
                    tools=[find_city, weather],
                    model=kind("base", client),
                )
                result = (
                    Runner.run_streamed(agent, QUESTION) if how == "streamed" else await Runner.run(agent, QUESTION)
                )
                if how == "streamed":
                    _ = [event async for event in result.stream_events()]
                answer = result.raw_responses[-1].response_id
                if answer in (None, "__fake_id__"):  # the SDK does not show the ids of a chat's answers
                    answer = f"bare {name} {how}"
                found[session or answer] = result.final_output
    print(json.dumps(found))


asyncio.run({"recorded": recorded, "loops": loops, "typed": typed}[sys.argv[1]](*sys.argv[2:]))
