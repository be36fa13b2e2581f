import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { root } from '../support/package'

describe('the built package', () => {
  it('loads nothing by import(), which Jest does not have in CommonJS', async () => {
    const dist = join(root, 'dist')
    const names = await readdir(dist, { recursive: true })
    const files = names.filter((name) => name.endsWith('.js'))
    const texts = await Promise.all(files.map((name) => readFile(join(dist, name), 'utf8')))

    expect(files).toContain(join('lib', 'index.js'))
    expect(files.filter((_, index) => /\bimport\s*\(/.test(texts[index] ?? ''))).toEqual([])
  })
})
