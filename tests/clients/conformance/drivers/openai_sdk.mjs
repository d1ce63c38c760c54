// Drives openai-node: over HTTP and over its WebSocket.

import { described, load, run } from "./reporting.mjs";

const { default: OpenAI } = await load("openai");
const TERMINAL = new Set(["response.completed", "response.failed", "response.incomplete", "error"]);
const TOOL = {
  type: "function",
  name: "weather",
  description: "Tells the weather.",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

function client(task, seen) {
  seen.requests = 0;
  const counted = (...request) => {
    seen.requests += 1;
    return fetch(...request);
  };
  const more = task.options.client ?? {};
  return new OpenAI({ baseURL: task.base_url, apiKey: task.key, fetch: counted, ...more });
}

function asked(task, more = {}) {
  return { model: "mock", input: "hello you", ...task.options.create, ...more };
}

async function create(task, seen) {
  const response = await client(task, seen).responses.create(asked(task));
  seen.response = response;
  seen.text = response.output_text;
}

async function stream(task, seen) {
  seen.events = [];
  const events = await client(task, seen).responses.create(asked(task, { stream: true }));
  for await (const event of events) seen.events.push(event);
}

async function streamHelper(task, seen) {
  seen.events = [];
  const events = client(task, seen).responses.stream(asked(task));
  for await (const event of events) seen.events.push(event.type);
  seen.text = (await events.finalResponse()).output_text;
}

async function tool(task, seen) {
  const { responses } = client(task, seen);
  const question = { role: "user", content: "Weather in Oslo?" };
  const common = { model: "mock-tool", tools: [TOOL] };
  const first = await responses.create({ ...common, input: [question] });
  seen.calls = first.output;
  const call = first.output.find((item) => item.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "4 degrees" };
  const second = await responses.create({
    ...common,
    input: [result],
    previous_response_id: first.id,
  });
  seen.text = second.output_text;
}

// Several turns on one connection.
async function websocket(task, seen) {
  const { ResponsesWS } = await load("openai/resources/responses/ws");
  const connection = new ResponsesWS(client(task, seen));
  const arrived = [];
  let wake = () => {};
  const note = (message) => {
    arrived.push(message);
    wake();
  };
  connection.on("event", note);
  connection.on("error", (error) => note({ type: "(error)", error: described(error) }));
  connection.socket.on("close", (code) => note({ type: "(close)", code }));
  seen.turns = [];
  for (const options of task.options.turns) {
    const turn = { events: [] };
    const request = { type: "response.create", ...options.create };
    if (options.chained) {
      request.previous_response_id = seen.turns.at(-1).events.at(-1).response.id;
    }
    seen.turns.push(turn);
    try {
      connection.send(request);
    } catch (error) {
      turn.error = described(error);
      continue;
    }
    for (;;) {
      if (arrived.length === 0) await new Promise((resolve) => (wake = resolve));
      const event = arrived.shift();
      if (event === undefined) continue;
      turn.events.push(event);
      if (TERMINAL.has(event.type) || event.type === "(close)") break;
    }
    const deltas = turn.events.filter((event) => event.type === "response.output_text.delta");
    turn.text = deltas.map((event) => event.delta).join("");
  }
  connection.close();
}

await run("openai", { create, stream, streamHelper, tool, websocket });
