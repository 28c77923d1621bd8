// Follows the changes of an episode.

const PAUSE_MS = 2000;

/** Calls `progress`, then `finished` with the whole record or `lost` with an error. Returns a function that stops it.
 *
 * `ends`: the final events, which are named after the final states; `read` requests the current record. While the tab is
 * hidden, no stream is open: browsers allow six connections to a service, of all tabs together. */
export function follow(address, { ends, read, progress, finished, lost }) {
  let source = null;
  let pause = null;
  let stopped = false;
  const close = () => {
    source?.close();
    clearTimeout(pause);
  };
  const stop = () => {
    stopped = true;
    document.removeEventListener("visibilitychange", seen);
    close();
  };
  const seen = () => (document.hidden ? close() : open());
  const end = (report) => (event) => {
    stop();
    report(JSON.parse(event.data));
  };
  const openAgain = () => {
    pause = setTimeout(open, PAUSE_MS);
  };
  // The browser reconnects automatically unless it got an error response; then a plain request shows the reason.
  const refused = async () => {
    if (source.readyState !== EventSource.CLOSED) return;
    const [found, error] = await read().then((record) => [record, null], (failure) => [null, failure]);
    if (stopped || document.hidden) return;
    if (error) return lost(error);
    return ends.includes(found.state) ? finished(found) : openAgain();
  };
  function open() {
    close();
    source = new EventSource(address);
    source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
    for (const name of ends) source.addEventListener(name, end(finished));
    source.addEventListener("gone", end((problem) => lost(new Error(problem.detail))));
    source.addEventListener("error", refused);
  }
  document.addEventListener("visibilitychange", seen);
  if (!document.hidden) open();
  return stop;
}
