import type { AppRequest, TrustedOrigins } from '../options'
import type { GuardedRequest } from './request'

/** A request of Express, of either version. */
type Request = GuardedRequest & Pick<AppRequest, 'get'>

/**
 * True if a page of another site sent this request. A browser says so itself (Sec-Fetch-Site, W3C Fetch Metadata). An old browser
 * names the origin of the page (Origin, RFC 6454). A program that is not a browser sends neither.
 */
export async function isCrossSite(
  req: Request,
  trusted: TrustedOrigins<Request>,
): Promise<boolean> {
  const { origin, 'sec-fetch-site': site } = req.headers
  if (origin !== undefined && (await isTrusted(req, origin, trusted))) return false
  if (site !== undefined) return site !== 'same-origin' && site !== 'none'

  return origin !== undefined && !isOwnOrigin(req, origin)
}

async function isTrusted(
  req: Request,
  origin: string,
  trusted: TrustedOrigins<Request>,
): Promise<boolean> {
  // All pages without an origin of their own send this, whatever their site is.
  if (origin === 'null') return false
  if (typeof trusted !== 'function') return trusted.includes(origin)
  return (await trusted(origin, req)) === true
}

function isOwnOrigin(req: Request, origin: string): boolean {
  const host = hostOf(req)
  if (!/^https?:/.test(origin) || !URL.canParse(origin) || host === undefined) return false

  const { protocol, host: originHost } = new URL(origin)
  const own = `${protocol}//${host}`
  return URL.canParse(own) && new URL(own).host === originHost
}

/**
 * Returns the host with its port as Express 5 does in `req.host`, also behind a trusted proxy. `req.host` of Express 4 lacks the
 * port.
 */
export function hostOf(req: Request): string | undefined {
  const isTrusted = req.app?.get('trust proxy fn') as (
    address: string | undefined,
    hops: number,
  ) => boolean
  const forwarded = req.get('X-Forwarded-Host')

  return forwarded && isTrusted(req.socket.remoteAddress, 0)
    ? forwarded.split(',')[0]?.trim()
    : req.get('Host')
}
