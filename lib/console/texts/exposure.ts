/** The texts on keys that became public, in English. */
export const exposureEn = {
  state: 'Exposed',
  label: 'Became public',
  note: 'This key became public. It never works again. Create a new one, and put it in its place.',
  /** The sources of reports, by the names that records show. */
  sources: {
    github: 'found by GitHub',
    gitlab: 'found by GitLab',
    report: 'reported by a finder',
    plain_http: 'sent over plain HTTP',
  } as Record<string, string>,
}

/** The same in German. */
export const exposureDe: typeof exposureEn = {
  state: 'Öffentlich',
  label: 'Öffentlich geworden',
  note: 'Dieser Schlüssel ist öffentlich geworden. Er gilt nie wieder. Erzeuge einen neuen und setze ihn an seine Stelle.',
  sources: {
    github: 'von GitHub gefunden',
    gitlab: 'von GitLab gefunden',
    report: 'von jemandem gemeldet',
    plain_http: 'über HTTP ohne TLS gesendet',
  },
}
