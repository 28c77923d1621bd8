// What is followed as it changes: an episode, a training run.

// What a service with too much to do answers, and when it is asked again.
const BUSY = [429, 503];
const PAUSE_MS = 2000;

/** Calls `progress`, then `finished` with the whole record or `lost` with an error. Gives what stops it.
 *
 * `ends`: the events that end it, which are the states that it can end in; `read` asks for the record at once. */
export function follow(address, { ends, read, progress, finished, lost }) {
  let source = null;
  let pause = null;
  let stopped = false;
  const stop = () => {
    stopped = true;
    source.close();
    clearTimeout(pause);
  };
  const end = (tell) => (event) => {
    stop();
    tell(JSON.parse(event.data));
  };
  const openAgain = () => {
    pause = setTimeout(open, PAUSE_MS);
  };
  // The browser connects again by itself unless it was refused; then the plain request tells why.
  const refused = async () => {
    if (source.readyState !== EventSource.CLOSED) return;
    const [found, error] = await read().then((record) => [record, null], (failure) => [null, failure]);
    if (stopped) return;
    if (error) return BUSY.includes(error.status) ? openAgain() : lost(error);
    return ends.includes(found.state) ? finished(found) : openAgain();
  };
  function open() {
    source = new EventSource(address);
    source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
    for (const name of ends) source.addEventListener(name, end(finished));
    source.addEventListener("gone", end((problem) => lost(new Error(problem.detail))));
    source.addEventListener("error", refused);
  }
  open();
  return stop;
}
