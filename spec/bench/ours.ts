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

/** The library as an app would set it up: as it is shipped, with the defaults. */
export function openOurs({ url, ...options }: OurOptions) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 10 } })
  return createApiKeys({
    sequelize,
    keyPrefix,
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    ...options,
  })
}
