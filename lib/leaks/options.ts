import { createOptionChecks, show } from '../../models/option-checks'

/** The options of `leakRouter`: who may report exposed keys, and what happens to the keys. */
export interface LeakRouterOptions {
  /**
   * Takes reports of GitHub's secret scanning at `POST /github`. An object says where the public keys of another GitHub are, or has a
   * token for them, which raises GitHub's limit on requests.
   *
   * @default false
   */
  github?: boolean | GithubOptions | undefined
  /** Takes reports of a GitLab at `POST /revoke_tokens`, with the token that both sides know. */
  gitlab?: GitlabOptions | undefined
  /**
   * Takes reports of everyone at `POST /reports`. Who knows a key may end it.
   *
   * @default false
   */
  reports?: boolean | undefined
  /**
   * The status of a key that was reported. It is never reactivated in either case.
   *
   * @default 'revoke'
   */
  onExposed?: 'revoke' | 'suspend' | undefined
}

/** The options for the reports of GitHub. */
export interface GithubOptions {
  /** @default 'https://api.github.com/meta/public_keys/secret_scanning' */
  publicKeysUrl?: string | undefined
  token?: string | undefined
}

/** The options for the reports of a GitLab. */
export interface GitlabOptions {
  /** At least 16 characters. */
  token: string
  /**
   * The types of tokens that GitLab is to report, as `gitleaks_rule_id_` and the id of its rule.
   *
   * @default the types of `scannerRules('gitleaks')`, for example `gitleaks_rule_id_acme_api_key`
   */
  types?: readonly string[] | undefined
}

export type LeakSettings = ReturnType<typeof readLeakOptions>

const githubKeysUrl = 'https://api.github.com/meta/public_keys/secret_scanning'
const { refuseUnknownNames } = createOptionChecks('leakRouter')

/** Applies the defaults of the options, and refuses nonsense. */
export function readLeakOptions(given: unknown, usualTypes: readonly string[]) {
  const options = asObject('the options', given ?? {}) as LeakRouterOptions
  refuseUnknownNames(options, ['github', 'gitlab', 'reports', 'onExposed'])
  const { github = false, gitlab, reports = false, onExposed = 'revoke' } = options
  if (typeof reports !== 'boolean') throw wrong('reports must be true or false', reports)
  if (onExposed !== 'revoke' && onExposed !== 'suspend') {
    throw wrong("onExposed must be 'revoke' or 'suspend'", onExposed)
  }
  return {
    github: github === false ? undefined : readGithub(github === true ? {} : github),
    gitlab: gitlab === undefined ? undefined : readGitlab(gitlab, usualTypes),
    takesReports: reports,
    outcome: onExposed,
  }
}

function readGithub(given: GithubOptions) {
  refuseUnknownNames(asObject('github', given, 'true, false or an object'), [
    'publicKeysUrl',
    'token',
  ])
  const { publicKeysUrl = githubKeysUrl, token } = given
  if (!isTrusted(publicKeysUrl))
    throw wrong('publicKeysUrl must be an https address', publicKeysUrl)
  if (token !== undefined && typeof token !== 'string') {
    throw new TypeError('leakRouter: the token of github must be text')
  }
  return { publicKeysUrl, token }
}

function readGitlab(given: GitlabOptions, usualTypes: readonly string[]) {
  refuseUnknownNames(asObject('gitlab', given), ['token', 'types'])
  const { token, types = usualTypes } = given
  if (typeof token !== 'string' || token.length < 16) {
    throw new TypeError('leakRouter: the token of gitlab must have at least 16 characters')
  }
  const isList = Array.isArray(types) && types.every((type) => typeof type === 'string')
  if (!isList) throw wrong('the types of gitlab must be a list of names', types)
  return { token, types }
}

/** True for an address whose answers nobody on the way can change. */
function isTrusted(url: unknown): boolean {
  if (typeof url !== 'string' || !URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'https:' || (protocol === 'http:' && hostname === '127.0.0.1')
}

function asObject(name: string, given: unknown, kinds = 'an object'): object {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) return given
  throw wrong(`${name} must be ${kinds}`, given)
}

function wrong(sentence: string, given: unknown) {
  return new TypeError(`leakRouter: ${sentence}, got ${show(given)}`)
}
