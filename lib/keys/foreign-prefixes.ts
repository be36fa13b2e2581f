/**
 * The prefixes of other vendors' keys, up to the underscore or hyphen before their secret. Secret scanners look for these, and report
 * what they find to the vendor, who cannot know it.
 */
const vendors: Readonly<Record<string, string>> = {
  AWS: 'akia',
  Anthropic: 'sk_ant',
  DigitalOcean: 'dop_v1 doo_v1 dor_v1',
  Docker: 'dckr_pat dckr_oat',
  Duffel: 'duffel_live duffel_test',
  Figma: 'figd',
  GitHub: 'ghp gho ghu ghs ghr github_pat',
  GitLab: 'glpat gldt glrt glcbt glptt glft glsoat glagent gloas glimt glffct',
  Grafana: 'glsa glc',
  Groq: 'gsk',
  'Hugging Face': 'hf api_org',
  Linear: 'lin_api',
  Notion: 'ntn',
  OpenAI: 'sk sk_proj',
  Perplexity: 'pplx',
  PlanetScale: 'pscale_tkn pscale_oauth pscale_pw',
  Prefect: 'pnu',
  Pulumi: 'pul',
  PyPI: 'pypi',
  ReadMe: 'rdme',
  Replicate: 'r8',
  RubyGems: 'rubygems',
  Sentry: 'sntrys sntryu',
  Shippo: 'shippo_live shippo_test',
  Shopify: 'shpat shpca shppa shpss',
  Slack: 'xoxa xoxb xoxe xoxp xoxr xoxs xapp',
  SonarQube: 'squ sqp sqa',
  Sourcegraph: 'sgp',
  Stripe: 'sk_live sk_test sk_prod rk_live rk_test rk_prod pk_live pk_test whsec',
  Supabase: 'sbp sb_secret sb_publishable',
  npm: 'npm',
}

// The longest comes first: `sk_live` is of Stripe, whoever has `sk`.
const foreignPrefixes = Object.entries(vendors)
  .flatMap(([vendor, prefixes]) => prefixes.split(' ').map((prefix) => ({ vendor, prefix })))
  .toSorted((a, b) => b.prefix.length - a.prefix.length)

/**
 * Returns the vendor for whose keys a secret scanner would take keys with this prefix; `undefined` if there is none. Some scanners look
 * at the end of a prefix as well, and find `ghp_` behind `acme_`.
 */
export function vendorOf(keyPrefix: string): string | undefined {
  return foreignPrefixes.find(
    ({ prefix }) =>
      keyPrefix === prefix ||
      keyPrefix.startsWith(`${prefix}_`) ||
      keyPrefix.endsWith(`_${prefix}`),
  )?.vendor
}
