import { show } from '../../models/option-checks'
import type { Settings } from '../read-options'
import { scannedForms, type ScannedForm } from './scanned-forms'

/** A program that looks for secrets in texts, and has rules of its users. */
export type Scanner = keyof typeof writers

/** The scanners for which there are rules. */
export const scanners = ['gitleaks', 'git-secrets', 'github', 'secretlint'] as const

const writers = {
  /** Rules for a `.gitleaks.toml`. Their ids are those that `leakRouter` names to GitLab. */
  gitleaks: (forms) =>
    forms
      .map(
        ({ id, start, patternWith }) => `[[rules]]
id = "${id}"
description = "API key (${start})"
regex = '''${patternWith('(?:')}'''
keywords = ["${start}"]
`,
      )
      .join('\n'),

  /** Commands. git-secrets finds whole words alone, so that the patterns have the rest of the word. */
  'git-secrets': (forms) =>
    forms
      .map(({ patternWith }) => {
        const rest = '[0-9A-Za-z_]*'
        return `git secrets --add '${rest}${patternWith('(')}${rest}'\n`
      })
      .join(''),

  /** The fields of custom patterns. The field before the secret is empty, because a key may follow any character. */
  github: (forms) =>
    forms
      .map(
        ({ id, patternWith }) => `Pattern name:   ${id}
Secret format:  ${patternWith('(?:')}
Before secret:
After secret:   \\z|[^0-9A-Za-z]
`,
      )
      .join('\n'),

  /** A `.secretlintrc.json`. */
  secretlint: (forms) => {
    const patterns = forms.map(({ id, patternWith }) => ({
      name: id,
      patterns: [`/${patternWith('(?:')}/`],
    }))
    const rule = { id: '@secretlint/secretlint-rule-pattern', options: { patterns } }
    return `${JSON.stringify({ rules: [rule] }, null, 2)}\n`
  },
} satisfies Record<(typeof scanners)[number], (forms: readonly ScannedForm[]) => string>

/** Returns the rules by which a scanner finds the keys of an app, ready to paste. */
export function scannerRules(
  settings: Pick<Settings, 'environments' | 'imports'>,
  scanner: Scanner,
) {
  if (!scanners.includes(scanner)) {
    throw new TypeError(
      `scannerRules: the scanner must be one of ${scanners.join(', ')}, got ${show(scanner)}`,
    )
  }
  return writers[scanner](scannedForms(settings).forms)
}
