import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { warn, warningCodes } from '../models/warnings'

describe('warnings', () => {
  it('are given once per process and sentence', () => {
    const [code] = warningCodes
    // Within Jest nobody hears the process's own event.
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()

    for (const message of ['One thing is wrong.', 'One thing is wrong.', 'Another is.'])
      warn(code, message)

    expect(emitWarning.mock.calls).toEqual([
      ['One thing is wrong.', { type: 'ApiKeysWarning', code }],
      ['Another is.', { type: 'ApiKeysWarning', code }],
    ])
  })

  it('have a line each in the README, and the README has no others', async () => {
    const readme = await readFile(join(__dirname, '..', 'README.md'), 'utf8')
    const [, table = ''] = readme.split('\n### Warnings\n')
    const [section = ''] = table.split(/\n##/)

    const documented = [...section.matchAll(/^\| `(API_KEYS_[A-Z_]+)`/gm)].map(([, code]) => code)

    expect(documented).toEqual(warningCodes)
  })
})
