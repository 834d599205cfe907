// `nemo standalone` as a user would start it, its admin API, and an upstream that fails. Used by openai.test.mjs.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

// Nobody waits for them where all is well, so they may be long: machines that run tests stand still now and then.
const START_MS = 120_000;
const STOP_MS = 60_000;
const PATIENCE_MS = 30_000;
const POLL_MS = 20;
const LISTENERS = ['--listen', '--admin-listen', '--grpc-listen', '--ops-listen', '--admin-ops-listen'];
const ENVIRONMENT = ['PATH', 'TMPDIR', 'NEMO_PG_BIN', 'NEMO_POSTGRES_USER'];

/** The first value of `probe` that is not undefined. */
export async function eventually(what, probe, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${patience} ms`);
    await sleep(POLL_MS);
  }
}

/** A child that ends with the tests, however they do. */
export function start(program, args, options) {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], options);
}

/** With the demo provider, its own PostgreSQL and a new data directory. */
export class Gateway {
  static async start() {
    const gateway = new Gateway();
    try {
      await gateway.#start();
    } catch (error) {
      gateway.kill();
      throw error;
    }
    return gateway;
  }

  #child;
  #dir;

  async #start() {
    const binary = process.env.NEMO_BIN || resolve(import.meta.dirname, '../../../target/debug/nemo');
    this.#dir = mkdtempSync(join(tmpdir(), 'nemo-sdk-'));
    // Started by root, PostgreSQL runs as another user, who has to reach the data directory.
    chmodSync(this.#dir, 0o711);
    const args = ['standalone', '--data-dir', join(this.#dir, 'data'), '--demo-delay-ms', '20'];
    for (const listener of LISTENERS) args.push(listener, '127.0.0.1:0');
    // No variable of a provider gets through, so the demo answers.
    const env = { NEMO_LOG: 'info' };
    for (const name of ENVIRONMENT) if (process.env[name]) env[name] = process.env[name];
    // Files, so that no full pipe can stop it.
    const [out, err] = ['out', 'err'].map((name) => openSync(join(this.#dir, name), 'w'));
    this.#child = start(binary, args, { env, stdio: ['ignore', out, err] });
    for (const file of [out, err]) closeSync(file);
    let failed;
    this.#child.on('error', (error) => (failed = error));
    const banner = await eventually(
      'the banner',
      () => {
        if (failed) throw failed;
        assert.equal(this.#child.exitCode, null, `it has ended:\n${this.log}`);
        const text = readFileSync(join(this.#dir, 'out'), 'utf8');
        return text.includes('Ctrl-C stops it') ? text : undefined;
      },
      START_MS,
    );
    const value = (pattern) => banner.match(pattern)?.[1] ?? assert.fail(`no ${pattern} in:\n${banner}`);
    this.baseURL = value(/Base URL +(\S+)/);
    this.apiKey = value(/Key +(sk-nemo-\S+)/);
    this.adminURL = value(/Admin API +(\S+)/);
    this.adminToken = value(/Admin token +(adm-nemo-\S+)/);
    this.orgId = (await this.admin('GET', '/organizations')).organizations[0].id;
  }

  get log() {
    return ['out', 'err'].map((name) => readFileSync(join(this.#dir, name), 'utf8')).join('\n');
  }

  async admin(method, path, body) {
    const response = await fetch(this.adminURL + path, {
      method,
      headers: { authorization: `Bearer ${this.adminToken}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** The row that a request left in the request log, once it has arrived there. */
  async row(requestId) {
    assert.ok(requestId);
    return eventually(`a row for ${requestId}`, async () => {
      const { requests } = await this.admin('GET', `/organizations/${this.orgId}/requests?page_size=100`);
      return requests.find((row) => row.id === requestId);
    });
  }

  /** A model that `upstream` serves. */
  async deploy(upstream, model) {
    const price = { input: 2_500_000_000, output: 10_000_000_000 };
    const description = {
      id: model, display_name: model, owned_by: 'tests', context_window: 128_000, max_output_tokens: 4096,
      endpoints: ['chat.completions'], offerings: [{ provider: 'custom', upstream_model: model, price }],
    };
    await this.admin('PUT', `/models/${model}`, { model: description });
    const deployment = { provider: 'custom', base_url: upstream.baseURL, model, upstream_model: model };
    await this.admin('POST', '/deployments', deployment);
  }

  /** Stops as a supervisor would; an unclean end or a process left behind fails the test. */
  async stop() {
    const running = processesAt(this.#dir);
    assert.ok(running.some((line) => line.includes('postgres')), `where is PostgreSQL? ${running}`);
    const ended = once(this.#child, 'exit', { signal: AbortSignal.timeout(STOP_MS) });
    this.#child.kill('SIGTERM');
    const [code, signal] = await ended;
    assert.deepEqual([code, signal], [0, null], this.log);
    assert.deepEqual(processesAt(this.#dir), [], 'left behind');
  }

  /** Ends it if it still runs, and removes its files. */
  kill() {
    this.#child?.kill('SIGKILL');
    if (this.#dir) rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** The processes that work in `dir` or have it in their command line. */
function processesAt(dir) {
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      const cwd = readlinkSync(`/proc/${pid}/cwd`);
      if (command.includes(dir) || cwd.startsWith(dir)) found.push(`${pid} ${command}`);
    } catch {
      // It has ended, or is someone else's.
    }
  }
  return found;
}

/** Answers `broken` with status 500 and breaks off in the middle of a stream of `cut-off`; counts its requests. */
export class Upstream {
  static async start() {
    const upstream = new Upstream();
    upstream.calls = 0;
    upstream.server = createServer((request, response) => upstream.#answer(request, response));
    upstream.server.listen(0, '127.0.0.1');
    await once(upstream.server, 'listening');
    upstream.baseURL = `http://127.0.0.1:${upstream.server.address().port}/v1`;
    return upstream;
  }

  async #answer(request, response) {
    this.calls += 1;
    let body = '';
    for await (const part of request) body += part;
    const { model } = JSON.parse(body);
    if (model !== 'cut-off') {
      response.writeHead(500, { 'content-type': 'application/json' });
      response.end('{"error":{"message":"it broke","type":"server_error","param":null,"code":null}}');
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const content of ['Half', ' of', ' an']) {
      const choices = [{ index: 0, delta: { content }, finish_reason: null }];
      const chunk = { id: 'c1', object: 'chat.completion.chunk', created: 1, model, choices };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`);
      await sleep(POLL_MS);
    }
    response.destroy();
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
