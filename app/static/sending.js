// Requests that create something: sent once, however often the button is pressed or the connection is lost.

import { newKey, Refused } from "./api.js";

/** What the user wants to be created: it keeps one Idempotency-Key until it is answered. */
export class Intention {
  #of = null;
  #key = null;

  /** The answer to `request(key)`. `of`: the values that make up what is wanted; with others it is something else. */
  async send(of, request) {
    const same = this.#of?.length === of.length && of.every((value, at) => value === this.#of[at]);
    if (!same) [this.#of, this.#key] = [of, newKey()];
    try {
      const answer = await request(this.#key);
      this.#of = null;
      return answer;
    } catch (error) {
      if (error instanceof Refused) this.#of = null;
      throw error;
    }
  }
}

/** The result of `work`, while the button is disabled. */
export async function whileDisabled(button, work) {
  button.disabled = true;
  try {
    return await work();
  } finally {
    button.disabled = false;
  }
}
