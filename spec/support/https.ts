import { generateKeyPairSync, sign } from 'node:crypto'
import type { LookupOptions } from 'node:dns'
import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { createServer, request } from 'node:https'
import type { AddressInfo, LookupFunction } from 'node:net'

export interface SecureAnswer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

/** Sends a request over HTTPS to an app, on a server with a certificate that the client trusts. */
export async function sendSecurely(
  app: RequestListener,
  path: string,
  headers: Record<string, string> = {},
): Promise<SecureAnswer> {
  const { cert, key } = makeCertificate()
  const server = createServer({ cert, key }, app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  try {
    const sent = request({ host: 'localhost', lookup: toLoopback, port, path, headers, ca: cert })
    sent.end()
    const [answer] = await once(sent, 'response')
    let text = ''
    for await (const chunk of answer) text += String(chunk)
    return { status: answer.statusCode, headers: answer.headers, text }
  } finally {
    server.close()
    server.closeAllConnections()
  }
}

/** The server listens on one of the two addresses of `localhost`. */
function toLoopback(_: string, options: LookupOptions, done: Parameters<LookupFunction>[2]) {
  if (options.all) done(null, [{ address: '127.0.0.1', family: 4 }])
  else done(null, '127.0.0.1', 4)
}

/** Makes a certificate of `localhost` that it has signed itself (RFC 5280, section 4.1), because Node only reads certificates. */
function makeCertificate(): { cert: string; key: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const localhost = Buffer.from('localhost')
  const name = sequence(der(0x31, sequence(oid('550403'), der(0x0c, localhost))))
  const validity = sequence(time('20000101000000Z'), time('20991231235959Z'))
  const algorithm = sequence(oid('2a8648ce3d040302'))
  const altName = sequence(oid('551d11'), der(0x04, sequence(der(0x82, localhost))))
  const content = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1])),
    algorithm,
    name,
    validity,
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(altName)),
  )
  const signature = der(0x03, Buffer.from([0]), sign('sha256', content, privateKey))
  const text = sequence(content, algorithm, signature).toString('base64')
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${text.replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

function der(tag: number, ...contents: Buffer[]): Buffer {
  const content = Buffer.concat(contents)
  const { length } = content
  const head = length < 0x80 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), content])
}

const sequence = (...contents: Buffer[]) => der(0x30, ...contents)
const oid = (hex: string) => der(0x06, Buffer.from(hex, 'hex'))
const time = (text: string) => der(0x18, Buffer.from(text))
