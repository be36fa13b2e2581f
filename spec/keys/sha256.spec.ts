import { createHash, createHmac } from 'node:crypto'

import * as fc from 'fast-check'

import { hmacSha256, sha256 } from '../../lib/keys/sha256'

const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'

/** Up to four blocks, of every byte. */
const bytes = fc.uint8Array({ maxLength: 256 })
const text = bytes.map((bytes) => Buffer.from(bytes).toString('latin1'))

function toHex(digest: string) {
  return Buffer.from(digest, 'latin1').toString('hex')
}

describe('sha256', () => {
  it.each([
    ['', empty],
    ['abc', abc],
  ])('makes of %p what FIPS 180-4 says', (text, hash) => {
    expect(toHex(sha256(text, 0, text.length))).toBe(hash)
  })

  it('makes what OpenSSL makes, of texts of every length', () => {
    const others = Array.from({ length: 300 }, (_, length) => 'a'.repeat(length)).filter(
      (text) =>
        toHex(sha256(text, 0, text.length)) !== createHash('sha256').update(text).digest('hex'),
    )

    expect(others).toEqual([])
  })

  it('hashes a part of a text, as if there were nothing around it', () => {
    fc.assert(
      fc.property(text, text, text, (before, part, after) => {
        const start = before.length
        const digest = sha256(before + part + after, start, start + part.length)

        expect(toHex(digest)).toBe(createHash('sha256').update(part, 'latin1').digest('hex'))
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('hmacSha256', () => {
  it('makes what OpenSSL makes, with every key of up to a block', () => {
    const key = fc.uint8Array({ maxLength: 64 })

    fc.assert(
      fc.property(key, text, text, (key, before, part) => {
        const start = before.length
        const digest = hmacSha256(key)(before + part, start, start + part.length)

        expect(toHex(digest)).toBe(createHmac('sha256', key).update(part, 'latin1').digest('hex'))
      }),
      { numRuns: 2_000 },
    )
  })

  it('keeps two keys apart that are used in turn', () => {
    const [one, other] = [hmacSha256(Buffer.from('one')), hmacSha256(Buffer.from('other'))]
    const before = one('text', 0, 4)
    other('text', 0, 4)

    expect(one('text', 0, 4)).toBe(before)
    expect(other('text', 0, 4)).not.toBe(before)
  })
})
