// What all forms need: a second click sends nothing twice, and a script's form outlives a sign-in that has ended.
"use strict";
const DOUBLE_CLICK_MILLISECONDS = 5000;

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, DOUBLE_CLICK_MILLISECONDS);
});

// Take over the token of a sign-in in another tab, which refuses the one that `form` was made with. Whether there is one.
async function renewToken(form) {
  const page = await fetch(location.href).catch(() => null);
  const text = page?.ok ? await page.text() : "";
  const anew = new DOMParser().parseFromString(text, "text/html").getElementById(form.id);
  if (anew) form.dataset.csrf = anew.dataset.csrf;
  return Boolean(anew);
}

// What to do where a request of a script was refused for want of a sign-in.
function signInFirst() {
  const words = document.createElement("p");
  const link = Object.assign(document.createElement("a"), { href: "/ui/sign-in", target: "_blank", textContent: "Sign in" });
  words.className = "problem";
  words.setAttribute("role", "alert");
  words.append("Your sign-in has ended. ", link, " in another tab and send it again from here: nothing is lost.");
  return words;
}
