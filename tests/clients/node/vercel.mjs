// Vercel's AI SDK: OpenAI's provider, by either of its interfaces, and the one for the compatible.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { HELLO, Weather, crowd, grey } from "./words.mjs";

export function at(baseURL, apiKey) {
  const own = createOpenAI({ baseURL, apiKey });
  const like = createOpenAICompatible({
    name: "mobius",
    baseURL,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return {
    "vercel-chat": deeds((name) => own.chat(name), (name) => own.embedding(name)),
    "vercel-responses": deeds((name) => own.responses(name), (name) => own.embedding(name)),
    "vercel-compatible": deeds((name) => like(name), (name) => like.embeddingModel(name)),
  };
}

function deeds(model, vectors) {
  const tools = {
    weather: tool({
      description: "Of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: grey,
    }),
  };

  function asked(name, more = {}) {
    return { model: model(name), messages: HELLO, maxRetries: 0, ...more };
  }

  // A stream that fails says so in a part, and to whoever asked to hear of it.
  async function streamed(name, more) {
    let failed;
    const onError = ({ error }) => (failed = error);
    const stream = streamText(asked(name, { onError, ...more }));
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    if (failed) throw failed;
    return text;
  }

  return {
    async whole(name) {
      const { text, usage } = await generateText(asked(name));
      return { text, usage: [usage.inputTokens, usage.outputTokens] };
    },
    async stream(name) {
      return { text: await streamed(name) };
    },
    async tools(name) {
      return { text: (await generateText(asked(name, { tools, stopWhen: stepCountIs(3) }))).text };
    },
    async streamedTools(name) {
      return { text: await streamed(name, { tools, stopWhen: stepCountIs(3) }) };
    },
    async structure(name) {
      return (await generateText(asked(name, { output: Output.object({ schema: Weather }) }))).output;
    },
    async vectors(name) {
      const found = await embedMany({ model: vectors(name), values: ["a", "b"], maxRetries: 0 });
      return found.embeddings.map((vector) => vector[0]);
    },
    async headers(name) {
      const { response } = await generateText(asked(name));
      return { target: response.headers["x-mobius-target"], id: response.headers["x-request-id"] };
    },
    async crowd(name) {
      return crowd((number) => {
        const messages = [{ role: "user", content: `number ${number}` }];
        return streamed(name, { messages });
      });
    },
    async leave(name) {
      const leaving = new AbortController();
      const stream = streamText(asked(name, { abortSignal: leaving.signal, onError() {} }));
      for await (const _ of stream.textStream) leaving.abort();
      return { left: true };
    },
    async broken(name) {
      return { text: await streamed(name) };
    },
  };
}
