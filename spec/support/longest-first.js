const longest = [
  'audit/seal',
  'freshness',
  'indexes',
  'races',
  'shared-limits',
  'change-log',
  'least-privilege',
  'owner-permissions',
  'migrations',
  'usage',
  'changes',
  'embedded-postgres',
  'housekeeping',
  'secret',
  'tracers',
  'postgres',
]

/** Starts the longest specs first, also where Jest has no memory of how long they took, so that no worker ends alone. */
module.exports = class LongestFirst {
  sort(tests) {
    return tests.toSorted((a, b) => rank(a) - rank(b))
  }

  allFailedTests(tests) {
    return tests
  }

  cacheResults() {}
}

function rank({ path }) {
  const place = longest.findIndex((name) => path.endsWith(`/${name}.spec.ts`))
  return place === -1 ? longest.length : place
}
