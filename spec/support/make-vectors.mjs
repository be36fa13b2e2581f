/*
 * Makes keys with the code of other systems, and prints what these systems store of them. The specs read what it once printed, from
 * vectors-of-packages.json, because the packages are large. Make them anew in an empty folder:
 *
 *   npm install --ignore-scripts --legacy-peer-deps prefixed-api-key@1.1.1 @adonisjs/auth@10.1.0 @adonisjs/core@7 \
 *     payload@3.90.2 jsonwebtoken@9.0.3 nanoid@3 @strapi/admin@5.54.0 @medusajs/api-key@2.21.2
 *   node .../spec/support/make-vectors.mjs . > .../spec/support/vectors-of-packages.json
 *
 * n8n signs its keys by jsonwebtoken, and Directus makes its tokens by nanoid, each as written here. Of Strapi and Medusa, only the files that make keys
 * are loaded, without the frameworks beneath them.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import Module, { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const folder = resolve(process.argv[2] ?? '.')
const require = createRequire(join(folder, 'package.json'))
const fileOf = (...path) => join(folder, 'node_modules', ...path)
const versionOf = (name) =>
  JSON.parse(readFileSync(fileOf(...name.split('/'), 'package.json'), 'utf8')).version

/** Stands in for every module of a framework: any member of it can be called, made and used as a decorator. */
const anything = new Proxy(function anything() {}, {
  get: (target, name) =>
    name === Symbol.toPrimitive
      ? () => 'anything'
      : name === 'prototype'
        ? target.prototype
        : anything,
  apply: () => anything,
  construct: () => ({}),
})

/** The function with which Node loads modules of CommonJS. */
const loader = '_load'

/** Loads a file of a package without the modules of its framework. */
function loadAlone(file, isOfFramework) {
  const { [loader]: load } = Module
  Module[loader] = (request, ...others) =>
    isOfFramework(request) ? anything : load(request, ...others)
  try {
    return require(file)
  } finally {
    Module[loader] = load
  }
}

const made = []

/** Notes keys of a package: `make` returns the key, and the values of its row. */
async function note(system, name, make) {
  const vectors = []
  for (let each = 0; each < 3; each++) vectors.push(await make(each))
  made.push({ system, package: `${name}@${versionOf(name)}`, vectors })
}

const { generateAPIKey } = require('prefixed-api-key')
await note('prefixed-api-key', 'prefixed-api-key', async () => {
  const { token, shortToken, longTokenHash } = await generateAPIKey({ keyPrefix: 'acme' })
  return { key: token, row: { shortToken, longTokenHash } }
})

const { AccessToken } = await import(
  pathToFileURL(fileOf('@adonisjs/auth/build/modules/access_tokens_guard/main.js')).href
)
await note('adonis', '@adonisjs/auth', async () => {
  const { secret, hash } = AccessToken.createTransientToken(7, 40)
  const now = new Date()
  const stored = {
    identifier: randomBytes(1)[0],
    tokenableId: 7,
    type: 'auth_token',
    hash,
    createdAt: now,
    updatedAt: now,
    lastUsedAt: null,
    expiresAt: null,
  }
  const { value } = new AccessToken({ ...stored, prefix: 'oat_', secret })
  return { key: value.release(), row: { hash } }
})

const { setAPIKeyIndex } = await import(
  pathToFileURL(fileOf('payload/dist/auth/baseFields/apiKey/setAPIKeyIndex.js')).href
)
await note('payload', 'payload', async () => {
  const apiKey = randomUUID()
  // Payload derives it so when it starts.
  const secret = createHash('sha256').update('payload-test-secret').digest('hex').slice(0, 32)
  return {
    key: apiKey,
    row: {
      apiKeyIndex: setAPIKeyIndex({
        data: { apiKey },
        req: { payload: { secret } },
        siblingData: {},
      }),
    },
  }
})

globalThis.strapi = { config: { get: () => ({ salt: 'test-salt-0123456789abcd' }) } }
const { hash: strapiHash } = loadAlone(
  fileOf('@strapi/admin/dist/server/server/src/services/api-token.js'),
  (request) => request !== 'crypto' && !request.startsWith('/'),
)
await note('strapi', '@strapi/admin', async () => {
  const key = randomBytes(128).toString('hex')
  return { key, row: { accessKey: strapiHash(key) } }
})

const { ApiKeyModuleService } = loadAlone(
  fileOf('@medusajs/api-key/dist/services/api-key-module-service.js'),
  (request) => !['crypto', 'util'].includes(request) && !request.startsWith('/'),
)
await note('medusa', '@medusajs/api-key', async () => {
  const { rawToken, hashedToken, salt, redacted } = await ApiKeyModuleService.generateSecretKey()
  return { key: rawToken, row: { token: hashedToken, salt, redacted } }
})

const { sign } = require('jsonwebtoken')
await note('n8n', 'jsonwebtoken', async (each) => {
  const options = each === 0 ? {} : { expiresIn: 3_600 * 24 * 3_650 }
  const apiKey = sign(
    { sub: randomUUID(), iss: 'n8n', aud: 'public-api', jti: randomUUID() },
    randomBytes(32).toString('hex'),
    options,
  )
  return { key: apiKey, row: { apiKey, scopes: '["READ_GRAPH"]' } }
})

const { nanoid } = require('nanoid')
await note('directus', 'nanoid', async () => {
  const token = nanoid(32)
  return { key: token, row: { token } }
})

process.stdout.write(`${JSON.stringify(made, null, 2)}\n`)
