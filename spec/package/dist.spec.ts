import { execFile, spawnSync } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { root } from '../support/package'

const middleware = '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'

const importing = `
  import { requireBearerAuth } from '${middleware}'
  import express from 'express'
  import { Sequelize } from 'sequelize'
  import { createApiKeys } from './dist/lib/index.js'
`

const requiring = `
  const { requireBearerAuth } = require('${middleware}')
  const express = require('express')
  const { Sequelize } = require('sequelize')
  const { createApiKeys } = require('./dist/lib')
`

describe('the built package', () => {
  it('loads nothing by import(), which Jest does not have in CommonJS, but for two modules that apps import', async () => {
    const dist = join(root, 'dist')
    const names = await readdir(dist, { recursive: true })
    const files = names.filter((name) => name.endsWith('.js'))
    const texts = await Promise.all(files.map((name) => readFile(join(dist, name), 'utf8')))

    expect(files).toContain(join('lib', 'index.js'))
    const found = files.filter((_, index) => /\bimport\s*\(/.test(texts[index] ?? ''))
    expect(found.toSorted()).toEqual([
      // The module of the app may be an ES module. No app loads this file.
      join('lib', 'cli', 'instance.js'),
      // It imports the SDK only if the app has not loaded it by require.
      join('lib', 'tokens', 'mcp-errors.js'),
    ])
  })

  it('declares its exports only, with types of no package but Sequelize', async () => {
    const dist = join(root, 'dist')
    const names = (await readdir(dist, { recursive: true })).filter((name) =>
      name.endsWith('.d.ts'),
    )
    const texts = await Promise.all(names.map((name) => readFile(join(dist, name), 'utf8')))

    // Examples in comments import other packages.
    const code = texts.join('\n').replaceAll(/\/\*.*?\*\//gs, '')
    const imports = code.matchAll(/(?:from|require\(|import\()\s*['"]([^.'"][^'"]*)/g)
    expect(new Set(Array.from(imports, ([, name]) => name))).toEqual(
      new Set(['node:http', 'sequelize']),
    )
    expect(names).toContain(join('lib', 'lifecycle', 'types.d.ts'))
    expect(names).not.toContain(join('lib', 'keys', 'input.d.ts'))
  })

  it('has the style and the script of the pages', async () => {
    const [source, built] = ['lib', join('dist', 'lib')].map((folder) =>
      readdir(join(root, folder, 'console', 'assets')),
    )

    expect(await built).toEqual(await source)
    expect(await built).toHaveLength(2)
  })

  it('loads neither pages nor documents before the app asks for them', async () => {
    const script = `
      const { createApiKeys } = require('./dist/lib')
      const { Sequelize } = require('sequelize')
      const sequelize = new Sequelize('postgres://localhost')
      const currentUser = () => null
      const apiKeys = createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'], currentUser })
      apiKeys.router({ openApi: true })
      const loaded = (folder) => Object.keys(require.cache).some((file) => file.includes('dist/lib/' + folder))
      const before = [loaded('console'), loaded('openapi')]
      apiKeys.openApi()
      console.log(JSON.stringify([...before, loaded('openapi')]))
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
      cwd: root,
    })

    expect(JSON.parse(stdout)).toEqual([false, false, true])
  })

  it('loads Express only once the app asks for a router', async () => {
    const script = `
      const { Sequelize } = require('sequelize')
      const sequelize = new Sequelize('postgres://localhost')
      const currentUser = () => null
      const isAdmin = () => false
      const calls = {
        router: [],
        adminRouter: [],
        tokenRouter: [{ introspect: { permission: 'A' } }],
        leakRouter: [{ github: true }],
        console: [],
      }
      const loaded = Object.entries(calls).map(([name, args]) => {
        const isOfThese = (file) => /node_modules.express.|dist.lib./.test(file)
        for (const file of Object.keys(require.cache).filter(isOfThese)) delete require.cache[file]
        const { createApiKeys } = require('./dist/lib')
        const apiKeys = createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'], currentUser, isAdmin })
        apiKeys.requirePermission('A')
        apiKeys.authenticate()
        apiKeys.maskKeys()
        apiKeys.mcpVerifier({ errors: { InvalidTokenError: Error, TooManyRequestsError: Error } })
        const isLoaded = () => Object.keys(require.cache).some((file) => /node_modules.express./.test(file))
        const before = isLoaded()
        apiKeys[name](...args)
        return [name, before, isLoaded()]
      })
      console.log(JSON.stringify(loaded))
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
      cwd: root,
    })

    const names = ['router', 'adminRouter', 'tokenRouter', 'leakRouter', 'console']
    expect(JSON.parse(stdout)).toEqual(names.map((name) => [name, false, true]))
  })

  it('says which package is missing in an app without OpenTelemetry', async () => {
    const script = `
      const Module = require('node:module')
      const resolve = Module._resolveFilename
      Module._resolveFilename = function (name, ...others) {
        if (name === '@opentelemetry/api') throw Object.assign(new Error('not found'), { code: 'MODULE_NOT_FOUND' })
        return resolve.call(this, name, ...others)
      }
      const { createApiKeys } = require('./dist/lib')
      const { Sequelize } = require('sequelize')
      const sequelize = new Sequelize('postgres://localhost')
      try {
        createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'] }).instrument()
      } catch (error) {
        console.log(String(error))
      }
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
      cwd: root,
    })

    expect(stdout).toBe('TypeError: instrument: needs the package @opentelemetry/api\n')
  })

  it.each([
    ['an ES module', ['--input-type=module'], importing],
    ['CommonJS', [], requiring],
  ])('answers in the words of the SDK of MCP in %s', async (_, flags, loading) => {
    const script = `
      ${loading}
      const sequelize = new Sequelize('postgres://localhost')
      const apiKeys = createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'] })
      const app = express()
      app.use(requireBearerAuth({ verifier: apiKeys.mcpVerifier() }))
      const server = app.listen(0, '127.0.0.1', async () => {
        const url = 'http://127.0.0.1:' + server.address().port
        const answer = await fetch(url, { headers: { Authorization: 'Bearer x' } })
        console.log(answer.status, (await answer.json()).error)
        server.close()
        server.closeAllConnections()
      })
    `
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, '--eval', script], {
      cwd: root,
    })

    expect(stdout).toBe('401 invalid_token\n')
  })

  it('says what to do in an app without the SDK of MCP', async () => {
    const script = `
      const Module = require('node:module')
      const resolve = Module._resolveFilename
      Module._resolveFilename = function (name, ...others) {
        if (name.startsWith('@modelcontextprotocol/')) throw new Error('not found')
        return resolve.call(this, name, ...others)
      }
      const { createApiKeys } = require('./dist/lib')
      const { Sequelize } = require('sequelize')
      const sequelize = new Sequelize('postgres://localhost')
      const apiKeys = createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'] })
      apiKeys.mcpVerifier({ errors: { InvalidTokenError: Error, TooManyRequestsError: Error } })
      try {
        apiKeys.mcpVerifier()
      } catch (error) {
        console.log(String(error))
      }
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
      cwd: root,
    })

    expect(stdout).toBe(
      "TypeError: mcpVerifier: finds no @modelcontextprotocol/sdk beside it. Pass the errors of yours: import * as errors from '@modelcontextprotocol/sdk/server/auth/errors.js'\n",
    )
  })

  it('loads six files of other packages, besides those of its peers', async () => {
    const script = `
      for (const name of ['express', 'passport', 'pg', 'sequelize']) require(name)
      const before = new Set(Object.keys(require.cache))
      require('./dist/lib')
      const loaded = Object.keys(require.cache).filter((file) => !before.has(file))
      console.log(loaded.filter((file) => file.includes('node_modules')).join('\\n'))
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--eval', script], {
      cwd: root,
    })
    const packages = stdout
      .trim()
      .split('\n')
      .map((file) => /.*node_modules\/([^/]+)/.exec(file)?.[1])

    expect(new Set(packages)).toEqual(
      new Set([
        'fastest-levenshtein',
        'ipaddr.js',
        'passport-http-bearer',
        'structured-headers',
        'valibot',
      ]),
    )
    expect(packages).toHaveLength(6)
  })

  it('brings at most 121 packages, with its peers', async () => {
    const lock = await readFile(join(root, 'package-lock.json'), 'utf8')
    const { packages } = JSON.parse(lock) as Lock

    // They were 110 before there were importers, a command line, OpenAPI and metrics.
    expect(packagesOf(packages).size).toBeLessThanOrEqual(121)
  })

  it.each(['--help', 'create --help', 'doctor --nonsense'])(
    'answers on the command line without any part of an instance: %s',
    async (line) => {
      const script = `
        process.once('exit', () => {
          const files = Object.keys(require.cache)
          const parts = ['node_modules/(pg|valibot|express|sequelize|csv-parse|cli-progress)/', 'dist/(migrations|lib/create-api-keys)']
          process.stdout.write('loaded: ' + parts.flatMap((part) => files.filter((file) => file.match(part))))
        })
        require('./dist/lib/cli/run').run(process.argv.slice(1))
      `
      const flags = ['--eval', script, '--', ...line.split(' ')]
      const { stdout } = spawnSync(process.execPath, flags, { cwd: root, encoding: 'utf8' })

      expect(stdout).toMatch(/loaded: $/)
    },
  )

  it('has a command that its packer marks as a program', async () => {
    const { bin } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
      bin: Record<string, string>
    }

    expect(bin).toEqual({ 'express-api-keys': 'dist/lib/cli/bin.js' })
    expect(await readFile(join(root, String(bin['express-api-keys'])), 'utf8')).toMatch(
      /^#!\/usr\/bin\/env node\n/,
    )
  })
})

interface Package {
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
  peerDependenciesMeta?: Record<string, { optional?: boolean }>
}

interface Lock {
  packages: Record<string, Package>
}

/** Returns the places of the packages that npm installs with ours. */
function packagesOf(packages: Lock['packages']): Set<string> {
  const found = new Set<string>()
  const waiting = ['']
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    const { dependencies, peerDependencies, peerDependenciesMeta } = packages[at] ?? {}
    const peers = Object.keys(at === '' ? { ...peerDependencies } : {})
    const needed = peers.filter((name) => peerDependenciesMeta?.[name]?.optional !== true)
    const names = [...Object.keys({ ...dependencies }), ...needed]
    for (const name of names) {
      const place = placeOf(name, at, packages)
      if (found.has(place)) continue
      found.add(place)
      waiting.push(place)
    }
  }
  return found
}

/** Returns the place of a package as Node finds it from another place. */
function placeOf(name: string, from: string, packages: Lock['packages']): string {
  const here = join(from, 'node_modules', name)
  if (here in packages) return here
  if (from === '') throw new Error(`${name} is not in the lock file`)
  return placeOf(
    name,
    from.includes('/node_modules/') ? from.slice(0, from.lastIndexOf('/node_modules/')) : '',
    packages,
  )
}
