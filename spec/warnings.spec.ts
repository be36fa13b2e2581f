import { warn, warningCodes } from '../models/warnings'

describe('warnings', () => {
  it('are given once per process and sentence', () => {
    const [code] = warningCodes
    // In Jest, the event of the process has no listener.
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()

    for (const message of ['One thing is wrong.', 'One thing is wrong.', 'Another is.'])
      warn(code, message)

    expect(emitWarning.mock.calls).toEqual([
      ['One thing is wrong.', { type: 'ApiKeysWarning', code }],
      ['Another is.', { type: 'ApiKeysWarning', code }],
    ])
  })
})
