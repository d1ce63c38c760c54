// Drives the AI SDK with its OpenAI provider.

import { load, run } from "./reporting.mjs";

const { generateText, streamText, Output, stepCountIs, tool } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { z } = await load("zod");

globalThis.AI_SDK_LOG_WARNINGS = false;

function model(task, name = "mock") {
  return createOpenAI({ baseURL: task.base_url, apiKey: task.key }).responses(name);
}

const common = { prompt: "hello you", maxRetries: 0 };

async function generate(task, seen) {
  const maxRetries = task.options.maxRetries ?? 0;
  const result = await generateText({ ...common, maxRetries, model: model(task) });
  seen.text = result.text;
  seen.finishReason = result.finishReason;
  seen.response = result.response.id;
}

async function stream(task, seen) {
  seen.parts = [];
  const onError = () => {};
  const result = streamText({ ...common, model: model(task), onError });
  for await (const part of result.fullStream) {
    if (part.type === "error") {
      const { name, message, isRetryable } = part.error;
      seen.parts.push(["error", message, name ?? null, isRetryable ?? null]);
    } else {
      seen.parts.push([part.type, part.text ?? null]);
    }
  }
}

async function object(task, seen) {
  const schema = z.object({ city: z.string(), degrees: z.number() });
  const output = Output.object({ schema });
  seen.parsed = (await generateText({ ...common, model: model(task), output })).output;
}

async function calls(task, seen) {
  const weather = tool({
    description: "Tells the weather.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `4 degrees in ${city}`,
  });
  const result = await generateText({
    ...common,
    model: model(task, "mock-tool"),
    tools: { weather },
    stopWhen: stepCountIs(3),
    providerOptions: { openai: { store: task.options.store ?? true } },
  });
  seen.text = result.text;
  seen.steps = result.steps.map((step) => ({
    calls: step.toolCalls.map(({ toolName, input }) => ({ toolName, input })),
    results: step.toolResults.map(({ output }) => output),
  }));
}

await run("ai", { generate, stream, object, calls });
