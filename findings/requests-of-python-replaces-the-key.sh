#!/usr/bin/env bash
# Python's requests 2.28.1, beside httpx 0.23.3, aiohttp 3.8.4 and urllib (Debian's packages; they have to be installed)
#
# Expected: a request is sent with the `Authorization` that the caller gave it.
# Happens: if ~/.netrc has an entry for the host, requests replaces the field by Basic credentials from there, for a single request and
#   for a session alike. Nothing says so, and the caller's own dictionary still has the key. An argument `auth`, or `trust_env = False` on
#   a session, keeps it from that. The other clients send what they were given, aiohttp also with `trust_env=True`.
# Seen, with `machine 127.0.0.1 login ci password other` in ~/.netrc, as the server reads the field:
#   requests: Basic
#   requests, session: Basic
#   requests, trust_env off: Bearer a-key
#   httpx: Bearer a-key
#   aiohttp, trust_env on: Bearer a-key
#   urllib: Bearer a-key
# Why it matters for API keys: machines that build software have a .netrc, for git and for registries of packages, often with a line for
#   the company's own host, or `default`. A script with a good key gets 401 there and nowhere else, and the server's log shows Basic
#   credentials that the script does not have. In documentation for Python, show a session with `trust_env = False`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >server.cjs <<'PROGRAM'
const server = require('node:http').createServer((req, res) => res.end(req.headers.authorization))
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
PROGRAM
cat >clients.py <<'PROGRAM'
import asyncio
import sys
import urllib.request

import aiohttp
import httpx
import requests

url = f"http://127.0.0.1:{sys.argv[1]}"
headers = {"Authorization": "Bearer a-key"}


def in_session(trust_env):
    with requests.Session() as session:
        session.trust_env = trust_env
        session.headers.update(headers)
        return session.get(url).text


async def in_aiohttp():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(url, headers=headers) as answer:
            return await answer.text()


def in_urllib():
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read().decode()


clients = {
    "requests": lambda: requests.get(url, headers=headers).text,
    "requests, session": lambda: in_session(True),
    "requests, trust_env off": lambda: in_session(False),
    "httpx": lambda: httpx.get(url, headers=headers).text,
    "aiohttp, trust_env on": lambda: asyncio.run(in_aiohttp()),
    "urllib": in_urllib,
}
seen = []
for name, send in clients.items():
    field = send()
    seen.append("Basic" if field.startswith("Basic ") else field)
    print(f"{name}: {seen[-1]}")
sys.exit(0 if seen == ["Basic", "Basic"] + ["Bearer a-key"] * 4 else 1)
PROGRAM
echo 'machine 127.0.0.1 login ci password other' >.netrc
chmod 600 .netrc
node server.cjs >port &
server=$!
trap 'kill "$server" 2>/dev/null && wait; rm -rf "$folder"' EXIT
for _ in {1..100}; do
  [ ! -s port ] || break
  sleep 0.1
done
env -u NETRC -u http_proxy -u HTTP_PROXY HOME="$folder" /usr/bin/python3 clients.py "$(cat port)"
