// An episode as it changes.

import { episode, eventsAddress } from "./api.js";

/** Calls `progress`, then `finished` with the whole episode or `lost` with an error. Gives what stops it. */
export function follow(id, { progress, finished, lost }) {
  const source = new EventSource(eventsAddress(id));
  const end = (tell) => (event) => {
    source.close();
    tell(JSON.parse(event.data));
  };
  source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
  source.addEventListener("ready", end(finished));
  source.addEventListener("failed", end(finished));
  source.addEventListener("gone", end((problem) => lost(new Error(problem.detail))));
  // The browser connects again by itself unless it was refused; then the plain request tells why.
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return;
    episode(id).then((found) => (found.state === "ready" || found.state === "failed" ? finished(found) : null), lost);
  });
  return () => source.close();
}
