import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { inFull, installAdopter, type Adopter } from '../support/adopter'
import { firstExample } from '../support/readme'

/**
 * The smallest configuration of a strict project. It checks our declarations and the declarations of our dependencies,
 * too.
 */
const compilerOptions = { target: 'es2022', module: 'nodenext', strict: true, noEmit: true }

describe.each(inFull ? ['4', '5'] : ['5'])(
  'the first example of the README, with the types of Express %s',
  (types) => {
    let adopter: Adopter

    beforeAll(async () => {
      adopter = await installAdopter(`types/${types}`)
      await writeFile(join(adopter.folder, 'example.ts'), firstExample())
    })

    afterAll(() => adopter.remove())

    it.each(
      (inFull ? ['5.7', '5.9', '7'] : ['5.7', '7']).flatMap((version) => [
        [version, 'none of Passport', ['node']] as const,
        [version, 'those of Passport', ['node', 'passport']] as const,
      ]),
    )('compiles in TypeScript %s, with %s', async (version, _, types) => {
      const tsconfig = JSON.stringify({ compilerOptions: { ...compilerOptions, types } })
      await writeFile(join(adopter.folder, 'tsconfig.json'), tsconfig)

      const printed = await adopter.run('node', `node_modules/typescript-${version}/bin/tsc`)

      expect(printed).toBe('')
    })
  },
)
