import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Returns the secret in `file`. The first call makes the file, which only this account may read. */
export async function keptSecret(file: string): Promise<string> {
  await mkdir(dirname(file), { recursive: true })
  const secret = randomBytes(32).toString('base64url')
  await writeFile(file, secret, { mode: 0o600, flag: 'wx' }).catch((error) => {
    if (error.code !== 'EEXIST') throw error
  })

  const kept = await readFile(file, 'utf8')
  if (kept.length < secret.length) throw new Error(`${file} holds no secret. Remove it`)
  return kept
}
