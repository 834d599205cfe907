// The official OpenAI SDK for Node against `nemo standalone` (R000-1, R000-6, R001-1, R004-26, R004-27, E.1, E.3).
// Only `baseURL` and `apiKey` differ from stock code.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI, { toFile } from 'openai';

import { Gateway, Upstream, eventually } from './gateway.mjs';

const model = 'demo-chat';
const says = (content) => [{ role: 'user', content }];
const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: { type: 'object', properties: { place: { type: 'string' } }, required: ['place'] },
  },
};

for (const name of Object.keys(process.env)) if (name.startsWith('OPENAI_')) delete process.env[name];

let gateway, upstream, client;

before(async () => {
  upstream = await Upstream.start();
  gateway = await Gateway.start();
  client = new OpenAI({ baseURL: gateway.baseURL, apiKey: gateway.apiKey });
  for (const name of ['broken', 'cut-off']) await gateway.deploy(upstream, name);
  await eventually('the models are served', async () => {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    return ['broken', 'cut-off'].every((id) => ids.includes(id)) ? ids : undefined;
  });
});

after(async () => {
  upstream?.stop();
  try {
    await gateway?.stop();
  } finally {
    gateway?.kill();
  }
});

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) =>
  chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? '').join('');

describe('chat', () => {
  test('an answer, its usage and its headers', async () => {
    const { data, response, request_id } = await client.chat.completions
      .create({ model, messages: says('Hello!'), temperature: 1, max_tokens: 1024, top_p: 1 })
      .withResponse();
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.model, model);
    assert.equal(data.choices[0].finish_reason, 'stop');
    assert.match(data.choices[0].message.content, /Hello!/);
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.equal(data._request_id, request_id);
    assert.equal(response.headers.get('x-request-id'), request_id);
    assert.equal(response.headers.get('x-nemo-provider'), 'demo');
    assert.equal(response.headers.get('x-nemo-cost-source'), 'priced');
    const row = await gateway.row(request_id);
    assert.equal(row.outcome, 'ok');
    assert.equal(row.input_tokens, data.usage.prompt_tokens);
    assert.equal(row.output_tokens, data.usage.completion_tokens);
    assert.equal(row.cost_usd, response.headers.get('x-nemo-cost-usd'));
  });

  test('a tool is called and its result used', async () => {
    const messages = says('Weather in Oslo?');
    const asked = await client.chat.completions.create({ model, messages, tools: [weather] });
    const [call] = asked.choices[0].message.tool_calls;
    assert.equal(asked.choices[0].finish_reason, 'tool_calls');
    assert.equal(call.function.name, 'get_weather');
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['place']);
    messages.push(asked.choices[0].message, { role: 'tool', tool_call_id: call.id, content: '4 degrees' });
    const final = await client.chat.completions.create({ model, messages, tools: [weather] });
    assert.match(final.choices[0].message.content, /4 degrees/);
  });

  test("the SDK's own loop runs the caller's function", async () => {
    const asked = [];
    const run = (input) => {
      asked.push(input);
      return 'sunny';
    };
    const tool = { type: 'function', function: { ...weather.function, function: run, parse: JSON.parse } };
    const runner = client.chat.completions.runTools({ model, messages: says('Weather?'), tools: [tool] });
    assert.match(await runner.finalContent(), /sunny/);
    assert.equal(asked.length, 1);
  });

  test('structured output and JSON mode', async () => {
    const schema = {
      type: 'object', additionalProperties: false, required: ['title', 'minutes'],
      properties: { title: { type: 'string' }, minutes: { type: 'integer' } },
    };
    const response_format = { type: 'json_schema', json_schema: { name: 'recipe', strict: true, schema } };
    const parsed = await client.chat.completions.parse({ model, messages: says('soup'), response_format });
    assert.equal(typeof parsed.choices[0].message.parsed.title, 'string');
    assert.ok(Number.isInteger(parsed.choices[0].message.parsed.minutes));
  });

  test('the alias for clients of OpenRouter', async () => {
    const baseURL = gateway.baseURL.replace(/\/v1$/, '/api/v1');
    const alias = new OpenAI({ baseURL, apiKey: gateway.apiKey, defaultHeaders: { 'X-Title': 'App' } });
    const answer = await alias.chat.completions.create({ model, messages: says('hi') });
    assert.ok(answer.choices[0].message.content);
  });
});

describe('streams', () => {
  test('the chunks add up to the answer, without usage that nobody asked for', async () => {
    const messages = says('one two three');
    const chunks = await collect(await client.chat.completions.create({ model, messages, stream: true }));
    assert.equal(new Set(chunks.map(({ id, created }) => `${id} ${created}`)).size, 1);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage));
    assert.deepEqual(chunks.map((chunk) => chunk.choices[0].delta.role).filter(Boolean), ['assistant']);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
    const whole = await client.chat.completions.create({ model, messages });
    assert.equal(textOf(chunks), whole.choices[0].message.content);
  });

  test('usage when asked for, in a last chunk without choices', async () => {
    const request = { model, messages: says('count'), stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create(request));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.ok(last.usage.completion_tokens > 0);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && chunk.usage === null));
  });

  test('a streamed tool call, put together by the SDK', async () => {
    const stream = client.chat.completions.stream({ model, messages: says('Weather?'), tools: [weather] });
    let deltas = 0;
    stream.on('tool_calls.function.arguments.delta', () => (deltas += 1));
    const final = await stream.finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(call.function.name, 'get_weather');
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['place']);
    assert.ok(deltas > 1, `${deltas} pieces`);
  });

  test('a caller that aborts is accounted for', async () => {
    const controller = new AbortController();
    // As long as the demo's answers get, some seconds: so much can arrive at once where the machine stands still.
    const messages = says('a '.repeat(249));
    const { data: stream, request_id } = await client.chat.completions
      .create({ model, messages, stream: true }, { signal: controller.signal })
      .withResponse();
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen === 5) controller.abort();
    }
    assert.ok(seen < 240, `${seen} chunks: the demo has more to say`);
    const row = await gateway.row(request_id);
    assert.equal(row.outcome, 'cancelled');
    assert.equal(row.usage_estimated, true);
    assert.ok(row.output_tokens > 0);
  });

  test('a stream that breaks off is an error and never an end', async () => {
    const calls = upstream.calls;
    const request = { model: 'cut-off', messages: says('hi'), stream: true };
    const { data: stream, request_id } = await client.chat.completions.create(request).withResponse();
    const chunks = [];
    await assert.rejects(
      async () => {
        for await (const chunk of stream) chunks.push(chunk);
      },
      (error) => error instanceof OpenAI.APIError && error.code === 'upstream_interrupted',
    );
    assert.equal(textOf(chunks), 'Half of an');
    assert.equal(upstream.calls - calls, 1, 'nothing is tried again');
    assert.equal((await gateway.row(request_id)).outcome, 'interrupted');
  });
});

describe('other endpoints', () => {
  test('embeddings: base64 by default, floats when asked for', async () => {
    const request = { model: 'demo-embedding', input: ['the blue whale', 'a red bus'] };
    const decoded = await client.embeddings.create(request);
    const plain = await client.embeddings.create({ ...request, encoding_format: 'float' });
    assert.equal(decoded.data.length, 2);
    for (const [at, { embedding }] of decoded.data.entries()) {
      assert.equal(embedding.length, 256);
      embedding.forEach((value, i) => assert.ok(Math.abs(value - plain.data[at].embedding[i]) < 1e-6));
    }
  });

  test('legacy completions', async () => {
    const answer = await client.completions.create({ model, prompt: 'Once upon a time' });
    assert.equal(answer.object, 'text_completion');
    assert.ok(answer.choices[0].text);
  });

  test('models', async () => {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    assert.ok(ids.includes(model) && ids.includes('demo-embedding'), ids.join(' '));
    const one = await client.models.retrieve(model);
    assert.deepEqual([one.id, one.object], [model, 'model']);
    assert.ok(one._request_id);
  });
});

describe('errors', () => {
  const ask = (options = {}, from = client, settings = {}) =>
    from.chat.completions.create({ model, messages: says('hi'), ...options }, settings);

  test('a wrong key', async () => {
    const stranger = new OpenAI({ baseURL: gateway.baseURL, apiKey: 'sk-nemo-unknown' });
    await assert.rejects(ask({}, stranger), (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, 'invalid_api_key');
      assert.ok(error.requestID);
      return true;
    });
  });

  test('an unknown model', async () => {
    await assert.rejects(ask({ model: 'demo-chut' }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.deepEqual([error.code, error.param], ['model_not_found', 'model']);
      assert.match(error.message, /demo-chat/);
      return true;
    });
  });

  test('a bad parameter is named', async () => {
    await assert.rejects(ask({ n: 'two' }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual([error.param, error.type], ['n', 'invalid_request_error']);
      return true;
    });
  });

  test('a fault of the upstream is a 502 that the SDK does not retry', async () => {
    const calls = upstream.calls;
    assert.equal(client.maxRetries, 2);
    // The gateway's own retries would be counted with those of the SDK.
    const once = { headers: { 'x-nemo-retries': '0' } };
    await assert.rejects(ask({ model: 'broken' }, client, once), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError);
      assert.deepEqual([error.status, error.code], [502, 'fallback_chain_exhausted']);
      assert.equal(error.headers.get('x-should-retry'), 'false');
      return true;
    });
    assert.equal(upstream.calls - calls, 1);
  });

  /** A new key, in an organization of its own. */
  async function stranger(name) {
    const { id } = await gateway.admin('POST', '/organizations', { name });
    const org = `/organizations/${id}`;
    const team = await gateway.admin('POST', `${org}/teams`, { name });
    const { key, secret } = await gateway.admin('POST', `${org}/keys`, { team_id: team.id, name });
    return { org, key, client: new OpenAI({ baseURL: gateway.baseURL, apiKey: secret, maxRetries: 0 }) };
  }

  test('no credit is an APIError of status 402', async () => {
    const { org, client: poor } = await stranger('poor');
    await gateway.admin('PUT', `${org}/settings/credits.required?wait=fleet`, { value: 'true' });
    // A model that costs something; until nodes know what there is to spend they can't tell: 503.
    const error = await eventually('a status 402', () =>
      ask({ model: 'broken' }, poor).then(
        () => undefined,
        (error) => (error.status === 402 ? error : undefined),
      ),
    );
    assert.ok(error instanceof OpenAI.APIError);
    assert.deepEqual([error.code, error.type], ['insufficient_credits', 'insufficient_quota']);
    assert.equal(error.headers.get('x-should-retry'), 'false');
  });

  test('an exhausted budget is an APIError of status 402', async () => {
    const { org, key, client: thrifty } = await stranger('thrifty');
    const budget = { name: 'thrifty', key_id: key.id, limit_usd: '0.000000001', window: 'total' };
    await gateway.admin('POST', `${org}/budgets?wait=fleet`, budget);
    const error = await eventually('a status 402', () =>
      ask({ model: 'broken' }, thrifty).then(
        () => undefined,
        (error) => (error.status === 402 ? error : undefined),
      ),
    );
    assert.ok(error instanceof OpenAI.APIError);
    assert.deepEqual([error.code, error.type], ['budget_exceeded', 'insufficient_quota']);
    assert.equal(error.headers.get('x-should-retry'), 'false');
  });

  test('a rate limit of the key is a RateLimitError', async () => {
    const { org, key, client: slow } = await stranger('slow');
    const limit = { name: 'slow', key_id: key.id, requests_per_minute: 1 };
    await gateway.admin('POST', `${org}/rate-limits?wait=fleet`, limit);
    const many = async () => {
      for (let at = 0; at < 10; at += 1) await ask({}, slow);
    };
    await assert.rejects(many, (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.deepEqual([error.status, error.code], [429, 'rate_limit_exceeded']);
      assert.ok(Number(error.headers.get('retry-after')) > 0);
      return true;
    });
  });
});

describe('images, sound, moderation and responses', () => {
  const quantity = (row, unit) => row.units.find((it) => it.unit === unit)?.quantity;
  const recording = (size) => toFile(Buffer.alloc(size), 'a.wav', { type: 'audio/wav' });

  test('images are made, streamed, edited and varied', async () => {
    const prompt = 'a whale';
    const { data, request_id } = await client.images.generate({ model: 'demo-image', prompt, n: 2 }).withResponse();
    assert.equal(data.data.length, 2);
    assert.equal(quantity(await gateway.row(request_id), 'images'), 2);
    const stream = await client.images.generate({ model: 'demo-image', prompt, stream: true });
    assert.equal((await collect(stream)).at(-1).type, 'image_generation.completed');
    const image = await toFile(Buffer.alloc(40_000), 'a.png', { type: 'image/png' });
    const edited = await client.images.edit({ image: [image, image], prompt, model: 'demo-image' });
    assert.ok(edited.data[0].b64_json);
    assert.equal((await client.images.createVariation({ image, model: 'demo-image', n: 3 })).data.length, 3);
  });

  test('speech is a body of bytes', async () => {
    const spoken = await client.audio.speech.create({ model: 'demo-speech', voice: 'alloy', input: 'one two' });
    assert.equal(spoken.headers.get('content-type'), 'audio/wav');
    const bytes = Buffer.from(await spoken.arrayBuffer());
    assert.equal(bytes.subarray(0, 4).toString(), 'RIFF');
    assert.equal(quantity(await gateway.row(spoken.headers.get('x-request-id')), 'characters'), 7);
  });

  test('a recording is written down, the file before or after the model', async () => {
    const model = 'demo-transcription';
    for (const size of [40_000, 25_000_000]) {
      const file = await recording(size);
      for (const body of [{ file, model }, { model, file }]) {
        const { data, request_id } = await client.audio.transcriptions.create(body).withResponse();
        assert.match(data.text, new RegExp(`${size} bytes`));
        const row = await gateway.row(request_id);
        assert.equal(quantity(row, 'audio_milliseconds'), 1000 * Math.ceil(size / 16_000));
      }
    }
    const file = await recording(10);
    const stream = await client.audio.transcriptions.create({ file, model, stream: true });
    const events = await collect(stream);
    assert.equal(events.at(-1).type, 'transcript.text.done');
    assert.match((await client.audio.translations.create({ file, model })).text, /10 bytes/);
  });

  test('texts are moderated', async () => {
    const judged = await client.moderations.create({ model: 'demo-moderation', input: ['a whale', 'attack'] });
    assert.deepEqual(judged.results.map((result) => result.flagged), [false, true]);
  });

  test('a response, whole and streamed', async () => {
    const { data, request_id } = await client.responses.create({ model, input: 'the blue whale' }).withResponse();
    assert.match(data.output_text, /the blue whale/);
    const row = await gateway.row(request_id);
    assert.deepEqual([row.endpoint, row.output_tokens], ['responses', data.usage.output_tokens]);
    const events = await collect(await client.responses.create({ model, input: 'hi', stream: true }));
    assert.equal(events[0].type, 'response.created');
    assert.equal(events.at(-1).type, 'response.completed');
    assert.equal(events.at(-1).response.usage.output_tokens > 0, true);
    await assert.rejects(client.responses.retrieve('resp_1'), OpenAI.NotFoundError);
  });
});
