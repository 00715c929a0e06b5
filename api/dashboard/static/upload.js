// Sends a dropped or chosen file as it is, and shows the report that comes back.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("upload");
  if (!form) return;
  const file = form.querySelector("[type=file]");
  const progress = form.querySelector("progress");
  const report = document.getElementById("upload-report");
  const drop = form.querySelector(".drop");

  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") file.files = event.dataTransfer.files;
    });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const query = new URLSearchParams({ task: form.task.value, format: form.format.value });
    const sending = new XMLHttpRequest();
    const button = form.querySelector("button");
    sending.open("POST", `${form.dataset.path}?${query}`);
    sending.setRequestHeader("X-Csrf", form.dataset.csrf);
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.onprogress = ({ loaded, total }) => { progress.max = total; progress.value = loaded; };
    sending.onloadend = () => {
      progress.hidden = true;
      button.disabled = false;
      if (sending.status) report.innerHTML = sending.responseText;
      else report.textContent = "The connection broke off. Send the file again; only what is missing is added.";
    };
    progress.hidden = false;
    button.disabled = true;
    sending.send(file.files[0]);
  });
});
