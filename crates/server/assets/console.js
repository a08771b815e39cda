// What a page does beyond links and forms; each works without.
"use strict";

const COPIED = "Copied";

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = COPIED;
  });
}

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

// The server has the browser leave; this says how long that takes.
for (const place of document.querySelectorAll("[data-countdown]")) {
  const until = Date.now() + Number(place.dataset.countdown) * 1000;
  const tick = () => {
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    place.textContent = left === 1 ? "1 second" : `${left} seconds`;
    if (left > 0) setTimeout(tick, 1000);
  };
  tick();
}

// A page with a code is not kept for the way back.
window.addEventListener("pageshow", (event) => {
  if (event.persisted && document.querySelector("[data-code]")) location.reload();
});

// "/" goes to the search, as elsewhere.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (place) {
    event.preventDefault();
    place.focus();
  }
});
