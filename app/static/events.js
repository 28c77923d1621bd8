// What is followed as it changes: an episode, a training run.

/** Calls `progress`, then `finished` with the whole record or `lost` with an error. Gives what stops it.
 *
 * `ends`: the events that end it, which are the states that it can end in; `read` asks for the record at once. */
export function follow(address, { ends, read, progress, finished, lost }) {
  const source = new EventSource(address);
  const end = (tell) => (event) => {
    source.close();
    tell(JSON.parse(event.data));
  };
  source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
  for (const name of ends) source.addEventListener(name, end(finished));
  source.addEventListener("gone", end((problem) => lost(new Error(problem.detail))));
  // The browser connects again by itself unless it was refused; then the plain request tells why.
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return;
    read().then((found) => (ends.includes(found.state) ? finished(found) : null), lost);
  });
  return () => source.close();
}
