import canonicalize from 'canonicalize'
import type { ManifestFile } from './manifest.ts'

/** The rules that fix the arithmetic of a merge to the bit (docs/numerics.md), in the order in which a recipe names them. */
export const RULES = ['lora-f32/1', 'dora-f32/1', 'absolute-diff/1', 'pissa-f64/1', 'olora-f64/1'] as const
export type Rule = (typeof RULES)[number]

/** The recipe of a merged model. Its id is the SHA-256 of its canonical JSON (RFC 8785). */
export interface Derivation {
  readonly format: 'portllm.derivation/1'
  /** Those in use, in the order of RULES. */
  readonly rules: readonly Rule[]
  /** Digest of the target model version, `sha256:…`. */
  readonly target: string
  /** In the order of summation. */
  readonly patches: readonly DerivationPatch[]
  /** What was asked for, where it is not the default and makes a difference; absent where nothing was. */
  readonly options?: DerivationOptions
  /** Output dtype of the changed tensors: `target` keeps each tensor's own. */
  readonly dtype: 'target'
}

export interface DerivationPatch {
  readonly digest: string
  readonly weight: number
  /** Digest of the base, where the merge reads it. */
  readonly base?: string
}

/** The parts of LayOptions (laying.ts) that are not their defaults. */
export interface DerivationOptions {
  readonly absolute?: 'replace'
  readonly tied?: 'untie'
}

/** Largest absolute weight of a patch in a derivation. */
export const MAX_WEIGHT = 100
/** Most patches of one derivation. */
export const MAX_PATCHES = 64

export class DerivationError extends Error {
  readonly code: 'bad-weight' | 'bad-scale' | 'bad-digest' | 'bad-patches'

  constructor(code: DerivationError['code'], message: string) {
    super(message)
    this.name = 'DerivationError'
    this.code = code
  }
}

/** JSON of `value` in the one spelling of RFC 8785. Throws TypeError for what JSON cannot hold. */
export function canonicalJson(value: unknown): string {
  const text = canonicalize(value)
  if (text === undefined) throw new TypeError('The value has no JSON form.')
  return text
}

/** SHA-256 of a text's UTF-8 bytes, as 64 hex digits. */
export async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).reduce(
    (hex, byte) => hex + byte.toString(16).padStart(2, '0'),
    '',
  )
}

/** A derivation of the target and patches with these digests. Throws DerivationError. */
export function newDerivation(target: string, patches: readonly DerivationPatch[], { rules = ['lora-f32/1'], options = {} }: { readonly rules?: readonly Rule[]; readonly options?: DerivationOptions } = {}): Derivation {
  if (patches.length === 0 || patches.length > MAX_PATCHES) {
    throw new DerivationError('bad-patches', `A merge takes 1 to ${MAX_PATCHES} patches, not ${patches.length}.`)
  }
  for (const digest of [target, ...patches.flatMap(({ digest, base }) => (base === undefined ? [digest] : [digest, base]))]) {
    if (!isDigest(digest)) throw new DerivationError('bad-digest', `${JSON.stringify(digest.slice(0, 100))} is not a digest: write sha256: and 64 hex digits.`)
  }
  return {
    format: 'portllm.derivation/1',
    rules: RULES.filter((rule) => rules.includes(rule)),
    target,
    patches: patches.map(({ digest, weight, base }) => ({ digest, weight: checkWeight(weight), ...(base === undefined ? {} : { base }) })),
    ...(Object.keys(options).length === 0 ? {} : { options }),
    dtype: 'target',
  }
}

/** SHA-256 of the derivation's canonical JSON, as 64 hex digits. */
export async function derivationId(derivation: Derivation): Promise<string> {
  return sha256Hex(canonicalJson(derivation))
}

/** `sha256:…` of a model version's files, whatever their order. */
export async function modelDigest(files: readonly ManifestFile[]): Promise<string> {
  return filesDigest('portllm.model/1', files)
}

/** `sha256:…` of a patch version's files, whatever their order. */
export async function patchDigest(files: readonly ManifestFile[]): Promise<string> {
  return filesDigest('portllm.patch/1', files)
}

/** `sha256:…` of a dataset version's files, whatever their order. */
export async function datasetDigest(files: readonly ManifestFile[]): Promise<string> {
  return filesDigest('portllm.dataset/1', files)
}

async function filesDigest(format: string, files: readonly ManifestFile[]): Promise<string> {
  const sorted = files.map(({ path, size, etag }) => ({ path, size, etag })).sort((a, b) => (a.path < b.path ? -1 : 1))
  return `sha256:${await sha256Hex(canonicalJson({ format, files: sorted }))}`
}

/** ETag of a file that a merge makes: known before the merge has run, since a derivation fixes its bytes. */
export async function virtualFileEtag(id: string, path: string): Promise<string> {
  return sha256Hex(`${id}\n${path}`)
}

/** The weight itself. Throws DerivationError unless it is finite, not zero and at most MAX_WEIGHT in size. */
export function checkWeight(weight: number): number {
  if (!Number.isFinite(weight) || weight === 0 || Math.abs(weight) > MAX_WEIGHT) {
    throw new DerivationError('bad-weight', `The weight ${weight} is not usable: give a number other than 0 from -${MAX_WEIGHT} to ${MAX_WEIGHT}.`)
  }
  return weight
}

/**
 * The float32 factor `s_p = fround(weight · scale)` of rule `lora-f32/1`; `scale` is `alpha/rank` in float64.
 * Throws DerivationError where float32 cannot hold it.
 */
export function effectiveScale(weight: number, scale: number): number {
  const factor = Math.fround(checkWeight(weight) * scale)
  if (!Number.isFinite(factor) || factor === 0) {
    throw new DerivationError('bad-scale', `The weight ${weight} times the scale ${scale} is not a usable float32 number.`)
  }
  return factor
}

export function isDigest(text: string): boolean {
  return /^sha256:[0-9a-f]{64}$/.test(text)
}
