import { existsSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

import type { ApiKeys } from '../api'
import { messageOf } from '../database/failures'
import { partsOfInstance, type InstanceParts } from '../instances'
import { CliError, exitCodes } from './exit-codes'

/** The app's instance, and what else the command line knows of the app. */
export interface Loaded {
  apiKeys: ApiKeys
  parts: InstanceParts
  /** The other exports of the module, for example the Express app. */
  exports: Readonly<Record<string, unknown>>
}

/** The files that are looked for without `--config`, in this order. */
const usualFiles = ['js', 'mjs', 'cjs', 'ts', 'mts', 'cts'].map((ending) => `api-keys.${ending}`)

/** Loads the module that exports the app's instance. */
export async function loadInstance(config: string | undefined): Promise<Loaded> {
  const file = findFile(config)
  const loaded = await load(file)
  const exports = exportsOf(loaded)
  const found = Object.entries(exports).filter(([, value]) => partsOfInstance(value) !== undefined)
  const [first, second] = found
  if (!first) throw new CliError(exitCodes.usage, explainMissing(file, exports))
  if (second && second[1] !== first[1]) {
    const names = found.map(([name]) => name).join(', ')
    throw new CliError(
      exitCodes.usage,
      `${file} exports several instances: ${names}. Export one, from a module for each of them.`,
    )
  }
  const parts = partsOfInstance(first[1])
  // The filter has found it.
  if (!parts) throw new Error('express-api-keys: an instance has no parts')
  return { apiKeys: first[1] as ApiKeys, parts, exports }
}

function findFile(config: string | undefined): string {
  if (config !== undefined) {
    const file = resolve(config)
    if (existsSync(file)) return file
    throw new CliError(
      exitCodes.usage,
      `${file} does not exist. --config names the module that exports your instance.`,
    )
  }
  const file = usualFiles.map((name) => resolve(name)).find((name) => existsSync(name))
  if (file !== undefined) return file
  throw new CliError(
    exitCodes.usage,
    `There is no api-keys.js in ${process.cwd()}. Write a module that exports your instance, for example\n` +
      `  module.exports = createApiKeys({ … })\nand name it with --config FILE, if it is not called api-keys.js.`,
  )
}

async function load(file: string): Promise<unknown> {
  try {
    return await import(pathToFileURL(file).href)
  } catch (error) {
    const { code } = Object(error) as { code?: unknown }
    if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?ts$/.test(file)) {
      throw new CliError(
        exitCodes.usage,
        `Node ${process.versions.node} does not load TypeScript: ${file}. Use Node 22.18 or newer, name the compiled file, or ` +
          'add a loader: NODE_OPTIONS="--import tsx".',
        { cause: error },
      )
    }
    throw new CliError(exitCodes.usage, `${file} cannot be loaded: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

/** Returns the exports of a module by their names. A module of CommonJS, or one that a compiler made of ES, has them in its default. */
function exportsOf(module: unknown): Record<string, unknown> {
  const all: Record<string, unknown> = {}
  for (let value = module, depth = 0; depth < 3 && isRecord(value); depth++) {
    // Members of an instance are none of the module's.
    if (partsOfInstance(value)) break
    for (const [name, member] of Object.entries(value)) all[name] ??= member
    value = value.default
    if (value !== undefined) all.default = value
  }
  return all
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return (typeof value === 'object' || typeof value === 'function') && value !== null
}

function explainMissing(file: string, exports: Record<string, unknown>): string {
  const isOfOther = Object.values(exports).some(
    (value) => isRecord(value) && 'requirePermission' in value && 'verifyAuditTrail' in value,
  )
  if (isOfOther) {
    return (
      `${file} exports an instance of another copy of express-api-keys than this command (${ownFolder()}). Run the command of the ` +
      "app's own copy, in the folder of the app: npx express-api-keys."
    )
  }
  if (Object.values(exports).some((value) => value instanceof Promise)) {
    return `${file} exports a promise. Await it in the module: export const apiKeys = await …`
  }
  const all = Object.keys(exports).filter((name) => name !== '__esModule')
  // A module of CommonJS has these beside the names that it exports.
  const named = all.filter((name) => name !== 'default' && name !== 'module.exports')
  const names = named.length > 0 ? named : all
  return names.length === 0
    ? `${file} exports nothing. Export what createApiKeys returns.`
    : `${file} exports no instance, only ${names.join(', ')}. Export what createApiKeys returns.`
}

function ownFolder(): string {
  const { filename } = module
  const folders = [dirname(filename)]
  while (folders.length < 5 && basename(String(folders[0])) !== 'dist') {
    folders.unshift(join(String(folders[0]), '..'))
  }
  return join(String(folders[0]), '..')
}
