import type * as documents from '../openapi/document'
import type { RouterName } from '../openapi/operations'
import type { OpenApiDocument } from '../openapi/options'
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
  let made: OpenApiDocument | undefined

  return {
    '/openapi.json': {
      async get({ req }) {
        // Most processes answer no such request, and load nothing for it.
        const { createRouterDocument } = require('../openapi/document') as typeof documents
        const url = urlOf(req.baseUrl)
        // To make a document takes 20 ms. A router that is mounted at one path has one document.
        if (made?.servers?.[0]?.url !== url) {
          made = createRouterDocument(parts, router, { ...options, url })
        }
        return made
      },
    },
  }
}

/** Returns the path of the router as seen from its document. A full path could be wrong, because a proxy may have removed a prefix. */
function urlOf(baseUrl: string): string {
  const last = baseUrl.slice(baseUrl.lastIndexOf('/') + 1)
  return last === '' ? '/' : `../${last}`
}
