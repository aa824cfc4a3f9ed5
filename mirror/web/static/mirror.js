// Pages work without this: it only brings in by itself what a new look at the page would show.
"use strict";

const AGAIN_MS = 1500;
let due = 0;

async function look() {
  due = 0;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    const open = part.querySelector("details[open]") || part.contains(document.activeElement);
    if (other && !open && other.innerHTML !== part.innerHTML) part.innerHTML = other.innerHTML;
  }
}

function lookSoon() {
  if (!due) due = setTimeout(() => look().catch(() => {}), AGAIN_MS);
}

function watch(topics) {
  const events = new EventSource(`/mirror/v1/events?topics=${topics}`);
  for (const topic of topics.split(",")) events.addEventListener(topic, lookSoon);
  events.addEventListener("dropped", lookSoon);
}

function follow(place) {
  const events = new EventSource(`/api/v1/prompt/${place.dataset.follow}/events`);
  events.onmessage = (event) => { place.textContent += JSON.parse(event.data).text; };
  events.addEventListener("restart", () => { place.textContent = ""; });
  for (const end of ["completed", "failed", "cancelled"]) {
    events.addEventListener(end, () => { events.close(); lookSoon(); });
  }
}

const topics = new Set();
for (const part of document.querySelectorAll("[data-live]")) {
  for (const topic of part.dataset.live.split(",")) if (topic) topics.add(topic);
}
if (topics.size) watch([...topics].join(","));
for (const place of document.querySelectorAll("[data-follow]")) follow(place);
const every = Number(document.body.dataset.every || 0);
if (every) setInterval(() => look().catch(() => {}), every * 1000);
