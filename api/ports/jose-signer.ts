import { decodeProtectedHeader, importJWK, jwtVerify, SignJWT } from 'jose'
import type { Database } from '../../db/database.ts'
import type { Clock } from './clock.ts'
import type { AttemptClaims, Signer } from './signer.ts'
import { ALGORITHM, readSigningKeys, REREAD_MS, type SigningKey } from './signing-keys.ts'

const ATTEMPT_AUDIENCE = 'portllm:attempt'

/** Signs with the registry's own Ed25519 keys. Tokens name their key, issuer and audience, or are refused. */
export async function createJoseSigner({ db, issuer, clock }: { db: Database; issuer: string; clock: Clock }): Promise<Signer> {
  let keys = await readSigningKeys(db, clock.now())
  let readAt = clock.now().getTime()

  async function currentKeys(): Promise<readonly SigningKey[]> {
    const now = clock.now()
    if (now.getTime() - readAt < REREAD_MS) return keys
    keys = await readSigningKeys(db, now)
    readAt = now.getTime()
    return keys
  }

  return {
    async signAttempt(claims, lifetimeSeconds) {
      const now = clock.now()
      const { jwk } = (await currentKeys()).findLast(({ signsFrom }) => Date.parse(signsFrom) <= now.getTime())!
      const seconds = Math.floor(now.getTime() / 1000)
      return new SignJWT({ ...claims })
        .setProtectedHeader({ alg: ALGORITHM, kid: jwk.kid! })
        .setIssuer(issuer)
        .setAudience(ATTEMPT_AUDIENCE)
        .setIssuedAt(seconds)
        .setExpirationTime(seconds + lifetimeSeconds)
        .sign(await importJWK(jwk, ALGORITHM))
    },
    async verifyAttempt(token) {
      const kid = readKeyId(token)
      const known = (await currentKeys()).find(({ jwk }) => jwk.kid === kid)
      if (kid === undefined || known === undefined) return null
      const { d: _secret, ...publicJwk } = known.jwk
      const verified = await jwtVerify(token, await importJWK(publicJwk, ALGORITHM), {
        algorithms: [ALGORITHM], issuer, audience: ATTEMPT_AUDIENCE, requiredClaims: ['exp', 'jobId', 'queueId', 'kind', 'retryCount'], currentDate: clock.now(),
      }).catch(() => null)
      if (verified === null) return null
      const { jobId, queueId, kind, retryCount } = verified.payload as unknown as AttemptClaims
      return { jobId, queueId, kind, retryCount }
    },
  }
}

function readKeyId(token: string): string | undefined {
  try {
    return decodeProtectedHeader(token).kid
  } catch {
    return undefined
  }
}

/** The same for a deployment that connects for each request: the keys are read once a request needs them. */
export function createLateSigner(source: Parameters<typeof createJoseSigner>[0]): Signer {
  let made: Promise<Signer> | undefined
  const signer = () => (made ??= createJoseSigner(source))
  return {
    signAttempt: async (claims, lifetimeSeconds) => (await signer()).signAttempt(claims, lifetimeSeconds),
    verifyAttempt: async (token) => (await signer()).verifyAttempt(token),
  }
}
