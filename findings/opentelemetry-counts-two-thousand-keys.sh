#!/usr/bin/env bash
# @opentelemetry/sdk-metrics 2.12.1
#
# Expected: a counter has a series for each set of attributes that it was given, however many. Or the SDK warns that there are too many.
# Happens: in each interval, a counter takes up at most 1,999 new sets. All that is counted for further sets is added to one series,
#   whose only attribute is `otel.metric.overflow`. There is no warning. A set that missed a place gets one in a later interval. Its
#   series then begins at what was counted after that, and nothing says that it is too low. (`aggregationCardinalityLimit` of a view and
#   `cardinalitySelector` of a reader set another limit.)
# Seen, of 3,000 keys that were used in an interval, and of two of them used again in the next:
#   after the first: 1999 keys, 1001 uses of no key
#   after the second: key-0 2 uses, key-2999 1 use
# Why it matters for API keys: a counter with the key's id is how apps see who uses them how much, and bill by it. All keys above the
#   limit are missing, and some show too little for as long as the process lives. The first callers after the start decide which. Keep
#   counts of keys in a table, and metrics without ids.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/api@1.9.1 >/dev/null

cat >counter.cjs <<'PROGRAM'
const {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} = require('@opentelemetry/sdk-metrics')

async function main() {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 1e9 })
  const counter = new MeterProvider({ readers: [reader] }).getMeter('app').createCounter('uses')

  /** Uses each key once, ends the interval, and returns what is exported. */
  async function use(keys) {
    for (const key of keys) counter.add(1, { key })
    await reader.forceFlush()
    return exporter.getMetrics().at(-1).scopeMetrics[0].metrics[0].dataPoints
  }

  const first = await use(Array.from({ length: 3000 }, (_, number) => `key-${number}`))
  const keys = first.filter(({ attributes }) => attributes.key).length
  const others = first.find(({ attributes }) => attributes['otel.metric.overflow'])?.value
  console.log(`after the first: ${keys} keys, ${others} uses of no key`)

  const second = await use(['key-0', 'key-2999'])
  const usesOf = (key) => second.find(({ attributes }) => attributes.key === key)?.value
  const [early, late] = [usesOf('key-0'), usesOf('key-2999')]
  console.log(`after the second: key-0 ${early} uses, key-2999 ${late} use`)
  process.exit([keys, others, early, late].join() === '1999,1001,2,1' ? 0 : 1)
}

void main()
PROGRAM
node counter.cjs
