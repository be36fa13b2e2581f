import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Request, Response } from 'express'

import type { Look } from './options'

/** A file that the pages load. Its name has a hash of its content, so that browsers may keep it for ever. */
interface Asset {
  name: string
  type: string
  body: Buffer
}

/** The files that the pages load. */
export type Assets = ReturnType<typeof createAssets>

/** Reads the style and the script of the pages, and serves them. The style gets the colours of the app. */
export function createAssets({ accent, darkAccent }: Look) {
  const colours = `:root{--accent:${accent};--accent-text:${accent}}@media (prefers-color-scheme:dark){:root{--accent-text:${darkAccent}}}`
  const style = createAsset('console.css', 'text/css', `${read('console.css')}\n${colours}\n`)
  const script = createAsset('console.js', 'text/javascript', read('console.js'))
  const assets = new Map([style, script].map((asset) => [asset.name, asset]))

  return {
    style: style.name,
    script: script.name,

    /** Answers a request for a file. Returns false if there is no such file. */
    serve(name: string, req: Request, res: Response): boolean {
      const asset = assets.get(name)
      if (!asset) return false

      res.setHeader('Cache-Control', 'public, max-age=31536000, immutable')
      res.setHeader('Content-Type', `${asset.type}; charset=utf-8`)
      res.setHeader('X-Content-Type-Options', 'nosniff')
      res.setHeader('ETag', `"${asset.name}"`)
      // Proxies that compress make the tag weak.
      if (req.fresh) res.status(304).end()
      else res.setHeader('Content-Length', asset.body.length).end(asset.body)
      return true
    },
  }
}

function read(file: string): string {
  return readFileSync(join(__dirname, 'assets', file), 'utf8')
}

function createAsset(file: string, type: string, text: string): Asset {
  const hash = createHash('sha256').update(text).digest('base64url').slice(0, 16)
  return { name: file.replace('.', `-${hash}.`), type, body: Buffer.from(text) }
}
