#!/usr/bin/env bash
# prom-client 15.1.3, beside @opentelemetry/sdk-metrics 2.12.1 with @opentelemetry/exporter-prometheus 0.223.0
#
# Expected: a gauge whose `collect` fails is missing from the answer to Prometheus, and the other metrics are there.
# Happens: `register.metrics()` waits for all gauges, and rejects with the first error. Not one metric is reported, and no line says which
#   gauge it was. In OpenTelemetry an observable gauge that fails is missing, and the rest is reported.
# Seen, of a counter that has counted 1 and a gauge that cannot ask the database:
#   prom-client: rejected
#   OpenTelemetry: counter reported, gauge missing
# Why it matters for API keys: the number of active keys, or of keys that expire soon, is a gauge that asks the database. While the
#   database is away, a process reports nothing at all: neither the refusals nor the 503 that an alarm waits for. Catch errors in
#   `collect`, and count them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  prom-client@15.1.3 @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/exporter-prometheus@0.223.0 \
  @opentelemetry/api@1.9.1 >/dev/null

cat >gauges.cjs <<'PROGRAM'
const { once } = require('node:events')
const { createServer } = require('node:http')
const { diag } = require('@opentelemetry/api')
const { PrometheusExporter } = require('@opentelemetry/exporter-prometheus')
const { MeterProvider } = require('@opentelemetry/sdk-metrics')
const { Counter, Gauge, Registry } = require('prom-client')

async function countActiveKeys() {
  throw new Error('The database is away.')
}

async function inPromClient() {
  const registry = new Registry()
  const registers = [registry]
  new Counter({ name: 'refusals_total', help: 'refusals', registers }).inc()
  const gauge = new Gauge({
    name: 'active_keys',
    help: 'active keys',
    registers,
    collect: async () => gauge.set(await countActiveKeys()),
  })
  return registry.metrics().catch(() => 'rejected')
}

async function inOpenTelemetry() {
  const exporter = new PrometheusExporter({ preventServerStart: true })
  const meter = new MeterProvider({ readers: [exporter] }).getMeter('keys')
  meter.createCounter('refusals').add(1)
  meter.createObservableGauge('active_keys').addCallback(async (result) => result.observe(await countActiveKeys()))
  const server = createServer((req, res) => exporter.getMetricsRequestHandler(req, res))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (await fetch(`http://127.0.0.1:${server.address().port}`)).text()
}

async function main() {
  diag.disable()
  const seen = []
  for (const [name, report] of Object.entries({ 'prom-client': inPromClient, OpenTelemetry: inOpenTelemetry })) {
    const text = await report()
    const has = (metric) => (text.includes(`\n${metric}`) ? 'reported' : 'missing')
    seen.push(text === 'rejected' ? 'rejected' : `counter ${has('refusals_total')}, gauge ${has('active_keys')}`)
    console.log(`${name}: ${seen.at(-1)}`)
  }
  process.exit(seen.join('; ') === 'rejected; counter reported, gauge missing' ? 0 : 1)
}

void main()
PROGRAM
node gauges.cjs
