import { de } from './de'
import { en, type Texts } from './en'

export type { Texts } from './en'

/** The languages of the texts. */
export const languages = ['en', 'de'] as const

/** A language of the texts. */
export type Language = (typeof languages)[number]

const catalogue: Record<Language, Texts> = { en, de }

/** Returns the texts in a language. */
export function textsIn(language: Language): Texts {
  return catalogue[language]
}

/** Returns the language of the texts that a browser prefers (RFC 9110, section 12.5.4), else English. */
export function preferredLanguage(accepts: (languages: string[]) => string | false): Language {
  return languages.find((language) => language === accepts([...languages])) ?? 'en'
}
