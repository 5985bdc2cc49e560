// What forms and links cannot do. Every page works without it.
"use strict";
const typing = (element) => element.matches("input, select, textarea, dialog *");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const step = { j: 1, k: -1 }[event.key];
  if (event.key === "/") document.getElementById("search").focus();
  else if (event.key === "?") document.getElementById("help").showModal();
  else if (step) {
    const rows = [...document.querySelectorAll("tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
    const here = rows.indexOf(document.activeElement.closest("tr")?.querySelector("a"));
    rows[Math.max(0, Math.min(rows.length - 1, here < 0 ? 0 : here + step))]?.focus();
  } else return;
  event.preventDefault();
});

// A second click sends nothing more.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));

// A page that a service was missing for is asked for again, while somebody looks at it and has typed nothing.
const typed = () => [...document.querySelectorAll("main input, main textarea")].some((each) => each.value !== each.defaultValue);
const waiting = document.querySelector("[data-again]");
if (waiting) {
  const busy = () => document.hidden || typing(document.activeElement) || typed() || document.querySelector(".asking");
  const again = setInterval(() => {
    if (busy()) return;
    clearInterval(again);
    location.reload();
  }, waiting.dataset.again * 1000);
  // Whoever is leaving for another page, however slow that is, is not called back.
  const leave = (event) => event.target.closest("a:not([hx-get]), form:not([hx-post])") && clearInterval(again);
  document.addEventListener("click", (event) => event.target.closest("a") && leave(event));
  document.addEventListener("submit", leave);
}
