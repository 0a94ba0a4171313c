// What every client says; the same as in words.py.
import { z } from "zod";

const CROWD = 50;

export const HELLO = [{ role: "user", content: "hello, 世界" }];
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
export const Weather = z.object({ city: z.string(), sky: z.enum(["clear", "grey"]) });

export function grey({ city }) {
  return `grey in ${city}`;
}

// What each of a crowd is told, all at once.
export function crowd(ask) {
  return Promise.all(Array.from({ length: CROWD }, (_, number) => ask(number)));
}
