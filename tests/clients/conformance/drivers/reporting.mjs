// What every Node driver has: tasks on stdin, what the client saw as JSON on stdout.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.CLIENT_FOLDER;
const require = createRequire(join(folder, "package.json"));

// Loads a package of this client's environment.
export async function load(name) {
  return import(pathToFileURL(require.resolve(name)).href);
}

// Does the tasks one after the other; what the client throws is part of what it saw.
export async function run(name, actions) {
  const file = join(folder, "node_modules", name, "package.json");
  const { version } = JSON.parse(readFileSync(file, "utf8"));
  const seen = [];
  for (const task of JSON.parse(readFileSync(0, "utf8"))) {
    const document = {};
    try {
      await actions[task.action](task, document);
    } catch (error) {
      document.error = described(error);
    }
    seen.push(document);
  }
  process.stdout.write(`${JSON.stringify({ version, seen })}\n`, () => process.exit(0));
}

// What a program can learn from an error.
export function described(error) {
  return {
    class: error.constructor.name,
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    param: error.param ?? null,
    message: error.message,
    retryable: error.isRetryable ?? null,
    retry_after: headerOf(error, "retry-after"),
    cause: error.cause?.constructor.name ?? null,
  };
}

function headerOf(error, name) {
  if (typeof error.headers?.get === "function") return error.headers.get(name);
  return error.responseHeaders?.[name] ?? null;
}
