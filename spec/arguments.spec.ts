import { ApiKeysError, digests } from '../lib'
import { show } from '../models/option-checks'
import { useWorld } from './support/world'

const legacy = { name: 'legacy', accepts: /^lk_[a-z]{20}$/, digest: digests.sha256.hex }
const { apiKeys } = useWorld({ options: { imports: [legacy] } })

const id = '0198a8a0-0000-7000-8000-000000000000'
const newKey = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'] }

/** Every function, with arguments that make sense. */
const functions: Record<string, unknown[]> = {
  adminRouter: [{}],
  announceExpiring: [],
  auditHead: [],
  authenticate: [{}],
  authenticateRequest: [{ headers: {} }, {}],
  close: [],
  console: [{}],
  consume: [{ headers: {} }, 1],
  countRevocable: ['nobody', {}],
  create: [newKey, {}],
  createMany: [[newKey], {}],
  documentGuards: [{ openapi: '3.1.0', paths: {} }, {}],
  dropPermission: ['WRITE_GRAPH', {}],
  endRotation: [id, {}],
  events: [{}, {}],
  explain: ['x', {}],
  flush: [],
  get: [id, {}],
  getApiKey: [{ headers: {} }],
  hasPermission: [{ permissions: ['READ_GRAPH'] }, 'READ_GRAPH'],
  health: [{}],
  importKeys: ['legacy', [{}], {}],
  instrument: [{}],
  leakRouter: [{}],
  list: [{}, {}],
  maskKeys: [],
  mcpVerifier: [{ errors: { InvalidTokenError: Error, TooManyRequestsError: Error } }],
  migrate: [],
  on: ['created', () => {}],
  openApi: [{}],
  pruneAuditTrail: [{ olderThanDays: 900 }],
  pruneRevoked: [{ olderThanDays: 900 }, {}],
  pruneUsage: [{ olderThanDays: 900 }],
  reactivate: [id, {}],
  reactivateOwner: [{ type: 'user', id: 'nobody' }, {}],
  renamePermission: ['WRITE_GRAPH', 'READ_GRAPH', {}],
  requirePermission: ['READ_GRAPH', {}],
  eraseOwner: [{ type: 'user', id: 'nobody' }, { reason: 'none' }],
  revoke: [id, {}],
  revokeAll: ['nobody', {}],
  revokeMany: [{ ids: [id] }, {}],
  revokeUnused: [{ unusedForDays: 900 }, {}],
  rotate: [id, {}],
  router: [{}],
  scannerRules: ['gitleaks'],
  setPermissions: [id, ['READ_GRAPH'], {}],
  suspend: [id, {}],
  suspendOwner: [{ type: 'user', id: 'nobody' }, {}],
  tokenRouter: [{}],
  totalUsage: [{}, {}],
  transfer: [id, { type: 'user', id: 'nobody' }, {}],
  unrevoke: [id, {}],
  update: [id, { name: 'Backup' }, {}],
  usage: [id, {}, {}],
  ownerChanged: ['nobody', {}],
  verify: ['x', {}],
  verifyAuditTrail: [{}],
}

const bare: unknown = Object.create(null)
const none = [null, undefined, '', NaN, []]
const nonsense = [...none, 0, true, 'x', [null], [bare], bare, Symbol('x'), () => {}, 1n]

/** The words of the engine for a mistake that was not expected. */
const unexpected =
  /Cannot (read|set|destructure|convert|use|mix)|is not (a function|iterable|an object|defined)|Invalid value|circular|called on non-object/

/** Returns why a function does not refuse its arguments clearly; `undefined` if it does, or accepts them. */
async function complaintOf(name: string, args: unknown[]): Promise<string | undefined> {
  try {
    await (apiKeys as unknown as Record<string, (...args: unknown[]) => unknown>)[name]?.(...args)
    return undefined
  } catch (error) {
    if (error instanceof ApiKeysError) return undefined
    const isClear = error instanceof TypeError && !unexpected.test(error.message)
    return isClear ? undefined : String(error)
  }
}

describe('nonsense', () => {
  it('is tried with every function', () => {
    const names = Object.entries(apiKeys).flatMap(([name, value]) =>
      typeof value === 'function' ? [name] : [],
    )

    expect(Object.keys(functions).toSorted()).toEqual(names.toSorted())
  })

  const withArguments = Object.keys(functions).filter((name) => functions[name]?.length)

  it.each(withArguments)('is refused clearly by %s, whatever it is and wherever', async (name) => {
    const complaints: string[] = []
    const sense = functions[name] ?? []
    for (const place of sense.keys()) {
      for (const value of nonsense) {
        const complaint = await complaintOf(name, sense.with(place, value))
        if (complaint !== undefined) complaints.push(`${place}, ${show(value)}: ${complaint}`)
      }
    }

    expect(complaints).toEqual([])
  })

  it('is refused by health if it is an option that does not exist', async () => {
    await expect(apiKeys.health({ livingkeys: true } as never)).rejects.toThrow(
      new TypeError('health: there is no option livingkeys. Did you mean livingKeys?'),
    )
  })

  it('in place of options is refused as such', async () => {
    for (const options of [null, 'x', []]) {
      await expect(apiKeys.get(id, options as never)).rejects.toThrow(
        new TypeError('the options of a call must be an object'),
      )
    }
  })

  it('in place of criteria revokes no key', async () => {
    const { apiKey } = await apiKeys.create({ ...newKey, permissions: ['READ_GRAPH'] })

    for (const criteria of [null, undefined, {}, [], 'x', { ids: null }]) {
      await expect(apiKeys.revokeMany(criteria as never)).rejects.toThrow(Error)
      await expect(apiKeys.revokeUnused(criteria as never)).rejects.toThrow(Error)
    }
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'ACTIVE' })
  })
})
