const { default: Sequencer } = require('@jest/test-sequencer')

/**
 * The files that take longest on a clean clone, the longest first. Jest knows no times there, and takes long files for slow ones. A slow
 * file that begins last would keep one worker busy while the other workers rest.
 */
const longest = [
  'ground/types',
  'package/install',
  'ground/tracers',
  'ground/nest',
  'browser/admin',
  'browser/access',
  'browser/walk',
  'faults/servers',
  'faults/changes',
  'faults/connections',
  'freshness/change-log',
  'lifecycle/owner-races',
  'cli/keys',
  'cli/program',
  'cli/doctor',
  'faults/moving',
  'faults/usage',
  'faults/long-trails',
  'faults/sealing',
  'faults/indexes',
  'audit/own-entries',
  'lifecycle/expiry-notices',
  'lifecycle/many-keys',
  'database/answer-limit',
  'example-app/app',
]

function rankOf({ path }) {
  const rank = longest.findIndex((name) => path.endsWith(`spec/${name}.spec.ts`))
  return rank < 0 ? longest.length : rank
}

/** Runs the files that take longest first, and the others in the order of Jest. */
module.exports = class LongestFirst extends Sequencer {
  sort(tests) {
    // It sorts no array, but tests.
    // oxlint-disable-next-line unicorn/no-array-sort
    return super.sort(tests).toSorted((one, other) => rankOf(one) - rankOf(other))
  }
}
