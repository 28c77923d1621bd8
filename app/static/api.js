// The service: every refusal becomes an error that speaks its words.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function request(method, path, options) {
  const response = await answer(method, path, options);
  return response.status === 204 ? null : response.json();
}

async function answer(method, path, { headers = {}, ...rest } = {}) {
  let response;
  try {
    // The header shows that the request comes from this page: another site's cannot send it.
    response = await fetch(path, { method, headers: { "X-Requested-With": "lamanas", ...headers }, ...rest });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the service does not answer; is it still running?");
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

/** The names that `POST /train` takes as a preset, from the API's own description. */
export const presets = async () => (await request("GET", "/openapi.json")).components.schemas.TrainBody.properties.preset.enum;

export const queues = () => request("GET", "/queues");
export const trainings = (limit) => request("GET", `/train?limit=${limit}`);
export const training = (id) => request("GET", `/train/${encodeURIComponent(id)}`);
export const trainingEvents = (id) => `/train/${encodeURIComponent(id)}/events`;
export const cancelTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/cancel`);
export const resumeTraining = (id) => request("POST", `/train/${encodeURIComponent(id)}/resume`);
export function train(asked) {
  return request("POST", "/train", { body: JSON.stringify(asked), headers: { "Content-Type": "application/json" } });
}

export const episode = (id) => request("GET", `/episodes/${encodeURIComponent(id)}`);
export const episodes = (limit) => request("GET", `/episodes?limit=${limit}`);
export const deleteEpisode = (id) => request("DELETE", `/episodes/${encodeURIComponent(id)}`);
export const modelAddress = (id) => `/episodes/${encodeURIComponent(id)}/model.onnx`;
export const model = async (id) => (await answer("GET", modelAddress(id))).blob();
export const eventsAddress = (id) => `/episodes/${encodeURIComponent(id)}/events`;

/** A key for a request that may have to be sent again. (Pages over plain HTTP from elsewhere have no randomUUID.) */
export const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

/** A new episode. `key` makes it safe to send the same again when an answer got lost. */
export function adapt(form, key) {
  return request("POST", "/episodes", { body: form, headers: { "Idempotency-Key": key } });
}

/** The images of an episode, as they were stored. */
export const support = (id) => request("GET", `/episodes/${encodeURIComponent(id)}/support`);

/** A new episode of a finished one's images, changed. */
export function correct(id, form, key) {
  return request("POST", `/episodes/${encodeURIComponent(id)}/support`, { body: form, headers: { "Idempotency-Key": key } });
}

/** Predictions for image files, in their order. */
export async function predict(id, files, signal) {
  const form = new FormData();
  form.append("episode_id", id);
  files.forEach((file, at) => form.append("images", file, file.name || `drawing ${at + 1}.png`));
  return (await request("POST", "/predict", { body: form, signal })).predictions;
}
