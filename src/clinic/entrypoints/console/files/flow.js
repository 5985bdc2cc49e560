// The flow as it goes, while somebody looks at it. Without this the page is a snapshot.
"use strict";
const flow = document.getElementById("flow");
const live = document.getElementById("live");
const pause = document.getElementById("pause");
let stream, again;
const say = (state) => (live.textContent = live.dataset[state]);

function follow() {
  stream?.close();
  clearTimeout(again);
  if (pause.ariaPressed === "true") return say("paused");
  if (document.hidden) return;
  stream = new EventSource("/flow/events");
  stream.onopen = () => say("live");
  stream.onmessage = (event) => {
    const focused = flow.contains(document.activeElement) && document.activeElement.id;
    flow.innerHTML = event.data;
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };
  stream.onerror = () => {
    say("lost");
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(follow, 5000);
  };
}

pause.onclick = () => {
  pause.ariaPressed = String(pause.ariaPressed !== "true");
  follow();
};
document.addEventListener("visibilitychange", follow);
pause.hidden = false;
follow();
