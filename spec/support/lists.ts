import type { ApiKeyRecord } from '../../lib'
import type { TestApp, TestApiKeys } from './app'

/** Walks through all pages. */
export async function listAll(
  apiKeys: TestApiKeys,
  filter: Parameters<TestApiKeys['list']>[0],
  between?: () => Promise<unknown>,
) {
  const all: ApiKeyRecord<TestApp>[] = []
  let cursor: string | undefined
  do {
    const page = await apiKeys.list({ ...filter, ...(cursor && { cursor }) })
    all.push(...page.apiKeys)
    cursor = page.nextCursor ?? undefined
    await between?.()
  } while (cursor)
  return all
}

/** Returns the ids of keys, in order. */
export const ids = (keys: readonly { id: string }[]) => keys.map(({ id }) => id)
