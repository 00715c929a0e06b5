"""LangChain and LangGraph: bound tools, a stream, structured output, and a ReAct agent; over chat and responses."""

import json
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

QUESTION = "How is the weather in the largest city of Peru?"
called: list[str] = []


@tool
def find_city(country: str) -> str:
    """The largest city of a country."""
    called.append(f"find_city {country}")
    return "Lima"


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    called.append(f"weather {city}")
    return f"fog in {city}"


class Report(BaseModel):
    """What the weather is like."""

    city: str
    fog: bool


def typed(url: str, key: str) -> None:
    found = {}
    for name, responses in (("chat", False), ("responses", True)):
        model = ChatOpenAI(base_url=f"{url}/v1", api_key=key, model="base", max_retries=0, use_responses_api=responses)
        report = model.with_structured_output(Report, method="json_schema").invoke("Say it as JSON.")
        found[name] = report.model_dump()
    print(json.dumps(found))


def loops(url: str, key: str) -> None:
    found = {}
    for name, responses in (("chat", False), ("responses", True)):
        model = ChatOpenAI(base_url=f"{url}/v1", api_key=key, model="base", max_retries=0, use_responses_api=responses)
        bound = model.bind_tools([find_city, weather]).invoke(QUESTION)
        found[f"{name} bound"] = [[call["name"], call["args"]] for call in bound.tool_calls]
        found[f"{name} stream"] = "".join(chunk.text for chunk in model.stream("Count to three."))
        called.clear()
        state = create_react_agent(model, [find_city, weather]).invoke({"messages": [("user", QUESTION)]})
        found[f"{name} agent"] = [state["messages"][-1].text, *called]
    print(json.dumps(found))


def recorded(url: str, key: str) -> None:
    found = {}
    for name, responses in (("chat", False), ("responses", True)):
        for streaming in (False, True):
            for session in (f"langgraph {name} {streaming}", None):
                headers = {"X-Memgen-Task": "trips", "X-Session-Id": session} if session else None
                model = ChatOpenAI(
                    base_url=f"{url}/v1", api_key=key, model="base", max_retries=0, use_responses_api=responses,
                    streaming=streaming, default_headers=headers,
                )  # fmt: skip
                agent = create_react_agent(model, [find_city, weather], prompt="Use the tools.")
                last = agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1]
                answer = last.response_metadata.get("id") or last.id
                if answer.startswith("lc_run"):  # LangChain's own: it does not show the id of what was streamed
                    answer = f"bare {name} {streaming}"
                found[session or answer] = last.text
    print(json.dumps(found))


{"recorded": recorded, "loops": loops, "typed": typed}[sys.argv[1]](*sys.argv[2:])
