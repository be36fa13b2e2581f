/** Quotes the name of a table with its schema for use in SQL. */
export function qualify(schema: string, name: string): string {
  return `${quote(schema)}.${quote(name)}`
}

export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`
}

export function isQuoted(identifier: string): boolean {
  return /^".*"$/s.test(identifier)
}

/** Writes text as SQL does. Backslashes mean the same whatever `standard_conforming_strings` is. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? `E${quoted.replaceAll('\\', '\\\\')}` : quoted
}
