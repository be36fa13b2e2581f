import type { ErrorCode } from '../../lib'
import { countVerifications } from '../support/app'
import { expectProblem } from '../support/problem'
import { sendRaw } from '../support/raw-http'
import { useWorld } from '../support/world'

const { apiKeys, app, createKey } = useWorld({
  options: { header: 'X-API-Key' },
  routes(app, { requirePermission }) {
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({ graphs: [] })
    })
  },
})

let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

describe('the header Authorization', () => {
  const garbage = 'x'.repeat(8 * 1024)

  it.each([
    ['no key at all', [], 'missing_credential'],
    ['an empty header', ['Authorization:'], 'missing_credential'],
    ['another scheme', ['Authorization: Basic YWxpY2U6c2VjcmV0'], 'missing_credential'],
    ['Bearer without a token', ['Authorization: Bearer'], 'malformed_credential'],
    ['Bearer and spaces', ['Authorization: Bearer   '], 'malformed_credential'],
    ['two tokens', ['Authorization: Bearer a b'], 'malformed_credential'],
    ['a list', ['Authorization: Bearer KEY, Bearer KEY'], 'malformed_credential'],
    ['a parameter', ['Authorization: Bearer token="KEY"'], 'malformed_credential'],
    ['a key without scheme', ['Authorization: KEY'], 'malformed_credential'],
    ['a key as Basic', ['Authorization: Basic KEY'], 'malformed_credential'],
    ['a key as Token', ['Authorization: Token token=KEY'], 'malformed_credential'],
    ['a key behind a tab', ['Authorization: Bearer\tKEY'], 'malformed_credential'],
    ['a key in angle brackets', ['Authorization: Bearer <KEY>'], 'malformed_credential'],
    ['a key and a byte of latin1', ['Authorization: Bearer KEY\xe9'], 'malformed_credential'],
    [
      'a key twice',
      ['Authorization: Bearer KEY', 'Authorization: Bearer KEY'],
      'multiple_credentials',
    ],
    [
      'a key after a JWT',
      ['Authorization: Bearer a.b.c', 'Authorization: Bearer KEY'],
      'multiple_credentials',
    ],
    [
      'a key before Basic',
      ['Authorization: Bearer KEY', 'Authorization: Basic eA=='],
      'multiple_credentials',
    ],
    ['8 KiB of garbage', [`Authorization: Bearer ${garbage}`], 'invalid_api_key'],
    ['8 KiB of garbage as a key', [`Authorization: Bearer agpt_${garbage}`], 'invalid_api_key'],
    [
      '8 KiB of separators',
      [`Authorization: ${'=:,; '.repeat(1640)}agpt_`],
      'malformed_credential',
    ],
    ['a key in upper case', ['Authorization: Bearer AGPT_KEY'], 'invalid_api_key'],
  ] satisfies [string, string[], ErrorCode][])(
    'with %s is refused without a look at any key',
    async (_, lines, code) => {
      const before = await countVerifications(apiKeys)

      const answer = await sendRaw(app, [
        'GET /graphs HTTP/1.1',
        ...lines.map((line) => line.replaceAll('KEY', plainTextKey)),
      ])

      expectProblem({ ...answer, body: JSON.parse(answer.body) }, code)
      expect(await countVerifications(apiKeys)).toBe(before)
    },
  )

  it.each(['Bearer KEY', 'bearer KEY', 'BEARER KEY', 'bEaReR    KEY', '   Bearer KEY  '])(
    'is understood as %j',
    async (value) => {
      const answer = await sendRaw(app, [
        'GET /graphs HTTP/1.1',
        `authorization:${value.replace('KEY', plainTextKey)}`,
      ])

      expect(answer.status).toBe(200)
    },
  )
})
