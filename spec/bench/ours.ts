import { createApiKeys, type Limits } from 'express-api-keys'
import { Sequelize } from 'sequelize'

import { keyPrefix } from './keys'

export interface OurOptions {
  url: string
  secrets?: readonly string[]
  cacheSize?: number
  limits?: Limits
  maxFailedAttemptsPerMinute?: number
}

/** The built library in an app, with the default options. */
export function openOurs({ url, ...options }: OurOptions) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 10 } })
  return createApiKeys({
    sequelize,
    keyPrefix,
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    ...options,
  })
}
