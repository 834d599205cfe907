// A gateway, an upstream that speaks every dialect, and a model behind each of them. Used by clients.test.mjs.

import assert from 'node:assert/strict';
import { resolve } from 'node:path';

import { Gateway, eventually, start } from '../../node/gateway.mjs';

export const SENTENCE = 'Hello from the mock upstream, where all is well today.';
/** One red pixel. */
export const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC';

const API_KEY = 'sk-upstream-canary-77ad01';
// Model -> provider of its deployment, what is behind the upstream's address, and what the upstream calls it.
const VIA = {
  'via-openai': ['custom', '/v1', 'mock'],
  'via-anthropic': ['anthropic', '/v1', 'claude-sonnet-4-5-20250929'],
  'via-gemini': ['google-ai-studio', '/v1beta', 'gemini-2.5-flash'],
  'via-bedrock': ['bedrock', '', 'anthropic.claude-3-7-sonnet-20250219-v1:0'],
};
const EMBEDDINGS = {
  'embed-openai': ['custom', '/v1', 'mock'],
  'embed-gemini': ['google-ai-studio', '/v1beta', 'gemini-embedding-001'],
  // One text in a call: lists go in pieces.
  'embed-bedrock': ['bedrock', '', 'amazon.titan-embed-text-v2:0'],
};
export const MODELS = Object.keys(VIA);
export const EMBEDDING_MODELS = Object.keys(EMBEDDINGS);

export class World {
  static async start() {
    const world = new World();
    try {
      await world.#start();
    } catch (error) {
      // What still ran would keep the runner from ending.
      world.kill();
      throw error;
    }
    return world;
  }

  async #start() {
    this.gateway = await Gateway.start();
    const nemo = process.env.NEMO_BIN || resolve(import.meta.dirname, '../../../../target/debug/nemo');
    const testenv = process.env.NEMO_TESTENV_BIN || resolve(nemo, '../nemo-testenv');
    this.upstream = start(testenv, ['upstream', '--api-key', API_KEY], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    this.upstream.stdout.on('data', (data) => (said += data));
    const url = await eventually('the upstream', () => said.match(/listening on (\S+)\/v1/)?.[1]);
    await this.#provision(url);
  }

  get baseURL() {
    return this.gateway.baseURL;
  }

  get apiKey() {
    return this.gateway.apiKey;
  }

  async #provision(url) {
    const { gateway } = this;
    const credentials = {};
    for (const [endpoint, table] of [['chat.completions', VIA], ['embeddings', EMBEDDINGS]]) {
      for (const [model, [provider, path, upstream_model]] of Object.entries(table)) {
        const secret = { name: `of-${provider}`, provider, secret: API_KEY };
        credentials[provider] ??= (await gateway.admin('POST', '/credentials', secret)).id;
        const price = { input: 2_500_000_000, output: 10_000_000_000 };
        const description = {
          id: model, display_name: model, owned_by: 'tests', context_window: 128_000, max_output_tokens: 4096,
          endpoints: [endpoint], offerings: [{ provider, upstream_model, price }],
        };
        await gateway.admin('PUT', `/models/${model}`, { model: description });
        await gateway.admin('POST', '/deployments', {
          provider, base_url: url + path, model, upstream_model, credential_id: credentials[provider],
        });
      }
    }
    const wanted = [...MODELS, ...EMBEDDING_MODELS];
    await eventually('the models are served', async () => {
      const answer = await fetch(`${this.baseURL}/models`, { headers: { authorization: `Bearer ${this.apiKey}` } });
      const ids = (await answer.json()).data.map((model) => model.id);
      return wanted.every((model) => ids.includes(model)) || undefined;
    });
  }

  async stop() {
    this.upstream.kill();
    await this.gateway.stop();
    assert.ok(true);
  }

  kill() {
    this.upstream?.kill('SIGKILL');
    this.gateway?.kill();
  }
}
