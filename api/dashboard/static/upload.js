// Sends dropped or chosen files as they are, one after the other, and shows the report on each that comes back.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("upload");
  if (!form) return;
  const chosen = form.querySelector("[type=file]");
  const button = form.querySelector("button");
  const progress = form.querySelector("progress");
  const report = document.getElementById("upload-report");
  const drop = form.querySelector(".drop");

  // A file that is dropped beside the field would take the page's place.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) chosen.files = event.dataTransfer.files;
    });
  }
  addEventListener("beforeunload", (event) => { if (button.disabled) event.preventDefault(); });

  const send = (file) => new Promise((resolve) => {
    const query = new URLSearchParams({ task: form.task.value, format: form.format.value });
    const sending = new XMLHttpRequest();
    sending.open("POST", `${form.dataset.path}?${query}`);
    sending.setRequestHeader("X-Csrf", form.dataset.csrf);
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.onprogress = ({ loaded, total }) => { progress.max = total || 1; progress.value = loaded; };
    sending.onloadend = () => resolve(sending);
    sending.send(file);
  });

  function told(sent) {
    const part = document.createElement("div");
    const kind = sent.getResponseHeader("Content-Type") ?? "";
    if (kind.startsWith("text/html")) {
      part.innerHTML = sent.responseText;
      return part;
    }
    part.className = "problem";
    part.setAttribute("role", "alert");
    part.textContent = "The connection broke off. Send the file again; only what is missing is added.";
    if (sent.status) {
      try {
        part.textContent = JSON.parse(sent.responseText).detail;
      } catch {
        part.textContent = `The server answered ${sent.status}, and no report. Send the file again; only what is missing is added.`;
      }
    }
    return part;
  }

  button.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    report.replaceChildren();
    progress.hidden = false;
    button.disabled = true;
    for (const file of [...chosen.files]) {
      let sent = await send(file);
      if ([401, 403].includes(sent.status) && await renewToken(form)) sent = await send(file);
      const name = Object.assign(document.createElement("p"), { className: "dim", textContent: file.name });
      report.append(name, sent.status === 401 ? signInFirst() : told(sent));
      if (sent.status === 401) break;
    }
    progress.hidden = true;
    button.disabled = false;
  });
});
