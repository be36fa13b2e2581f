import connectPgSimple from 'connect-pg-simple'
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
  // A new authenticator, because the module shares its own between all apps of a process.
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

/** Opens the sessions in the database. Their table is made with the first of them. */
export function openSessionStore(url: string) {
  return new (connectPgSimple(session))({
    conString: url,
    createTableIfMissing: true,
    // Only the message, because the error leads to the connection and its password.
    errorLog: (message: string) => console.error(message),
  })
}

/** Loads the user of a request's session into `req.user`, if the request has a session. */
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
    // Passport also replaces the session by a new one, against session fixation.
    authenticator.authenticate('local', { failWithError: true }),
    function signIn(req: Request, res: Response) {
      if (prefersPages(req)) res.redirect(303, '/settings/api-keys')
      else res.json({ user: req.user })
    },
    function refuseSignIn(error: Error, req: Request, res: Response, next: NextFunction) {
      const isWrong = 'status' in error && error.status === 401
      if (isWrong && prefersPages(req)) res.redirect(303, '/sign-in?failed')
      else next(error)
    },
  )

  router.post('/sign-out', function signOut(req, res, next) {
    req.session.destroy((error) => {
      if (error) return next(error)

      res.clearCookie('session')
      if (prefersPages(req)) res.redirect(303, '/')
      else res.status(204).end()
    })
  })

  return router
}

/** True if a browser sent the form of a page. A program takes JSON. */
function prefersPages(req: Request): boolean {
  return req.accepts(['json', 'html']) === 'html'
}

/** Requires both in the body, because the strategy also accepts a password in the URL, which gets into logs. */
function requireCredentials(req: Request, _res: Response, next: NextFunction) {
  const { username, password } = (req.body ?? {}) as Record<string, unknown>
  if (!isText(username) || !isText(password)) {
    throw new Problem(400, 'Send username and password, as JSON or as a form')
  }

  next()
}

/** The zero byte is the only character that Postgres rejects. */
function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '' && !value.includes('\0')
}
