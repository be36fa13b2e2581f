import * as fc from 'fast-check'

import {
  createAddressList,
  groupOf,
  isAmbiguousRange,
  readAddressRange,
  readClientAddress,
} from '../../lib/keys/addresses'
import { runsOf } from '../support/runs'

describe('readAddressRange', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['203.0.113.0/24', '203.0.113.0/24'],
    ['203.0.113.7/32', '203.0.113.7'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['2001:DB8::0:1', '2001:db8::1'],
    ['2001:db8::/32', '2001:db8::/32'],
    ['::/0', '::/0'],
    ['::1/128', '::1'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.0/120', '203.0.113.0/24'],
    ['::ffff:0:0/96', '0.0.0.0/0'],
    ['0:0:0:0:0:FFFF:203.0.113.7', '203.0.113.7'],
    ['64:ff9b::203.0.113.7', '64:ff9b::cb00:7107'],
    ['::808:808', '::808:808'],
  ])('reads %s as %s', (text, shown) => {
    expect(readAddressRange(text)).toBe(shown)
  })

  it.each([
    '',
    'localhost',
    '203.0.113',
    '203.0.113.256',
    '0x7f.0.0.1',
    '010.0.0.1',
    '2130706433',
    '203.0.113.0/33',
    '203.0.113.0/-1',
    '203.0.113.0/024',
    '203.0.113.0/',
    '203.0.113.0/24/24',
    '203.0.113.0/255.255.255.0',
    ' 203.0.113.7',
    '203.0.113.7:80',
    '[::1]',
    'fe80::1%eth0',
    '::ffff:010.0.0.1',
    '::8.8.8.8',
    '::8.8.8.8/128',
    '::0:8.8.8.8',
    '0:0:0:0:0:0:8.8.8.8',
    '::ffff:0x0a.0.0.1',
    '2001:db8::/129',
    '2001:db8:::1',
    '*',
  ])('refuses %j', (text) => {
    expect(readAddressRange(text)).toBeNull()
  })
})

describe('isAmbiguousRange', () => {
  it.each([
    ['203.0.113.7/24', true],
    ['203.0.113.0/24', false],
    ['203.0.113.128/25', false],
    ['203.0.113.129/25', true],
    ['10.0.0.1/0', true],
    ['2001:db8::1/64', true],
    ['2001:db8::/64', false],
    ['::ffff:203.0.113.7/120', true],
    ['203.0.113.7', false],
  ])('says of %s: %s', (text, isAmbiguous) => {
    expect(isAmbiguousRange(text)).toBe(isAmbiguous)
  })
})

describe('readClientAddress', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['203.0.113.7:52311', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['[::ffff:203.0.113.7]:52311', '203.0.113.7'],
    ['2001:DB8::0:1', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:4711', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['[fe80::1%25eth0]:4711', 'fe80::1'],
  ])('reads %s as %s', (text, address) => {
    expect(readClientAddress(text)).toBe(address)
    // The second reading finds it cached.
    expect(readClientAddress(text)).toBe(address)
  })

  it.each([
    undefined,
    '',
    'unknown',
    '_hidden',
    '203.0.113',
    '203.0.113.7:',
    '203.0.113.7:port',
    '203.0.113.7:123456',
    '203.0.113.7%eth0',
    '010.0.0.1',
    '203.0.113.7, 10.0.0.1',
    '[203.0.113.7]:80:80',
    '2001:db8::1]:4711',
    '[2001:db8::1',
    '2001:db8::1%',
    `2001:db8::1%${'x'.repeat(100)}`,
  ])('reads nothing from %j', (text) => {
    expect(readClientAddress(text)).toBeNull()
  })
})

describe('groupOf', () => {
  it('is one per network of IPv6, one per address of IPv4, and one for all text that cannot be read', () => {
    expect(groupOf('2001:db8::1')).toBe(groupOf('2001:db8::ffff:1'))
    expect(groupOf('2001:db8::1')).not.toBe(groupOf('2001:db8:0:1::1'))
    expect(groupOf('203.0.113.7')).not.toBe(groupOf('203.0.113.8'))
    expect(groupOf(null)).toBe(groupOf(readClientAddress('nonsense')))
  })
})

describe('a list of addresses', () => {
  it.each([
    ['203.0.113.0/24', '203.0.113.7', true],
    ['203.0.113.0/24', '203.0.114.7', false],
    ['203.0.113.0/24', '::ffff:203.0.113.7', true],
    ['203.0.113.0/24', '::ffff:cb00:7107', true],
    ['2001:db8::/32', '2001:db8:ffff::1', true],
    ['2001:db8::/32', '2001:db9::1', false],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['::/0', '203.0.113.7', false],
    ['203.0.113.7', '203.0.113.7', true],
    ['203.0.113.7', '203.0.113.8', false],
    ['nonsense', '203.0.113.7', false],
    ['0.0.0.0/0', 'unknown', false],
    ['0.0.0.0/0', '::8.8.8.8', false],
    ['0.0.0.0/0', '203.0.113.7, 10.0.0.1', false],
  ])('of %s includes %s: %s', (range, address, isIncluded) => {
    expect(createAddressList([range]).includes(address)).toBe(isIncluded)
  })

  it('never includes an unknown address', () => {
    expect(createAddressList(['0.0.0.0/0', '::/0']).includes(undefined)).toBe(false)
  })

  it('judges each address by itself, whichever was included before', () => {
    const list = createAddressList(['192.0.2.0/25', '2001:db8::/64'])
    const addresses = ['192.0.2.1', '192.0.2.128', '192.0.2.128', '192.0.2.1', '2001:db8::1']

    expect(addresses.map((address) => list.includes(address))).toEqual([
      true,
      false,
      false,
      true,
      true,
    ])
    expect(list.includes(undefined)).toBe(false)
  })

  it('includes exactly the addresses that begin with the bits of a range', () => {
    const bits32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
    const place = fc.record({ start: bits32, prefixLength: fc.integer({ min: 0, max: 32 }) })
    // Most addresses are near each other, because random addresses share no bits.
    const distance = fc.oneof(bits32, fc.integer({ min: 0, max: 300 }))

    fc.assert(
      fc.property(place, distance, ({ start, prefixLength }, distance) => {
        const list = createAddressList([`${format(start)}/${prefixLength}`])
        const other = (start ^ distance) >>> 0
        const size = 2 ** (32 - prefixLength)

        expect(list.includes(format(other))).toBe(
          Math.floor(start / size) === Math.floor(other / size),
        )
      }),
      { numRuns: runsOf(2_000) },
    )
  })
})

function format(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')
}
