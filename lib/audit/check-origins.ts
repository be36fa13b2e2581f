import type { Walk } from './check-seals'
import { plus, weightOf } from './origins'
import { pageSql, type Verification } from './read-trail'

/** Compares the origins with their number and the sum of their signatures, which the head has. */
export async function checkOrigins(walk: Walk, { reader, tables }: Verification) {
  const { findings, signer, head, start } = walk
  if (!head) return

  let [count, sum, isUnknown] = [0n, 0n, false]
  const values = ['api_key_id', 'as_of', 'state']
  const pages = reader.rowsOf('its origins', (last) => {
    const after = last ? `WHERE api_key_id > '${last[0]}'` : ''
    return pageSql(values, `FROM ${tables.origins} ${after} ORDER BY api_key_id`)
  })
  for await (const part of pages) {
    for (const [apiKeyId = '', asOf = '', state = ''] of part) {
      const weight = weightOf(signer, head.originSecretId, { apiKeyId, asOf, state })
      isUnknown ||= weight === null
      sum += weight ?? 0n
      count++
    }
  }
  if (isUnknown) findings.unverifiable++
  else if (String(count) !== head.originCount || plus('0', sum) !== head.originSum) {
    const message = 'What pruned entries said of keys was changed.'
    findings.report('checkpoint_changed', { position: start.position }, message)
  }
}
