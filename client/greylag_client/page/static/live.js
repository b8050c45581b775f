"use strict";
// The page works without this file. With it, a part asks for itself again as soon as it changed.
const stream = new EventSource(document.body.dataset.events);
stream.addEventListener("part", (event) => {
  const part = document.getElementById(event.data);
  if (part !== null) htmx.trigger(part, "changed");
});
