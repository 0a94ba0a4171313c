// One deed of one client: `node ask.mjs CLIENT DEED URL KEY MODEL`. What came of it is printed as
// JSON; a failure too, by what the client's own exception says of it.
import * as openai from "./openai.mjs";
import * as vercel from "./vercel.mjs";

const [, , client, deed, url, key, model] = process.argv;
const clients = {
  openai: openai.at(url, key),
  ...vercel.at(url, key),
};

function failure(error) {
  const said = error.lastError ?? error;
  const headers = said.responseHeaders ?? Object.fromEntries(said.headers ?? []);
  return {
    failed: said.constructor.name,
    status: said.statusCode ?? said.status,
    message: said.message,
    retryAfter: headers["retry-after"],
  };
}

const told = await clients[client][deed](model).catch(failure);
process.stdout.write(JSON.stringify(told));
