import { randomBytes } from 'node:crypto'
import { link, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * Answers the secret kept in `file`: 256 random bits in base64url. The first call makes it, readable
 * by this account only; later ones, of other processes too, find the same.
 */
export async function keptSecret(file: string): Promise<string> {
  return readFile(file, 'utf8').catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error

    await makeSecret(file)
    return readFile(file, 'utf8')
  })
}

async function makeSecret(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  const drafts = await mkdtemp(join(dirname(file), `draft-secret-${process.pid}-`))
  const draft = join(drafts, 'secret')
  await writeFile(draft, randomBytes(32).toString('base64url'), { mode: 0o600 })

  // A link appears whole or not at all, and never replaces the secret of a process that was faster.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await rm(drafts, { recursive: true })
}
