import { spawnSync } from 'node:child_process'

/** True if Redis is installed here. */
export const hasRedis = spawnSync('redis-server', ['--version']).status === 0
