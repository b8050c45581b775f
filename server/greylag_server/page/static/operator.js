"use strict";
// The page works without this file. With it, a part asks for itself again as soon as it changed.
const stream = new EventSource(document.body.dataset.events);
stream.addEventListener("part", (event) => {
  const part = document.getElementById(event.data);
  if (part !== null) htmx.trigger(part, "changed");
});
stream.addEventListener("out", () => window.location.reload());
stream.addEventListener("error", () => {
  // It was turned away for good, which is the session's end; a lost connection is tried again.
  if (stream.readyState === EventSource.CLOSED) window.location.reload();
});

for (const button of document.querySelectorAll("[data-copy]")) {
  if (navigator.clipboard === undefined) continue; // only where the browser trusts the address
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = button.dataset.copied;
  });
}
