import { pbkdf2, scrypt } from 'node:crypto'
import { promisify } from 'node:util'

/** A value that a system stores with a salt, as it is read: the recipe, the salt, and what the recipe makes of the key and the salt. */
export interface SaltedValue {
  recipe: string
  salt: string
  /** A character for each byte. */
  derived: string
}

/** How a system turns a key and a salt of its own into the value that it stores. It takes long, on purpose. */
export interface SaltedDigest {
  /** Reads the stored text, and the salt if it stands beside that; `null` if the text has another form. */
  read(stored: string, salt: string | undefined): SaltedValue | null
  /** Makes the value of a key, a character for each byte. */
  derive(key: string, recipe: string, salt: string): Promise<string>
}

const scryptOf = promisify<string, string | Buffer, number, object, Buffer>(scrypt)
const pbkdf2Of = promisify(pbkdf2)

/** scrypt with the costs of Node and of most systems: N 2^14, r 8, p 1. The salt beside the value is hexadecimal, or text. */
export function scryptWith({
  length,
  salt: form,
}: {
  length: number
  salt: 'hex' | 'text'
}): SaltedDigest {
  const recipe = `scrypt:${form}:${length}`
  return {
    read(stored, salt) {
      const isHex = new RegExp(`^[0-9a-fA-F]{${2 * length}}$`).test(stored)
      const hasSalt =
        salt !== undefined && (form === 'text' ? salt !== '' : /^(?:[0-9a-fA-F]{2})+$/.test(salt))
      return isHex && hasSalt
        ? { recipe, salt, derived: Buffer.from(stored, 'hex').toString('latin1') }
        : null
    },
    async derive(key, _, salt) {
      const bytes = await scryptOf(
        key,
        form === 'hex' ? Buffer.from(salt, 'hex') : salt,
        length,
        {},
      )
      return bytes.toString('latin1')
    },
  }
}

/** The most rounds that are run for a client. More take longer than a client waits. */
const mostRounds = 2_000_000

/** PBKDF2 with SHA-256, whose stored text has the rounds and the salt, as Django writes it: `pbkdf2_sha256$rounds$salt$base64`. */
export const djangoPbkdf2: SaltedDigest = {
  read(stored) {
    const [, rounds = '', salt = '', value = ''] =
      /^pbkdf2_sha256\$(\d{1,7})\$([^$]{1,128})\$([A-Za-z0-9+/]{43}=)$/.exec(stored) ?? []
    if (value === '' || Number(rounds) > mostRounds) return null
    return {
      recipe: `pbkdf2:${rounds}:32`,
      salt,
      derived: Buffer.from(value, 'base64').toString('latin1'),
    }
  },
  derive: derivePbkdf2,
}

/** PBKDF2 with SHA-256 and the same number of rounds for all keys. The stored text is hexadecimal, the salt beside it is text. */
export function pbkdf2With({ rounds, length }: { rounds: number; length: number }): SaltedDigest {
  return {
    read(stored, salt) {
      const isHex = new RegExp(`^[0-9a-f]{${2 * length}}$`).test(stored)
      if (!isHex || salt === undefined) return null
      return {
        recipe: `pbkdf2:${rounds}:${length}`,
        salt,
        derived: Buffer.from(stored, 'hex').toString('latin1'),
      }
    },
    derive: derivePbkdf2,
  }
}

async function derivePbkdf2(key: string, recipe: string, salt: string) {
  const [, rounds, length] = recipe.split(':')
  return (await pbkdf2Of(key, salt, Number(rounds), Number(length), 'sha256')).toString('latin1')
}

/**
 * bcrypt, by the function `hash` of the package that made the stored texts. It reads the first 72 bytes of a key. From the first use on, the
 * whole key counts.
 *
 * @example
 * bcryptWith(require('bcryptjs').hash)
 */
export function bcryptWith(hash: (key: string, salt: string) => Promise<string>): SaltedDigest {
  return {
    read(stored) {
      // A cost of 16 takes seconds.
      const [, salt, derived] =
        /^(\$2[aby]\$(?:0\d|1[0-6])\$[./A-Za-z0-9]{22})([./A-Za-z0-9]{31})$/.exec(stored) ?? []
      return salt === undefined || derived === undefined
        ? null
        : { recipe: 'bcrypt', salt, derived }
    },
    async derive(key, _, salt) {
      return (await hash(key, salt)).slice(salt.length)
    },
  }
}
