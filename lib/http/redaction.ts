/**
 * Returns the paths under which pino prints keys: the headers that carry one, and what creates one. A list that may be
 * changed, because the types of pino demand that.
 */
export function redactionPathsOf(header: string | undefined): string[] {
  const headers = header === undefined ? ['authorization'] : ['authorization', header]

  return [
    ...headers.flatMap((name) => [`req.headers["${name}"]`, `headers["${name}"]`]),
    'plainTextKey',
    '*.plainTextKey',
    'res.body.plainTextKey',
  ]
}
