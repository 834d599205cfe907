// Shows /admin/v1/openapi.json: operations by tag, parameters, bodies, answers, a curl for each. Knows as much of
// OpenAPI as that document uses. All text reaches the page as text nodes.
'use strict';

/** Makes an element: el('p', {class: 'x'}, 'text', child, …). */
function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ''));
  return element;
}

/** Text with `code` and **strong**. */
function prose(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith('`')) return el('code', {}, part.slice(1, -1));
    if (part.startsWith('**')) return el('strong', {}, part.slice(2, -2));
    return part;
  });
}

let api;

/** Follows references; a nullable schema is the schema itself with a mark. */
function resolve(schema) {
  if (schema && schema.$ref) {
    const target = schema.$ref.slice(2).split('/').reduce((at, name) => at[name], api);
    return { name: schema.$ref.split('/').pop(), ...resolve(target) };
  }
  if (schema && schema.anyOf) {
    const { anyOf, ...rest } = schema;
    return { ...resolve(anyOf[0]), ...rest, nullable: true };
  }
  return schema || {};
}

function kinds(schema) {
  return [].concat(schema.type || []).filter((kind) => kind !== 'null');
}

function typeOf(raw) {
  const schema = resolve(raw);
  const [kind] = kinds(schema);
  if (kind === 'array') return 'list of ' + typeOf(schema.items);
  if (schema.name) return schema.name.replace(/Input$/, '');
  if (kind === 'object' && schema.additionalProperties) return 'map of ' + typeOf(schema.additionalProperties);
  return schema.format || kind || 'any';
}

function bounds(schema) {
  const said = [];
  const values = (schema.enum || []).filter((value) => value !== null);
  if (values.length) said.push('one of ' + values.map((value) => JSON.stringify(value)).join(', '));
  if ('default' in schema) said.push('default ' + schema.default);
  const limit = (least, most, unit) => {
    const small = (value) => value !== undefined && Math.abs(value) <= Number.MAX_SAFE_INTEGER;
    if (small(least) && small(most)) said.push(`${least} to ${most}${unit}`);
    else if (small(most)) said.push(`at most ${most}${unit}`);
    else if (small(least) && least > 0) said.push(`at least ${least}${unit}`);
  };
  limit(schema.minLength, schema.maxLength, ' characters');
  limit(schema.minimum, schema.maximum, '');
  limit(schema.minItems, schema.maxItems, ' entries');
  return said.join('; ');
}

/** A value that fits the schema. */
function example(raw, depth = 0) {
  const schema = resolve(raw);
  if (schema.examples) return schema.examples[0];
  if (schema.enum) return schema.enum[0];
  const [kind] = kinds(schema);
  if (kind === 'array') return depth > 5 ? [] : [example(schema.items, depth + 1)];
  if (kind === 'object') {
    const members = Object.entries(schema.properties || {});
    return Object.fromEntries(members.map(([name, member]) => [name, depth > 5 ? null : example(member, depth + 1)]));
  }
  if (kind === 'boolean') return false;
  if (kind === 'integer' || kind === 'number') return Math.max(schema.minimum > 0 ? schema.minimum : 0, 0) || 1;
  if (schema.format === 'date-time') return '2099-12-31T23:59:59Z';
  if (schema.format === 'uuid') return '019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e';
  return 'text';
}

/** For requests: what must be there, and something to change where nothing must. */
function shortExample(raw) {
  const schema = resolve(raw);
  const all = example(schema);
  const required = schema.required || [];
  const names = required.length ? required : Object.keys(all).slice(0, 1);
  return Object.fromEntries(names.map((name) => [name, all[name]]));
}

function rows(raw, path, seen) {
  const schema = resolve(raw);
  return Object.entries(schema.properties || {}).flatMap(([name, member]) => {
    const resolved = resolve(member);
    const nested = kinds(resolved)[0] === 'array' ? resolve(resolved.items) : resolved;
    const list = kinds(resolved)[0] === 'array';
    const here = path + name;
    const row = el('tr', {},
      el('td', {}, el('code', {}, here), ' ', (schema.required || []).includes(name) && !seen.answer
        ? el('span', { class: 'required' }, 'required') : ''),
      el('td', {}, typeOf(member), el('div', { class: 'dim' }, bounds(list ? nested : resolved))),
      el('td', {}, prose(member.description || resolved.description || '')));
    const deeper = nested.properties && !seen.names.includes(nested.name)
      ? rows(nested, here + (list ? '[].' : '.'), { ...seen, names: [...seen.names, nested.name] }) : [];
    return [row, ...deeper];
  });
}

function table(schema, answer) {
  const body = rows(schema, '', { answer, names: [] });
  if (!body.length) return el('p', { class: 'dim' }, 'No members.');
  const head = el('tr', {}, ...['Member', 'Type', 'Meaning'].map((title) => el('th', { scope: 'col' }, title)));
  return el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, head), el('tbody', {}, body)));
}

function parameters(list) {
  const head = el('tr', {}, ...['Parameter', 'In', 'Type', 'Meaning'].map((title) => el('th', { scope: 'col' }, title)));
  const body = list.map((parameter) => el('tr', {},
    el('td', {}, el('code', {}, parameter.name), ' ',
      parameter.required ? el('span', { class: 'required' }, 'required') : ''),
    el('td', {}, parameter.in),
    el('td', {}, typeOf(parameter.schema), el('div', { class: 'dim' }, bounds(resolve(parameter.schema)))),
    el('td', {}, prose(parameter.description || ''))));
  return el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, head), el('tbody', {}, body)));
}

function code(text) {
  const shown = el('code', {}, text);
  const button = el('button', { type: 'button', onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
    } catch {
      // Browsers have no clipboard for pages without TLS, or the user refused it.
      getSelection().selectAllChildren(shown);
      button.textContent = 'Selected: copy it with the keyboard';
    }
  } }, 'Copy');
  return [el('pre', {}, shown), button];
}

function quote(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

function curl(method, path, operation, body) {
  let url = location.origin + path;
  for (const parameter of operation.parameters.filter((parameter) => parameter.in === 'path')) {
    url = url.replace(`{${parameter.name}}`, encodeURIComponent(example(parameter.schema) || parameter.name));
  }
  const lines = [`curl -X ${method.toUpperCase()} ${quote(url)}`, '-H "authorization: Bearer $NEMO_ADMIN_TOKEN"'];
  if (body) {
    lines.push("-H 'content-type: application/json'", '-d ' + quote(JSON.stringify(shortExample(body), null, 2)));
  }
  return lines.join(' \\\n  ');
}

function contentOf(part) {
  const [content] = Object.values((part && part.content) || {});
  return content ? content.schema : null;
}

function answers(operation) {
  return Object.entries(operation.responses).map(([status, raw]) => {
    const response = resolve(raw);
    const headers = Object.keys(response.headers || {});
    return el('tr', {}, el('td', {}, el('code', {}, status)),
      el('td', {}, prose(response.description), headers.length
        ? el('div', { class: 'dim' }, 'Headers: ' + headers.join(', ')) : ''));
  });
}

function show(path, method, operation) {
  const body = contentOf(operation.requestBody);
  const success = Object.entries(operation.responses).filter(([status]) => status.startsWith('2')).pop();
  const answer = contentOf(success[1]);
  const content = el('div', {});
  const details = el('details', { class: 'operation', id: operation.operationId },
    el('summary', {}, el('span', { class: 'method ' + method }, method), el('code', {}, path),
      el('span', { class: 'summary' }, operation.summary)),
    content);
  const fill = () => {
    if (!details.open || content.childElementCount) return;
    content.append(el('p', {}, prose(operation.description)),
      el('p', { class: 'dim' }, 'gRPC: ', el('code', {}, 'nemo.admin.v1.' + operation['x-nemo-grpc'])),
      ...(operation.parameters.length ? [el('h4', {}, 'Parameters'), parameters(operation.parameters)] : []),
      ...(body ? [el('h4', {}, 'Body'), table(body, false)] : []),
      el('h4', {}, 'Example'), ...code(curl(method, path, operation, body)),
      ...(answer ? [el('h4', {}, 'Answer ' + success[0]), table(answer, true),
        ...code(JSON.stringify(example(answer), null, 2))] : []),
      el('h4', {}, 'Statuses'), el('div', { class: 'scroll' }, el('table', {}, el('tbody', {}, answers(operation)))));
  };
  details.addEventListener('toggle', fill);
  return details;
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === 'DETAILS') {
    target.open = true;
    target.scrollIntoView();
  }
}

async function start() {
  const main = document.getElementById('main');
  const contents = document.getElementById('contents');
  try {
    const response = await fetch('/admin/v1/openapi.json');
    if (!response.ok) throw new Error('status ' + response.status);
    api = await response.json();
  } catch (error) {
    main.append(el('p', {}, 'The document could not be loaded: ' + error.message));
    return;
  }
  main.append(el('h1', {}, api.info.title), el('p', { class: 'dim' }, 'Version ' + api.info.version + ' · ',
    el('a', { href: '/admin/v1/openapi.json' }, 'OpenAPI document')),
  ...api.info.description.split('\n\n').map((text) => el('p', {}, prose(text))));
  const entries = [];
  for (const { name } of api.tags) {
    const links = el('div', {}, el('h2', {}, name));
    const section = el('section', {}, el('h2', {}, name));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags[0] !== name) continue;
        const link = el('a', { href: '#' + operation.operationId }, operation.operationId.replaceAll('_', ' '));
        const details = show(path, method, operation);
        links.append(link);
        section.append(details);
        const text = [path, operation.operationId, operation.summary, operation.description,
          ...operation.parameters.map((parameter) => parameter.name),
          ...Object.keys(resolve(contentOf(operation.requestBody)).properties || {})].join(' ').toLowerCase();
        entries.push({ link, details, text, links, section });
      }
    }
    contents.append(links);
    main.append(section);
  }
  document.getElementById('search').addEventListener('input', (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set();
    for (const entry of entries) {
      const fits = words.every((word) => entry.text.includes(word));
      entry.link.hidden = entry.details.hidden = !fits;
      if (fits) shown.add(entry.section);
    }
    for (const entry of entries) entry.section.hidden = entry.links.hidden = !shown.has(entry.section);
  });
  addEventListener('hashchange', openTarget);
  openTarget();
}

start();
