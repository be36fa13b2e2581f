const { readFileSync } = require('node:fs')

const { transformSync } = require('@swc/core')

/** Lets Node load TypeScript, for processes that specs and benches start: `node --require .../register.js file.ts`. */
require.extensions['.ts'] = function loadTypeScript(module, filename) {
  const { code } = transformSync(readFileSync(filename, 'utf8'), {
    filename,
    jsc: { target: 'es2023', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs' },
    sourceMaps: 'inline',
  })
  // Node's own loaders end in the same call.
  // oxlint-disable-next-line no-underscore-dangle
  module._compile(code, filename)
}
