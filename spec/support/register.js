const { readFileSync } = require('node:fs')

const { transformSync } = require('@swc/core')

const react = { runtime: 'automatic', importSource: 'preact' }

/** Lets Node load TypeScript, for processes that specs and benches start: `node --require .../register.js file.ts`. */
function loadTypeScript(module, filename) {
  const parser = { syntax: 'typescript', tsx: filename.endsWith('.tsx') }
  const { code } = transformSync(readFileSync(filename, 'utf8'), {
    filename,
    jsc: { target: 'es2023', parser, transform: { react } },
    module: { type: 'commonjs' },
    sourceMaps: 'inline',
  })
  // Node's own loaders end in the same call.
  // oxlint-disable-next-line no-underscore-dangle
  module._compile(code, filename)
}

require.extensions['.ts'] = loadTypeScript
require.extensions['.tsx'] = loadTypeScript
