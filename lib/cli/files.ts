import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

import { messageOf } from '../database/failures'

/** Returns why a file could not be opened for writing. */
export function faultOfFile(path: string, error: unknown): string {
  const { code } = Object(error) as { code?: unknown }
  if (code === 'ENOENT') return `there is no folder ${dirname(resolve(path))}`
  if (code === 'EEXIST') return `${path} is there already, and is not overwritten`
  if (code === 'ELOOP') return `${path} is a symbolic link, which is not followed`
  return messageOf(error)
}

/**
 * Opens a file that a command writes at its end, and makes it if it is not there. Another user may have put a symbolic link into a shared folder
 * such as /tmp, so links are not followed. Windows has no such flag, and `|` takes `undefined` for 0.
 */
export async function openForLater(path: string): Promise<FileHandle> {
  const { O_WRONLY, O_CREAT, O_NOFOLLOW } = constants
  return open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0o600)
}

/** Replaces what a file has, and closes it. */
export async function writeAndClose(file: FileHandle, text: string) {
  try {
    // Devices have no length.
    if ((await file.stat()).isFile()) await file.truncate(0)
    await file.writeFile(text)
  } finally {
    await file.close()
  }
}
