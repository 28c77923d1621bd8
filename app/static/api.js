// Requests to the service; an error response is thrown as an error with its message.
//
// A busy service is asked again, and one that does not know the user any more after a new sign-in.

// Overloaded, temporarily unavailable; 409 comes with Retry-After while a classifier is adapted again.
const BUSY = [429, 503];
const LONGEST_PAUSE_S = 10;
let waiting = 0;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service responded with status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** What the page does meanwhile: `busy` is called with the seconds until the next try, and with null when no request waits
 * any more; `signIn` resolves to whether the user has signed in again. */
export const meanwhile = { busy: () => {}, signIn: async () => false };

async function request(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** Where a path of the service is: beside the page, which a proxy may serve below a prefix. */
const address = (path) => path.replace(/^\//, "");

/** `delayed` is called whenever the request has to wait. */
async function send(method, path, { delayed = () => {}, ...options } = {}) {
  for (;;) {
    const response = await tried(method, path, options);
    if (response.ok) return response;
    const error = new Refused(response.status, await response.json().catch(() => ({})));
    const pause = pauseOf(response);
    if (response.status === 401 && path !== "/session") {
      delayed();
      if (!(await meanwhile.signIn())) throw error;
    } else if (pause) {
      delayed();
      await waited(pause, options.signal);
    } else throw error;
  }
}

async function tried(method, path, { headers = {}, ...rest }) {
  try {
    // Proves that the request comes from this page: another site cannot send this header.
    return await fetch(address(path), { method, headers: { "X-Requested-With": "lamanas", ...headers }, ...rest });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the service does not respond; is it still running?");
  }
}

/** The seconds after which a refused request is sent again; 0: it is not. */
function pauseOf({ status, headers }) {
  const after = Number(headers.get("Retry-After"));
  if (!BUSY.includes(status) && !(status === 409 && after)) return 0;
  return Math.min(Math.max(after || 2, 1), LONGEST_PAUSE_S);
}

async function waited(seconds, signal) {
  waiting += 1;
  meanwhile.busy(seconds);
  await new Promise((done) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", () => done(clearTimeout(timer)));
  });
  waiting -= 1;
  if (!waiting) meanwhile.busy(null);
}

/** What the service accepts at most, as `GET /session` tells it; known once somebody is signed in. */
export let limits = null;

async function signedIn(answer) {
  const who = await answer;
  limits = who.limits;
  return who;
}

export const session = () => signedIn(request("GET", "/session"));
export const signIn = (token) => signedIn(request("POST", "/session", { headers: { Authorization: `Bearer ${token}` } }));
export const signOut = () => request("DELETE", "/session");

export const examples = () => request("GET", "/examples");
export const models = () => request("GET", "/models");
export const activate = (version) => request("POST", `/models/${encodeURIComponent(version)}/activate`);

/** The presets that `POST /train` accepts, according to the OpenAPI document. */
export const presets = async () => (await request("GET", "/openapi.json")).components.schemas.TrainBody.properties.preset.enum;

export const queues = () => request("GET", "/queues");
export const trainings = (limit) => request("GET", `/train?limit=${limit}`);
export const cancelTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/cancel`);
export const resumeTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/resume`);
export function train(options, key) {
  return request("POST", "/train", { body: JSON.stringify(options), headers: { "Content-Type": "application/json", "Idempotency-Key": key } });
}

export const episode = (id) => request("GET", `/episodes/${encodeURIComponent(id)}`);
export const episodes = (limit) => request("GET", `/episodes?limit=${limit}`);
export const deleteEpisode = (id) => request("DELETE", `/episodes/${encodeURIComponent(id)}`);
export const modelAddress = (id) => address(`/episodes/${encodeURIComponent(id)}/model.onnx`);
export const model = async (id) => (await send("GET", modelAddress(id))).blob();
export const thumbnailAddress = (id) => address(`/episodes/${encodeURIComponent(id)}/thumbnail.png`);
export const eventsAddress = (id) => address(`/episodes/${encodeURIComponent(id)}/events`);

/** A key for a request that may be retried. (Over plain HTTP, except from this machine, there is no randomUUID.) */
export const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

/** Creates an episode. `key` makes it safe to repeat the request when its response was lost. */
export function adapt(form, key) {
  return request("POST", "/episodes", { body: form, headers: { "Idempotency-Key": key } });
}

/** The stored images of an episode. */
export const support = (id) => request("GET", `/episodes/${encodeURIComponent(id)}/support`);

/** Creates an episode from the corrected images of a finished one. */
export function correct(id, form, key) {
  return request("POST", `/episodes/${encodeURIComponent(id)}/support`, { body: form, headers: { "Idempotency-Key": key } });
}

/** Predictions for image files, in the same order. `options`: {signal, delayed} as for other requests. */
export async function predict(id, files, options) {
  const form = new FormData();
  form.append("episode_id", id);
  files.forEach((file, at) => form.append("images", file, file.name || `drawing ${at + 1}.png`));
  return (await request("POST", "/predict", { body: form, ...options })).predictions;
}
