import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const needed = ['initdb', 'postgres', 'pg_dump', 'pg_restore', 'psql']

/** The folder where Debian puts each version. Its PATH has only wrappers of the clients. */
const versions = '/usr/lib/postgresql'

/**
 * The folder of an installed Postgres with its clients; `undefined` if there is none. The npm package has no clients.
 */
export function findInstalledPostgres(): string | undefined {
  const folders = existsSync(versions)
    ? readdirSync(versions).map((version) => join(versions, version, 'bin'))
    : []
  return [...(process.env.PATH ?? '').split(':'), ...folders].find((folder) =>
    needed.every((name) => existsSync(join(folder, name))),
  )
}
