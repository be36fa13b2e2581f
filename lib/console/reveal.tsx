import { AlreadyCreatedError } from '../errors'
import { hostOf } from '../http/same-origin'
import type { ApiKeyRecord } from '../keys/record'
import { Already, Reveal } from './pages/reveal'
import type { Call, View } from './router'

/**
 * Makes a secret and shows it in this one answer. No redirect comes between, because the secret would have to be kept until then. If
 * the request was carried out before, the answer has no secret, and says so.
 */
export async function revealOnce(
  { req, page }: Call,
  what: 'created' | 'rotated',
  make: () => Promise<{ apiKey: ApiKeyRecord; plainTextKey: string }>,
): Promise<View> {
  const { reveal } = page.texts
  const isRotated = what === 'rotated'
  try {
    const issued = await make()
    const { example = '/' } = page.look
    const origin = `${req.protocol}://${hostOf(req) ?? 'localhost'}`
    return {
      title: reveal[what](issued.apiKey.name),
      status: isRotated ? 200 : 201,
      content: (
        <Reveal
          page={page}
          {...issued}
          isRotated={isRotated}
          example={example.startsWith('/') ? origin + example : example}
        />
      ),
    }
  } catch (error) {
    if (!(error instanceof AlreadyCreatedError)) throw error
    return {
      title: isRotated ? reveal.alreadyRotated : reveal.already,
      status: error.status,
      content: <Already page={page} apiKey={error.apiKey} isRotated={isRotated} />,
    }
  }
}
