// Requests to the service; an error response is thrown as an error with its message.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service responded with status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function request(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** Where a path of the service is: beside the page, which a proxy may serve below a prefix. */
const address = (path) => path.replace(/^\//, "");

async function send(method, path, { headers = {}, ...rest } = {}) {
  let response;
  try {
    // Proves that the request comes from this page: another site cannot send this header.
    response = await fetch(address(path), { method, headers: { "X-Requested-With": "lamanas", ...headers }, ...rest });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the service does not respond; is it still running?");
  }
  if (response.ok) return response;
  throw new Refused(response.status, await response.json().catch(() => ({})));
}

export const session = () => request("GET", "/session");
export const signIn = (token) => request("POST", "/session", { headers: { Authorization: `Bearer ${token}` } });
export const signOut = () => request("DELETE", "/session");

export const examples = () => request("GET", "/examples");
export const models = () => request("GET", "/models");
export const activate = (version) => request("POST", `/models/${encodeURIComponent(version)}/activate`);

/** The presets that `POST /train` accepts, according to the OpenAPI document. */
export const presets = async () => (await request("GET", "/openapi.json")).components.schemas.TrainBody.properties.preset.enum;

export const queues = () => request("GET", "/queues");
export const trainings = (limit) => request("GET", `/train?limit=${limit}`);
export const training = (id) => request("GET", `/train/${encodeURIComponent(id)}`);
export const trainingEvents = (id) => address(`/train/${encodeURIComponent(id)}/events`);
export const cancelTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/cancel`);
export const resumeTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/resume`);
export function train(options) {
  return request("POST", "/train", { body: JSON.stringify(options), headers: { "Content-Type": "application/json" } });
}

export const episode = (id) => request("GET", `/episodes/${encodeURIComponent(id)}`);
export const episodes = (limit) => request("GET", `/episodes?limit=${limit}`);
export const deleteEpisode = (id) => request("DELETE", `/episodes/${encodeURIComponent(id)}`);
export const modelAddress = (id) => address(`/episodes/${encodeURIComponent(id)}/model.onnx`);
export const model = async (id) => (await send("GET", modelAddress(id))).blob();
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

/** Predictions for image files, in the same order. */
export async function predict(id, files, signal) {
  const form = new FormData();
  form.append("episode_id", id);
  files.forEach((file, at) => form.append("images", file, file.name || `drawing ${at + 1}.png`));
  return (await request("POST", "/predict", { body: form, signal })).predictions;
}
