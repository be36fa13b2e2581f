import {
  json,
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
  Router,
  urlencoded,
} from 'express'
import session, { type Store } from 'express-session'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'

import type { Database } from './database'
import { isPassword } from './passwords'
import { Problem } from './problems'

declare global {
  namespace Express {
    interface User {
      id: string
      username: string
      admin: boolean
    }
  }
}

/** Sets up Passport for this app: users have a name and a password, and sessions hold their id. */
export function createPassport({ User }: Database): passport.Authenticator {
  // One of its own, not the one that the module shares, so that several apps fit into one process.
  const authenticator = new passport.Passport()

  authenticator.use(
    new LocalStrategy(function verifyPassword(username, password, done) {
      findUser(username, password).then((user) => done(null, user), done)
    }),
  )
  authenticator.serializeUser<string>((user, done) => done(null, user.id))
  authenticator.deserializeUser<string>((id, done) => {
    User.findByPk(id).then((user) => done(null, user && toSignedIn(user)), done)
  })

  async function findUser(username: string, password: string): Promise<Express.User | false> {
    const user = await User.findOne({ where: { username } })
    const isRight = await isPassword(password, user?.passwordHash)
    return user !== null && isRight && toSignedIn(user)
  }

  return authenticator
}

function toSignedIn({ id, username, admin }: Express.User): Express.User {
  return { id, username, admin }
}

/** Reads the session of each request, if it has one, into `req.user`. */
export function createSessions(
  authenticator: passport.Authenticator,
  { store, secret }: { store: Store; secret: string },
): RequestHandler[] {
  return [
    session({
      name: 'session',
      store,
      secret,
      resave: false,
      saveUninitialized: false,
      cookie: { httpOnly: true, sameSite: 'lax', secure: 'auto', maxAge: 7 * 24 * 60 * 60 * 1000 },
    }),
    authenticator.session(),
  ]
}

/** Signs users in and out. */
export function signInRouter(authenticator: passport.Authenticator): Router {
  const router = Router()

  router.post(
    '/sign-in',
    json(),
    urlencoded({ extended: false }),
    requireCredentials,
    // A successful sign-in also replaces the session by a new one, against session fixation.
    authenticator.authenticate('local', { failWithError: true }),
    function signIn(req, res) {
      res.json({ user: req.user })
    },
  )

  router.post('/sign-out', function signOut(req, res, next) {
    req.session.destroy((error) => {
      if (error) return next(error)

      res.clearCookie('session').status(204).end()
    })
  })

  return router
}

/** Without it the strategy would also take a password from the URL, which ends up in logs. */
function requireCredentials(req: Request, _res: Response, next: NextFunction) {
  const { username, password } = (req.body ?? {}) as Record<string, unknown>
  if (!isText(username) || !isText(password)) {
    throw new Problem(400, 'Send username and password, as JSON or as a form')
  }

  next()
}

/** A zero byte is the one character that Postgres does not take. */
function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '' && !value.includes('\0')
}
