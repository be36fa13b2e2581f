import type { Request } from 'express'

/**
 * Returns the query of a request, without what is not meant for the app: `_`, which pages add to get past caches, and what
 * links carry for statistics. All else counts, because a mistyped filter must not show more than was asked for.
 */
export function queryOf(req: Request): Record<string, unknown> {
  const query: Request['query'] = req.query
  return Object.fromEntries(
    Object.entries(query).filter(([name]) => name !== '_' && !name.startsWith('utm_')),
  )
}
