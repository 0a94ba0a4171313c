// OpenAI's own client for Node.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { HELLO, PARAMETERS, Weather, crowd, grey } from "./words.mjs";

export function at(baseURL, apiKey) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const tool = { name: "weather", description: "Of a city", parameters: PARAMETERS };

  async function streamed(model, content, options) {
    const messages = [{ role: "user", content }];
    const asked = { model, messages, stream: true };
    let text = "";
    for await (const chunk of await client.chat.completions.create(asked, options)) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    return text;
  }

  return {
    async whole(model) {
      const answer = await client.chat.completions.create({ model, messages: HELLO });
      const { usage, choices } = answer;
      return { text: choices[0].message.content, usage: [usage.prompt_tokens, usage.completion_tokens] };
    },
    async stream(model) {
      const text = await streamed(model, HELLO[0].content);
      const stream = client.chat.completions.stream({ model, messages: HELLO });
      return { text, again: (await stream.finalChatCompletion()).choices[0].message.content };
    },
    async tools(model) {
      const run = client.chat.completions.runTools({
        model,
        messages: HELLO,
        tools: [{ type: "function", function: { ...tool, parse: JSON.parse, function: grey } }],
      });
      return { text: await run.finalContent() };
    },
    async structure(model) {
      const response_format = zodResponseFormat(Weather, "weather");
      const answer = await client.chat.completions.parse({ model, messages: HELLO, response_format });
      return answer.choices[0].message.parsed;
    },
    async responses(model) {
      const answer = await client.responses.create({ model, input: HELLO });
      const kinds = [];
      const stream = client.responses.stream({ model, input: HELLO });
      for await (const event of stream) kinds.push(event.type);
      const again = (await stream.finalResponse()).output_text;
      return { text: answer.output_text, again, ends: [kinds[0], kinds.at(-1)] };
    },
    async respondedStructure(model) {
      const text = { format: zodTextFormat(Weather, "weather") };
      return (await client.responses.parse({ model, input: HELLO, text })).output_parsed;
    },
    async vectors(model) {
      const found = await client.embeddings.create({ model, input: ["a", "b"] });
      return found.data.map((item) => item.embedding[0]);
    },
    async headers(model) {
      const asked = client.chat.completions.create({ model, messages: HELLO });
      const { response, request_id } = await asked.withResponse();
      return { target: response.headers.get("x-mobius-target"), id: request_id };
    },
    async crowd(model) {
      return crowd((number) => streamed(model, `number ${number}`));
    },
    async leave(model) {
      const stream = await client.chat.completions.create({ model, messages: HELLO, stream: true });
      for await (const chunk of stream) {
        if (chunk.choices[0]?.delta?.content) break; // which ends the request
      }
      return { left: true };
    },
    async broken(model) {
      return { text: await streamed(model, HELLO[0].content) };
    },
  };
}
