import { exportJWK, generateKeyPair, importJWK, jwtVerify, SignJWT, type JWK } from 'jose'
import { eq } from 'drizzle-orm'
import type { Database } from '../../db/database.ts'
import { settings } from '../../db/schema.ts'
import type { Clock } from './clock.ts'
import type { AttemptClaims, Signer } from './signer.ts'

const KEY = 'signing-key'
const ALGORITHM = 'EdDSA'
const ATTEMPT_AUDIENCE = 'portllm:attempt'

/** Signs with the registry's own Ed25519 key, made at the first start. Tokens name their key, issuer and audience, or are refused. */
export async function createJoseSigner({ db, issuer, clock }: { db: Database; issuer: string; clock: Clock }): Promise<Signer> {
  const jwk = await readSigningKey(db)
  const { d: _secret, ...publicJwk } = jwk
  const [privateKey, publicKey] = await Promise.all([importJWK(jwk, ALGORITHM), importJWK(publicJwk, ALGORITHM)])
  return {
    async signAttempt(claims, lifetimeSeconds) {
      const now = Math.floor(clock.now().getTime() / 1000)
      return new SignJWT({ ...claims })
        .setProtectedHeader({ alg: ALGORITHM, kid: jwk.kid! })
        .setIssuer(issuer)
        .setAudience(ATTEMPT_AUDIENCE)
        .setIssuedAt(now)
        .setExpirationTime(now + lifetimeSeconds)
        .sign(privateKey)
    },
    async verifyAttempt(token) {
      const verified = await jwtVerify(token, publicKey, {
        algorithms: [ALGORITHM], issuer, audience: ATTEMPT_AUDIENCE, requiredClaims: ['exp', 'jobId', 'queueId', 'kind', 'retryCount'], currentDate: clock.now(),
      }).catch(() => null)
      if (verified === null || verified.protectedHeader.kid !== jwk.kid) return null
      const { jobId, queueId, kind, retryCount } = verified.payload as unknown as AttemptClaims
      return { jobId, queueId, kind, retryCount }
    },
  }
}

async function readSigningKey(db: Database): Promise<JWK> {
  const kept = await findSigningKey(db)
  if (kept !== null) return kept
  const { privateKey } = await generateKeyPair(ALGORITHM, { crv: 'Ed25519', extractable: true })
  const fresh = { ...(await exportJWK(privateKey)), alg: ALGORITHM, kid: crypto.randomUUID() }
  await db.insert(settings).values({ key: KEY, value: fresh }).onConflictDoNothing()
  return (await findSigningKey(db))!
}

async function findSigningKey(db: Database): Promise<JWK | null> {
  const [row] = await db.select().from(settings).where(eq(settings.key, KEY))
  return row === undefined ? null : (row.value as JWK)
}

/** The same for a deployment that connects for each request: the key is read once a request needs it. */
export function createLateSigner(source: Parameters<typeof createJoseSigner>[0]): Signer {
  let made: Promise<Signer> | undefined
  const signer = () => (made ??= createJoseSigner(source))
  return {
    signAttempt: async (claims, lifetimeSeconds) => (await signer()).signAttempt(claims, lifetimeSeconds),
    verifyAttempt: async (token) => (await signer()).verifyAttempt(token),
  }
}
