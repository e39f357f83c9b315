import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { eq, inArray } from 'drizzle-orm'
import type { Database } from '../../db/database.ts'
import { settings } from '../../db/schema.ts'

export const ALGORITHM = 'EdDSA'

/** The key of the first start, and those that came after it. */
const FIRST = 'signing-key'
const LATER = 'signing-keys'

/** Servers read the keys again this often: a new one must be known to all before anybody signs with it. */
export const REREAD_MS = 60_000
export const LEAD_MS = 5 * REREAD_MS
/** Longer than any token lives that was signed with a key before another followed it. */
const KEEP_MS = 24 * 3_600_000

export interface SigningKey {
  readonly jwk: JWK
  /** ISO time; until the next key's. */
  readonly signsFrom: string
}

/** The keys that tokens are checked with, oldest first: at least one, made at the first start. */
export async function readSigningKeys(db: Database, now: Date): Promise<SigningKey[]> {
  const stored = await read(db)
  if (stored.length > 0) return withoutRetired(stored, now)
  await db.insert(settings).values({ key: FIRST, value: await newJwk() }).onConflictDoNothing()
  return read(db)
}

/**
 * Within a transaction, adds a key that signs from `LEAD_MS` after `now`, and forgets those that no living token can be
 * signed with. Null where there is no key yet, or one that waits already.
 */
export async function addSigningKey(tx: Database, now: Date): Promise<{ added: string; signsFrom: string; forgotten: string[] } | null> {
  await tx.select().from(settings).where(eq(settings.key, FIRST)).for('update')
  const stored = await read(tx)
  if (stored.length === 0 || stored.at(-1)!.signsFrom > now.toISOString()) return null
  const kept = withoutRetired(stored, now)
  const added = { jwk: await newJwk(), signsFrom: new Date(now.getTime() + LEAD_MS).toISOString() }
  const [first, ...later] = [...kept, added]
  await tx.update(settings).set({ value: first!.jwk }).where(eq(settings.key, FIRST))
  await tx.insert(settings).values({ key: LATER, value: later }).onConflictDoUpdate({ target: settings.key, set: { value: later } })
  return { added: added.jwk.kid!, signsFrom: added.signsFrom, forgotten: stored.filter((key) => !kept.includes(key)).map(({ jwk }) => jwk.kid!) }
}

async function read(db: Database): Promise<SigningKey[]> {
  const rows = await db.select().from(settings).where(inArray(settings.key, [FIRST, LATER]))
  const value = (key: string) => rows.find((row) => row.key === key)?.value
  const first = value(FIRST) as JWK | undefined
  return first === undefined ? [] : [{ jwk: first, signsFrom: new Date(0).toISOString() }, ...((value(LATER) as SigningKey[] | undefined) ?? [])]
}

function withoutRetired(keys: readonly SigningKey[], now: Date): SigningKey[] {
  return keys.filter((_, index) => {
    const next = keys[index + 1]
    return next === undefined || now.getTime() < Date.parse(next.signsFrom) + KEEP_MS
  })
}

async function newJwk(): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { crv: 'Ed25519', extractable: true })
  return { ...(await exportJWK(privateKey)), alg: ALGORITHM, kid: crypto.randomUUID() }
}
