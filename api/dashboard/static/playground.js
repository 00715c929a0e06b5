// Asks several models one question at once, and shows their texts as they come, then the places of insertions in them.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("ask");
  const answers = document.getElementById("answers");
  const stop = document.getElementById("stop");
  let asking = new AbortController();

  const element = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
  const post = (path, body, signal) => fetch(path, {
    method: "POST", signal, body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Csrf": form.dataset.csrf },
  });

  async function send(path, body, signal) {
    let response = await post(path, body, signal);
    if ([401, 403].includes(response.status) && await renewToken(form)) response = await post(path, body, signal);
    return response;
  }

  async function refusal(response) {
    if (response.status === 401) return signInFirst();
    const told = await response.json().catch(() => ({ detail: `The server answered ${response.status}. Ask again.` }));
    return element("p", told.detail, "problem");
  }

  async function* events(response) {
    let text = "";
    const decoder = new TextDecoder();
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) throw new TypeError("the stream ended before the answer did");
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        if (part === "data: [DONE]") return;
        if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
      }
    }
  }

  // The text that each token adds. A token may be a part of a character, which its last one brings.
  function texts(tokens) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const found = tokens.map(({ token, bytes }) => bytes ? decoder.decode(Uint8Array.from(bytes), { stream: true }) : token);
    if (found.length) found[found.length - 1] += decoder.decode();
    return found;
  }

  function mark(said, span, insertion, place) {
    const note = `${place > 0 ? `behind ${place} ${place === 1 ? "token" : "tokens"} of the answer` : "in front of the answer"}, ` +
      `probability ${insertion.probability}, ${insertion.latents} latents` +
      (insertion.reread ? `, ${insertion.reread} tokens read again` : "");
    const diamond = element("abbr", "◆", "woven");
    diamond.title = note;
    diamond.tabIndex = 0;
    diamond.setAttribute("role", "img");
    diamond.setAttribute("aria-label", `memory woven in: ${note}`);
    said.insertBefore(diamond, span ?? null);
  }

  function finish(column, said, tokens, stamp, usage) {
    const woven = stamp.insertions ?? [];
    if (tokens.length) {
      const spans = texts(tokens).map((text) => element("span", text));
      said.replaceChildren(...spans);
      // A position counts the prompt's tokens, too, and may be in front of the last of them.
      const placed = woven.map((each) => [each, Math.max(0, each.position - usage.prompt_tokens)]);
      for (const [each, place] of placed) mark(said, spans[place], each, place);
    }
    const label = stamp.adapter ? `${stamp.adapter}@${stamp.version}` : "the bare base";
    column.append(element("p", `${label}, ${stamp.seconds} s, ${usage.completion_tokens} tokens, memory woven in ` +
      `${woven.length} ${woven.length === 1 ? "time" : "times"}`, "dim"));
    if (stamp.cue?.length) column.append("Cued by ");
    for (const id of stamp.cue ?? []) {
      const link = element("a", `trajectory ${id.slice(0, 8)}`);
      link.href = `${form.dataset.trajectories}/${id}`;
      column.append(link, " ");
    }
  }

  function rating(column, id) {
    const said = element("span", "", "dim");
    for (const [text, reward] of [["Good", 1], ["Bad", 0]]) {
      const button = element("button", text, "quiet");
      button.type = "button";
      button.addEventListener("click", async () => {
        try {
          const answer = await send(form.dataset.feedback, { completion_id: id, reward });
          said.replaceChildren(answer.ok ? `Counted as ${text.toLowerCase()}.` : await refusal(answer));
        } catch {
          said.textContent = "The connection broke off. Press it again; it counts once.";
        }
      });
      column.append(button, " ");
    }
    said.setAttribute("role", "status");
    column.append(said);
  }

  async function ask(model, body, signal) {
    const column = element("section");
    const said = element("div", "", "said-text");
    column.setAttribute("aria-label", model);
    column.append(element("h2", model), said);
    answers.append(column);
    let id = "", tokens = [], stamp, usage;
    try {
      const response = await send(form.dataset.answer, { ...body, model }, signal);
      if (!response.ok) return column.append(await refusal(response));
      for await (const event of events(response)) {
        if (event.error) return column.append(element("p", event.error.message, "problem"));
        id = event.id;
        for (const { delta, logprobs } of event.choices) {
          said.append(delta.reasoning_content ?? "", delta.content ?? "");
          tokens = logprobs?.content ?? tokens;
        }
        stamp = event.memgen ?? stamp;
        usage = event.usage ?? usage;
      }
      if (stamp && usage) finish(column, said, tokens, stamp, usage);
      if (form.dataset.rate && id) rating(column, id);
    } catch (error) {
      const text = error.name === "AbortError" ? "Stopped." : "The answer broke off. Ask again: the question is still there.";
      column.append(element("p", text, "problem"));
    }
  }

  for (const button of form.querySelectorAll("button:not(#stop)")) button.disabled = false;
  stop.addEventListener("click", () => asking.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    asking.abort();
    const mine = asking = new AbortController();
    const messages = [{ role: "user", content: form.question.value }];
    if (form.system.value.trim()) messages.unshift({ role: "system", content: form.system.value });
    const body = { messages, temperature: form.temperature.valueAsNumber, max_tokens: form.max_tokens.valueAsNumber };
    const models = [...form.querySelectorAll("[name=model]")].map((each) => each.value).filter(Boolean);
    answers.replaceChildren(...(models.length ? [] : [element("p", "Choose who answers.", "problem")]));
    // What comes piece by piece is read out when it is there as a whole.
    answers.setAttribute("aria-busy", "true");
    stop.disabled = false;
    await Promise.all(models.map((model) => ask(model, body, mine.signal)));
    if (mine !== asking) return;
    stop.disabled = true;
    answers.setAttribute("aria-busy", "false");
  });
});
