// Asks about what changes all the time, a drawing or the camera's picture: one request at a time, at most eight a second.

const [MOST, PER_MS] = [8, 1000];
// What is asked at once when the pen goes up still has its place among the eight.
const EVERY_MS = 160;

export class Live {
  #asking = null;
  #timer = null;
  #asked = [];
  #again = false;

  /** `ask` requests an answer, given an AbortSignal; then `answered` or `failed` is called with the answer or an error, and
   * true if it was asked by `now`. */
  constructor({ ask, answered, failed }) {
    Object.assign(this, { ask, answered, failed });
  }

  /** Asks as soon as the last answer is there and its time has come. */
  soon() {
    if (this.#asking) this.#again = true;
    else this.#timer ??= setTimeout(() => this.#ask(false), this.#pause(EVERY_MS));
  }

  /** Asks at once, if this is not the ninth time within a second; an earlier question is dropped, so that no older answer is
   * shown. */
  now() {
    this.stop();
    const pause = this.#pause(0);
    if (pause) this.#timer = setTimeout(() => this.#ask(true), pause);
    else this.#ask(true);
  }

  /** How long to wait until it is `every` since the last time and a second since the last but seven. */
  #pause(every) {
    const [last = -Infinity] = this.#asked.slice(-1);
    const eighth = this.#asked.length < MOST ? -Infinity : this.#asked[0];
    return Math.max(0, last + every - performance.now(), eighth + PER_MS - performance.now());
  }

  stop() {
    this.#asking?.abort();
    clearTimeout(this.#timer);
    this.#asking = this.#timer = null;
    this.#again = false;
  }

  async #ask(atOnce) {
    this.stop();
    const asking = (this.#asking = new AbortController());
    this.#asked = [...this.#asked, performance.now()].slice(-MOST);
    try {
      const answer = await this.ask(asking.signal);
      if (this.#asking === asking) this.#done(() => this.answered(answer, atOnce));
    } catch (error) {
      if (this.#asking === asking) this.#done(() => this.failed(error, atOnce));
    }
  }

  #done(report) {
    const again = this.#again;
    this.#asking = null;
    this.#again = false;
    report();
    if (again) this.soon();
  }
}
