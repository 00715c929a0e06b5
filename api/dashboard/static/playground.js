// Asks several models one question at once, and shows their tokens as they come, with the places of insertions.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("ask");
  const answers = document.getElementById("answers");
  const stop = document.getElementById("stop");
  let asking = new AbortController();

  const element = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
  const send = (path, body, signal) => fetch(path, {
    method: "POST", signal, body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Csrf": form.dataset.csrf },
  });

  async function* events(response) {
    let text = "";
    const decoder = new TextDecoder();
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
      }
    }
  }

  function mark(said, token, insertion) {
    const note = `at token ${insertion.position}, probability ${insertion.probability}, ${insertion.latents} latents` +
      (insertion.reread ? `, ${insertion.reread} tokens read again` : "");
    const diamond = element("abbr", "◆", "woven");
    diamond.title = note;
    diamond.tabIndex = 0;
    diamond.setAttribute("aria-label", `memory woven in: ${note}`);
    said.insertBefore(diamond, token ?? null);
  }

  function finish(column, said, tokens, stamp, usage) {
    const woven = stamp.insertions ?? [];
    // A position counts the prompt's tokens, too, and may be in front of the last of them.
    for (const each of woven) mark(said, tokens[Math.max(0, each.position - usage.prompt_tokens)], each);
    const label = stamp.adapter ? `${stamp.adapter}@${stamp.version}` : "the bare base";
    column.append(element("p", `${label}, ${stamp.seconds} s, ${tokens.length} tokens, memory woven in ` +
      `${woven.length} ${woven.length === 1 ? "time" : "times"}`, "dim"));
    for (const id of stamp.cue ?? []) {
      const link = element("a", "read this trajectory again");
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
        const answer = await send(form.dataset.feedback, { completion_id: id, reward });
        const told = await answer.json();
        said.textContent = answer.ok ? `Counted as ${text.toLowerCase()}.` : told.detail;
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
    const tokens = [];
    let id = "", stamp, usage;
    try {
      const response = await send(form.dataset.answer, { ...body, model }, signal);
      if (!response.ok) throw new Error((await response.json()).detail);
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message);
        id = event.id;
        for (const choice of event.choices) {
          const named = choice.logprobs?.content ?? [];
          for (const token of named) {
            const span = element("span", token.token);
            tokens.push(span);
            said.append(span);
          }
        }
        stamp = event.memgen ?? stamp;
        usage = event.usage ?? usage;
      }
      if (stamp && usage) finish(column, said, tokens, stamp, usage);
      if (form.dataset.rate) rating(column, id);
    } catch (error) {
      const text = error.name === "AbortError" ? "Stopped." : error.message;
      column.append(element("p", text, "problem"));
    }
  }

  stop.addEventListener("click", () => asking.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    asking.abort();
    asking = new AbortController();
    answers.replaceChildren();
    const messages = [{ role: "user", content: form.question.value }];
    if (form.system.value.trim()) messages.unshift({ role: "system", content: form.system.value });
    const body = { messages, temperature: Number(form.temperature.value), max_tokens: Number(form.max_tokens.value) };
    const models = [...form.querySelectorAll("[name=model]")].map((each) => each.value).filter(Boolean);
    stop.disabled = false;
    await Promise.all(models.map((model) => ask(model, body, asking.signal)));
    stop.disabled = true;
  });
});
