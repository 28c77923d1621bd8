// Asks about what changes all the time, a drawing or the camera's picture: one request at a time, eight a second.

const EVERY_MS = 125;

export class Live {
  #asking = null;
  #timer = null;
  #last = -Infinity;
  #again = false;

  /** `ask` requests an answer, given an AbortSignal; then `answered` or `failed` is called with the answer or an error, and
   * true if it was asked by `now`. */
  constructor({ ask, answered, failed }) {
    Object.assign(this, { ask, answered, failed });
  }

  /** Asks as soon as the last answer is there and its time has come. */
  soon() {
    if (this.#asking) this.#again = true;
    else this.#timer ??= setTimeout(() => this.#ask(false), Math.max(0, this.#last + EVERY_MS - performance.now()));
  }

  /** Asks at once; an earlier question is dropped, so that no older answer is shown. */
  now() {
    this.#ask(true);
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
    this.#last = performance.now();
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
