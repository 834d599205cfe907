// Clients of several makers, unmodified: what they get must not depend on what the upstream speaks.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import Anthropic from '@anthropic-ai/sdk';
import { ChatOpenAI } from '@langchain/openai';
import { createLLMGateway } from '@llmgateway/ai-sdk-provider';
import { createOpenRouter } from '@openrouter/ai-sdk-provider';
import { Output, embedMany, generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';

import { EMBEDDING_MODELS, MODELS, PNG, SENTENCE, World } from './world.mjs';

let world;
before(async () => {
  world = await World.start();
});
after(async () => {
  try {
    await world?.stop();
  } finally {
    world?.kill();
  }
});

const root = () => world.baseURL.replace(/\/v1$/, '');
const PLACE = {
  type: 'object',
  properties: { place: { type: 'string' }, unit: { type: 'string', enum: ['celsius', 'fahrenheit'] } },
  required: ['place', 'unit'],
  additionalProperties: false,
};
const ask = (content) => [{ role: 'user', content }];

for (const model of MODELS) {
  describe(`OpenAI SDK, ${model}`, () => {
    const client = () => new OpenAI({ baseURL: world.baseURL, apiKey: world.apiKey });
    const tools = [{ type: 'function', function: { name: 'get_weather', parameters: PLACE } }];

    test('chat and stream', async () => {
      const answer = await client().chat.completions.create({ model, messages: ask('Hello!') });
      assert.equal(answer.choices[0].message.content, SENTENCE);
      assert.ok(answer.usage.completion_tokens > 0);
      const stream = client().chat.completions.stream({ model, messages: ask('Hello!') });
      assert.equal((await stream.finalChatCompletion()).choices[0].message.content, SENTENCE);
    });

    test('a full tool loop, streamed', async () => {
      const messages = ask('Weather in Paris?');
      const first = await client().chat.completions.stream({ model, messages, tools }).finalChatCompletion();
      const [call] = first.choices[0].message.tool_calls;
      assert.equal(first.choices[0].finish_reason, 'tool_calls');
      assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ['place', 'unit']);
      messages.push(first.choices[0].message, { role: 'tool', tool_call_id: call.id, content: '21 degrees' });
      const second = await client().chat.completions.create({ model, messages, tools });
      assert.equal(second.choices[0].message.content, SENTENCE);
    });

    test('structured output and an image', async () => {
      const schema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'], additionalProperties: false };
      const answer = await client().chat.completions.create({
        model,
        messages: ask([
          { type: 'text', text: 'What is this?' },
          { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG}` } },
        ]),
        response_format: { type: 'json_schema', json_schema: { name: 'thing', schema, strict: true } },
      });
      assert.equal(typeof JSON.parse(answer.choices[0].message.content).name, 'string');
    });
  });

  describe(`Anthropic SDK, ${model}`, () => {
    const client = () => new Anthropic({ baseURL: root(), apiKey: world.apiKey });
    const tools = [{ name: 'get_weather', input_schema: PLACE }];

    test('messages and stream', async () => {
      const answer = await client().messages.create({ model, max_tokens: 100, messages: ask('Hello!') });
      assert.equal(answer.content[0].text, SENTENCE);
      const stream = client().messages.stream({ model, max_tokens: 100, messages: ask('Hello!') });
      assert.equal((await stream.finalMessage()).content[0].text, SENTENCE);
    });

    test('a full tool loop, streamed', async () => {
      const messages = ask('Weather in Paris?');
      const first = await client().messages.stream({ model, max_tokens: 100, messages, tools }).finalMessage();
      assert.equal(first.stop_reason, 'tool_use');
      const call = first.content.find((block) => block.type === 'tool_use');
      messages.push({ role: 'assistant', content: first.content });
      messages.push({ role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: '21 degrees' }] });
      const second = await client().messages.create({ model, max_tokens: 100, messages, tools });
      assert.equal(second.content[0].text, SENTENCE);
    });

    test('an image', async () => {
      const source = { type: 'base64', media_type: 'image/png', data: PNG };
      const messages = ask([{ type: 'image', source }, { type: 'text', text: 'What is this?' }]);
      const answer = await client().messages.create({ model, max_tokens: 100, messages });
      assert.equal(answer.content[0].text, SENTENCE);
    });
  });

  const providers = {
    '@ai-sdk/openai': () => createOpenAI({ baseURL: world.baseURL, apiKey: world.apiKey }).chat(model),
    '@ai-sdk/anthropic': () => createAnthropic({ baseURL: world.baseURL, apiKey: world.apiKey })(model),
    '@openrouter/ai-sdk-provider': () =>
      createOpenRouter({ baseURL: `${root()}/api/v1`, apiKey: world.apiKey }).chat(model),
    '@llmgateway/ai-sdk-provider': () => createLLMGateway({ baseURL: world.baseURL, apiKey: world.apiKey })(model),
  };
  for (const [name, create] of Object.entries(providers)) {
    describe(`Vercel AI SDK with ${name}, ${model}`, () => {
      const tools = () => ({
        weather: tool({
          description: 'Weather at a place',
          inputSchema: z.object({ place: z.string(), unit: z.enum(['celsius', 'fahrenheit']) }),
          execute: async () => '21 degrees',
        }),
      });

      test('text', async () => {
        const { text, usage } = await generateText({ model: create(), prompt: 'Hello!', maxRetries: 0 });
        assert.equal(text, SENTENCE);
        assert.ok(usage.outputTokens > 0);
      });

      test('a stream', async () => {
        const { textStream } = streamText({ model: create(), prompt: 'Hello!', maxRetries: 0 });
        let text = '';
        for await (const piece of textStream) text += piece;
        assert.equal(text, SENTENCE);
      });

      test('a full tool loop', async () => {
        const { text, steps } = await generateText({
          model: create(), prompt: 'Weather in Paris?', tools: tools(), stopWhen: stepCountIs(3), maxRetries: 0,
        });
        assert.equal(text, SENTENCE);
        assert.deepEqual(steps.flatMap((step) => step.toolCalls.map((call) => call.toolName)), ['weather']);
      });

      test('structured output', async () => {
        const schema = z.object({ name: z.string(), population: z.number() });
        const { output } = await generateText({
          model: create(), prompt: 'A city', output: Output.object({ schema }), maxRetries: 0,
        });
        assert.equal(typeof output.name, 'string');
      });

      test('an image', async () => {
        const content = [
          { type: 'text', text: 'What is this?' },
          { type: 'image', image: Buffer.from(PNG, 'base64'), mediaType: 'image/png' },
        ];
        const { text } = await generateText({ model: create(), messages: [{ role: 'user', content }], maxRetries: 0 });
        assert.equal(text, SENTENCE);
      });
    });
  }

  test(`LangChain.js, ${model}: chat and stream`, async () => {
    const chat = new ChatOpenAI({ model, apiKey: world.apiKey, configuration: { baseURL: world.baseURL } });
    assert.equal((await chat.invoke('Hello!')).text, SENTENCE);
    let text = '';
    for await (const chunk of await chat.stream('Hello!')) text += chunk.text;
    assert.equal(text, SENTENCE);
  });
}

for (const model of EMBEDDING_MODELS) {
  test(`embeddings, ${model}`, async () => {
    const openai = createOpenAI({ baseURL: world.baseURL, apiKey: world.apiKey });
    const { embeddings } = await embedMany({ model: openai.embedding(model), values: ['one', 'two'] });
    assert.equal(embeddings.length, 2);
    const own = await new OpenAI({ baseURL: world.baseURL, apiKey: world.apiKey }).embeddings.create({ model, input: 'one' });
    assert.ok(own.data[0].embedding.length > 0);
  });
}
