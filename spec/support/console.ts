import type { ConsoleOptions } from '../../lib'
import type { Options, Permission } from './app'
import { createVisitor } from './visitor'
import { useWorld } from './world'

/** Where the specs mount the pages. */
export const mount = '/settings/api-keys'

/** Gives a spec file an app with the pages, and visitors of them. */
export function useConsole(options: Options = {}, look: ConsoleOptions<Permission> = {}) {
  const world = useWorld({
    options,
    routes: (app, apiKeys) => app.use(mount, apiKeys.console(look)),
  })

  return {
    ...world,
    /** Returns a visitor who is signed in. */
    as: (user: string, headers: Record<string, string> = {}) =>
      createVisitor(world.http, { 'X-User': user, ...headers }),
  }
}
