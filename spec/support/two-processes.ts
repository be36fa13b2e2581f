import { once } from 'node:events'

import type { TestApiKeys } from './app'
import { useWorld, type World } from './world'

interface TwoProcesses {
  world: World
  /** The instance that verifies keys, in each `it` a new one. */
  readonly serving: TestApiKeys
  /** The instance that changes keys, in each `it` a new one. */
  readonly changing: TestApiKeys
}

/** Gives a spec file a database, and for each `it` two processes: one serves, one changes keys. */
export function useTwoProcesses(): TwoProcesses {
  const world = useWorld()
  let pair: TestApiKeys[] = []

  beforeEach(() => {
    pair = [world.createProcess().apiKeys, world.createProcess().apiKeys]
  })

  afterEach(async () => {
    for (const apiKeys of pair) await apiKeys.close()
  })

  function instance(index: number): TestApiKeys {
    const apiKeys = pair[index]
    if (!apiKeys) throw new Error('there is an instance from the first beforeEach on')
    return apiKeys
  }

  return {
    world,
    get serving() {
      return instance(0)
    },
    get changing() {
      return instance(1)
    },
  }
}

/** Resolves with the reason of a signal, once it has aborted. */
export async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, 'abort')
  return signal.reason
}
