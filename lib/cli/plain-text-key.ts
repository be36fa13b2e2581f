import { rmSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'

import { messageOf } from '../database/failures'
import type { ApiKeyRecord } from '../keys/record'
import { CliError, exitCodes } from './exit-codes'
import { faultOfFile } from './files'
import { note, paint, print } from './terminal'

/** The place for a new plain-text key: a new file, or the terminal. */
export interface SecretOptions {
  output?: string
  json?: boolean
}

/** A key that was made. */
interface Made {
  apiKey: ApiKeyRecord
  plainTextKey: string
}

/**
 * Makes a key and prints it once: into a new file that its owner alone may read, or on the terminal. A pipe is refused before the
 * key is made, because its reader may be a log. The file is opened before, so that no key is lost because of it.
 */
export async function printOnce(
  { output, json }: SecretOptions,
  make: () => Promise<Made>,
): Promise<Made> {
  if (output === undefined) {
    if (!process.stdout.isTTY) {
      throw new CliError(
        exitCodes.usage,
        'The plain-text key is printed on a terminal only. Nothing was changed. Name a file for it: --output FILE.',
      )
    }
    const made = await make()
    if (json === true) return made
    await print(`${paint('bold', made.plainTextKey)}\n`)
    note('This is the only time that the key is shown.')
    return made
  }

  const path = resolve(output)
  const file = await openNew(path)
  const removeFile = () => rmSync(path, { force: true })
  // After Ctrl-C, an empty file would be in the way of the next try.
  process.on('exit', removeFile)
  try {
    const made = await make().catch((error: unknown) => {
      removeFile()
      throw error
    })
    process.off('exit', removeFile)
    await write(file, path, made)
    note(`The plain-text key is in ${path}.`)
    return made
  } finally {
    await file.close()
  }
}

async function write(file: FileHandle, path: string, { apiKey, plainTextKey }: Made) {
  try {
    await file.writeFile(`${plainTextKey}\n`)
    await file.sync()
  } catch (error) {
    throw new CliError(
      exitCodes.failed,
      `The key ${apiKey.id} was made, and cannot be written to ${path}: ${messageOf(error)}. Rotate it, or revoke it.`,
      { cause: error },
    )
  }
}

async function openNew(path: string) {
  try {
    return await open(path, 'wx', 0o600)
  } catch (error) {
    const message = `The file for the key cannot be made: ${faultOfFile(path, error)}. Nothing was changed.`
    throw new CliError(exitCodes.usage, message, { cause: error })
  }
}
