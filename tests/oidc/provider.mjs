// A real OpenID provider (the npm package `oidc-provider`) for the integration tests. Started by tests/src/oidc.rs.
//
//   node provider.mjs '{"port": 4000, "issuer": "http://127.0.0.1:4000", "keys": "keys.json", "clients": {...}}'
//
// issuer      what tokens and discovery document say; need not be where it listens
// keys        file with its private keys; made when it is not there, so that two providers can share them
// clockOffset seconds that its clock is wrong by
// clients     id -> { secret, claims }: who may fetch tokens by client credentials, and what those say besides
//
// The `resource` of a token request says what the access token is to be like:
// https://nemo.test/<audience>?alg=ES256
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const options = JSON.parse(process.argv[2]);

if (options.clockOffset) {
  const now = Date.now;
  Date.now = () => now() + options.clockOffset * 1000;
}

function generate() {
  const kinds = [
    ['rsa', { modulusLength: 2048 }, ['RS256', 'PS256']],
    ['ec', { namedCurve: 'P-256' }, ['ES256']],
    ['ec', { namedCurve: 'P-384' }, ['ES384']],
    ['ed25519', {}, ['EdDSA']],
  ];
  return kinds.flatMap(([type, parameters, algorithms]) =>
    algorithms.map((alg) => {
      const jwk = generateKeyPairSync(type, parameters).privateKey.export({ format: 'jwk' });
      return { ...jwk, alg, use: 'sig', kid: `${alg}-${randomUUID()}` };
    }),
  );
}

if (!existsSync(options.keys)) writeFileSync(options.keys, JSON.stringify(generate()), { mode: 0o600 });
const keys = JSON.parse(readFileSync(options.keys, 'utf8'));

const { Provider } = await import('oidc-provider');
const provider = new Provider(options.issuer, {
  clients: Object.entries(options.clients).map(([client_id, { secret }]) => ({
    client_id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    token_endpoint_auth_method: 'client_secret_post',
    redirect_uris: [],
    response_types: [],
  })),
  jwks: { keys },
  cookies: { keys: [randomUUID()] },
  extraTokenClaims: (_ctx, token) => options.clients[token.clientId]?.claims,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_ctx, resource) => {
        const url = new URL(resource);
        return {
          scope: '',
          audience: url.pathname.slice(1),
          accessTokenFormat: 'jwt',
          accessTokenTTL: 600,
          jwt: { sign: { alg: url.searchParams.get('alg') ?? 'RS256' } },
        };
      },
    },
  },
});
provider.listen(options.port, '127.0.0.1', () => console.log(`listening on ${options.port}`));
