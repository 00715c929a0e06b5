"""LiteLLM: an own OpenAI base, chat, tools, a stream, text, responses; and Anthropic's API at the same place."""

import json
import sys
import warnings

import litellm

warnings.simplefilter("ignore")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_city",
            "description": "The largest city of a country.",
            "parameters": {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]},
        },
    }
]
QUESTION = [{"role": "user", "content": "How is the weather in the largest city of Peru?"}]


def main(url: str, key: str) -> None:
    found = {}
    for provider, base in (("openai", f"{url}/v1"), ("anthropic", url)):
        options = {"model": f"{provider}/base", "api_base": base, "api_key": key, "num_retries": 0, "max_tokens": 200}
        reply = litellm.completion(messages=QUESTION, tools=TOOLS, **options)
        [call] = reply.choices[0].message.tool_calls
        found[f"{provider} call"] = [call.function.name, json.loads(call.function.arguments)]
        history = [
            *QUESTION,
            reply.choices[0].message.model_dump(),
            {"role": "tool", "tool_call_id": call.id, "content": "fog in Lima"},
        ]
        answer = litellm.completion(messages=history, tools=TOOLS, **options)
        found[f"{provider} answer"] = answer.choices[0].message.content
        stream = litellm.completion(messages=[{"role": "user", "content": "Count to three."}], stream=True, **options)
        found[f"{provider} stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    options = {"api_base": f"{url}/v1", "api_key": key}
    text = litellm.text_completion(model="text-completion-openai/base", prompt="Count to three.", **options)
    found["text"] = text.choices[0].text
    response = litellm.responses(model="openai/base", input="Count to three.", **options)
    found["responses"] = response.output[0].content[0].text
    print(json.dumps(found))


main(*sys.argv[2:])
