// OpenAI's own client for Node, unchanged, with every route of the gateway. Prints what it got as one JSON document.
import OpenAI, { toFile } from "openai";
import { createReadStream } from "node:fs";

const [url, file, key, suspended, counted] = process.argv.slice(2);
const as = (apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = as(key);

const scenes = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    const one = await client.models.retrieve("whisper-1");
    return { ids, one: one.id };
  },
  async images() {
    const made = await client.images.generate({ model: "sdxl", prompt: "a dog", n: 2, size: "512x512" });
    return { images: made.data.map((image) => image.b64_json), format: made.output_format };
  },
  async edit() {
    const image = await toFile(Buffer.from("image"), "a.png", { type: "image/png" });
    const mask = await toFile(Buffer.from("mask"), "b.png", { type: "image/png" });
    const made = await client.images.edit({ image, mask, prompt: "winter", model: "sdxl" });
    return { images: made.data.length };
  },
  async edits() {
    const image = await toFile(Buffer.from("image"), "a.png", { type: "image/png" });
    return client.images.edit({ image: [image, image], prompt: "winter", model: "sdxl" });
  },
  async speech() {
    const answer = await client.audio.speech.create({ model: "xtts", voice: "alloy", input: "Hello", response_format: "wav" });
    const sound = Buffer.from(await answer.arrayBuffer());
    return { sound: sound.toString("base64"), type: answer.headers.get("content-type") };
  },
  async fileFirst() {
    return client.audio.transcriptions.create({ file: createReadStream(file), model: "whisper", language: "en" });
  },
  async fileBetween() {
    return client.audio.transcriptions.create({
      model: "whisper",
      file: createReadStream(file),
      response_format: "verbose_json",
      timestamp_granularities: ["word", "segment"],
    });
  },
  async subtitles() {
    return client.audio.transcriptions.create({ file: createReadStream(file), model: "whisper", response_format: "srt" });
  },
  async transcriptionEvents() {
    const events = [];
    const stream = await client.audio.transcriptions.create({ file: createReadStream(file), model: "whisper", stream: true });
    for await (const event of stream) events.push(event);
    return events;
  },
  async translation() {
    return client.audio.translations.create({ file: createReadStream(file), model: "whisper" });
  },
  async chat() {
    const answer = await client.chat.completions.create({ model: "blip2", messages: question("What is it?") });
    return { content: answer.choices[0].message.content, tokens: answer.usage.completion_tokens };
  },
  async chatEvents() {
    let content = "";
    const stream = await client.chat.completions.create({ model: "blip2", messages: question("What?"), stream: true });
    for await (const chunk of stream) content += chunk.choices[0]?.delta?.content ?? "";
    return { content };
  },
  async badToken() {
    return as("sk-nonsense").models.list();
  },
  async notAllowed() {
    return as(suspended).models.list();
  },
  async overLimit() {
    const draw = () => as(counted).images.generate({ model: "sdxl", prompt: "a dog" });
    await draw();
    return draw();
  },
  async keyReused() {
    const options = { headers: { "Idempotency-Key": "8e03978e" } };
    await client.images.generate({ model: "sdxl", prompt: "a dog" }, options);
    return client.images.generate({ model: "sdxl", prompt: "a cat" }, options);
  },
  async serviceAway() {
    return client.images.generate({ model: "away", prompt: "a dog" });
  },
  async noSuchModel() {
    return client.images.generate({ model: "gpt-image-9", prompt: "a dog" });
  },
  async badParameter() {
    return client.images.generate({ model: "sdxl", prompt: "a dog", response_format: "url" });
  },
  async abort() {
    const answer = await client.audio.speech.create({ model: "xtts", voice: "default", input: "Hello again" });
    const reader = answer.body.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return { first: value.length };
  },
};

function question(text) {
  const url = `data:image/png;base64,${Buffer.from("image").toString("base64")}`;
  return [{ role: "user", content: [{ type: "text", text }, { type: "image_url", image_url: { url } }] }];
}

const results = {};
for (const [name, scene] of Object.entries(scenes)) {
  try {
    results[name] = await scene();
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status, code, param, type, message, requestID } = error;
    results[name] = { error: error.constructor.name, status, code, param, type, message, requestID };
  }
}
console.log(JSON.stringify(results));
