import { createApiKeys, type ApiKeysError, type AnyRequest } from 'express-api-keys'
import type { Response } from 'express'
import type { Sequelize } from 'sequelize'

export type Keys = ReturnType<typeof createKeys>

type OnRefusal = (error: ApiKeysError, req: AnyRequest, res: Response) => void

/** Makes the instance that the recipes use. An app makes it once, and imports it. */
export function createKeys(
  sequelize: Sequelize,
  options: { onRefusal?: OnRefusal; listen?: boolean; maxStalenessMs?: number } = {},
) {
  return createApiKeys({
    sequelize,
    keyPrefix: 'acme',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    ...options,
  })
}
