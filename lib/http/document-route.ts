import type * as documents from '../openapi/document'
import type { RouterName } from '../openapi/operations'
import type { OpenApiOption } from './access'
import type { RouterParts, Routes } from './router'

/** Returns the route that answers with the OpenAPI document of its router; none unless the app asks for it. */
export function documentRoute(
  parts: RouterParts,
  router: RouterName,
  option: OpenApiOption | undefined,
): Routes {
  if (option === undefined || option === false) return {}
  const options = option === true ? {} : option

  return {
    '/openapi.json': {
      async get({ req }) {
        // Most processes answer no such request, and load nothing for it.
        const { createRouterDocument } = require('../openapi/document') as typeof documents
        return createRouterDocument(parts, router, { ...options, url: urlOf(req.baseUrl) })
      },
    },
  }
}

/** Returns the path of the router as seen from its document. A full path could be wrong, because a proxy may have removed a prefix. */
function urlOf(baseUrl: string): string {
  const last = baseUrl.slice(baseUrl.lastIndexOf('/') + 1)
  return last === '' ? '/' : `../${last}`
}
