import ipaddr from 'ipaddr.js'

import { createInterner } from './interner'

type Address = ipaddr.IPv4 | ipaddr.IPv6

interface Range {
  address: Address
  /** The number of leading bits that an address must share with `address`. */
  prefixLength: number
}

/** The addresses from which a key may be used. */
export type AddressList = ReturnType<typeof createAddressList>

/**
 * Reads an address or a range in CIDR notation (RFC 4632, RFC 4291 section 2.3), and returns it in its shortest form (RFC
 * 5952); `null` if it is neither. An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) means the IPv4 address.
 */
export function readAddressRange(text: string): string | null {
  const range = parseRange(text)
  if (!range) return null

  const { address, prefixLength } = range
  const shown = formatAddress(address)
  return prefixLength === bitsOf(address) ? shown : `${shown}/${prefixLength}`
}

/**
 * Reads the address of a client as servers and proxies write it: alone, or with a port, brackets or a zone. Returns the address
 * alone, in its shortest form, and `null` for other text.
 */
export function readClientAddress(text: string | undefined): string | null {
  if (text === undefined || text.length > maxClientLength) return null
  return internClient(text)
}

/** `203.0.113.7:52311`, as some proxies write it. */
const withPort = /^([\d.]+):\d{1,5}$/
/** `[2001:db8::1]:4711` (RFC 3986, section 3.2.2), or without the port. */
const inBrackets = /^\[([^\]]+)\](?::\d{1,5})?$/
/** `fe80::1%eth0` (RFC 4007, section 11). The zone has a meaning on one machine only. */
const zone = /%[^%]+$/

/** Most clients send more than one request. */
const internClient = createInterner((text) => {
  const [, bare = text] = inBrackets.exec(text) ?? withPort.exec(text) ?? []
  const address = parseAnew(bare.includes(':') ? bare.replace(zone, '') : bare)
  return address && formatAddress(address)
}, copyOf)

/** True if a range has bits set behind its prefix, so that its meaning is not clear. */
export function isAmbiguousRange(text: string): boolean {
  const range = parseRange(text)
  if (!range) return false

  const { address, prefixLength } = range
  return address
    .toByteArray()
    .some(
      (byte, index) => (byte & (0xff >> Math.min(Math.max(prefixLength - 8 * index, 0), 8))) > 0,
    )
}

/** Makes a list of ranges in the form of `readAddressRange`. A range that cannot be read includes no address. */
export function createAddressList(ranges: readonly string[]) {
  const known = ranges.map(parseRange).filter((range) => range !== null)
  /** The next request of a key most probably comes from the same address. */
  let lastIncluded: string | undefined

  return {
    /**
     * True if the address of a client, in the form of `readClientAddress`, is among them. An unknown address never is.
     */
    includes(text: string | null | undefined): boolean {
      if (text === undefined || text === null) return false
      if (text === lastIncluded) return true
      const address = parseAddress(text)
      if (address === null || !known.some((range) => isWithinRange(address, range))) return false

      lastIncluded = text
      return true
    },
  }
}

/**
 * Returns the group in which an address is counted. IPv6 addresses are counted by their network of 64 bits, because a client
 * has all of it (RFC 6177). Addresses that cannot be read form one group.
 */
export function groupOf(address: string | null): string {
  if (address === null) return 'unknown'
  const parsed = address.includes(':') ? parseAddress(address) : null
  return parsed instanceof ipaddr.IPv6 ? `${parsed.parts.slice(0, 4).join(':')}::/64` : address
}

function isWithinRange(address: Address, range: Range): boolean {
  if (address.kind() !== range.address.kind()) return false
  // Both are of one kind, but the overloads cannot know it.
  return (address as ipaddr.IPv6).match(range.address, range.prefixLength)
}

const prefixLengthPattern = /^(?:0|[1-9]\d{0,2})$/

function parseRange(text: string): Range | null {
  const [start = '', length, ...rest] = text.split('/')
  const address = parseUnmapped(start)
  if (!address || rest.length > 0) return null
  if (length === undefined) return mapBack({ address, prefixLength: bitsOf(address) })

  const prefixLength = Number(length)
  if (!prefixLengthPattern.test(length) || prefixLength > bitsOf(address)) return null
  return mapBack({ address, prefixLength })
}

/** The length of the longest address as text, alone and with brackets, a port and a zone. */
const maxAddressLength = 45
const maxClientLength = 80

/** Parsing an address costs more than finding it. */
const internAddress = createInterner(parseAnew, copyOf)

/** Copies a text. An address that was cut out of a header would keep the whole header in memory. */
function copyOf(text: string): string {
  return Buffer.from(text).toString()
}

function parseAddress(text: string): Address | null {
  return text.length > maxAddressLength ? null : internAddress(text)
}

function parseAnew(text: string): Address | null {
  const address = parseUnmapped(text)
  return address && mapBack({ address, prefixLength: bitsOf(address) }).address
}

/** Takes the usual forms only. Programs differ in how they read other forms, for example 0x7f.1 or 010.0.0.1. */
function parseUnmapped(text: string): Address | null {
  if (isFourPartDecimal(text)) return ipaddr.IPv4.parse(text)
  // A zone, as in fe80::1%eth0, has a meaning on one machine only.
  const last = text.slice(text.lastIndexOf(':') + 1)
  const isUsual = !text.includes('%') && (!last.includes('.') || isFourPartDecimal(last))
  if (!text.includes(':') || !isUsual || !ipaddr.IPv6.isValid(text)) return null

  const address = ipaddr.IPv6.parse(text)
  return last.includes('.') && isCompatible(text, address) ? null : address
}

/**
 * True for an IPv4-compatible address, for example ::192.0.2.1. That form is deprecated (RFC 4291, section 2.5.5.1), and the
 * package takes its shortest form for an IPv4-mapped address, which is a different address.
 */
function isCompatible(text: string, address: ipaddr.IPv6): boolean {
  return !text.slice(2).includes(':') || address.parts.slice(0, 6).every((part) => part === 0)
}

const fourPartDecimal = /^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/

function isFourPartDecimal(text: string): boolean {
  // The package throws, and catches, an error with a stack for each text of another form.
  return fourPartDecimal.test(text) && ipaddr.IPv4.isValidFourPartDecimal(text)
}

const mappedPrefixLength = 96

function mapBack({ address, prefixLength }: Range): Range {
  if (!isMapped(address) || prefixLength < mappedPrefixLength) return { address, prefixLength }
  return { address: address.toIPv4Address(), prefixLength: prefixLength - mappedPrefixLength }
}

/** True for an IPv4-mapped address. It compares the parts, because the package would try every special range. */
function isMapped(address: Address): address is ipaddr.IPv6 {
  if (!(address instanceof ipaddr.IPv6)) return false
  return address.parts[5] === 0xffff && address.parts.slice(0, 5).every((part) => part === 0)
}

function bitsOf(address: Address): number {
  return address.kind() === 'ipv4' ? 32 : 128
}

function formatAddress(address: Address): string {
  return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString()
}
