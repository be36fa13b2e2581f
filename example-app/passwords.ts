import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'

const derive = promisify<string, Buffer, number, Buffer>(scrypt)

const SALT_BYTES = 16
const HASH_BYTES = 32

/** Hashes a password with scrypt and a salt of its own. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES)
  const hash = await derive(password, salt, HASH_BYTES)
  return Buffer.concat([salt, hash]).toString('base64')
}

/** True if the hash is of this password. Without a hash, takes as long and returns false. */
export async function isPassword(password: string, hashed: string | undefined): Promise<boolean> {
  const bytes = hashed ? Buffer.from(hashed, 'base64') : Buffer.alloc(SALT_BYTES + HASH_BYTES)
  const hash = await derive(password, bytes.subarray(0, SALT_BYTES), HASH_BYTES)
  return timingSafeEqual(hash, bytes.subarray(SALT_BYTES)) && hashed !== undefined
}
